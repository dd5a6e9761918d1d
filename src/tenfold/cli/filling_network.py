"""The network behind `tenfold inpaint`, as the command line names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.cli.artifacts import open_artifact
from tenfold.cli.starting_weights import start_from
from tenfold.cli.values import ONNX_SUFFIX, is_file_name
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from tenfold.video.filling import Filling
    from tenfold.video.network_filling import RunNetwork

_HINT = "`tenfold models 'tsam*'` lists networks for it."


def make_filling(
    network: str | None, weights: Path | None, *, seam: int, device: str, threads: int | None = None
) -> Filling | None:
    """What fills the rest of holes; None where no network is named.

    Args:
        network: a run folder, an artifact, an .onnx file, or a model's name.
        weights: of a model's name.
        seam: pixels of what was copied that the network may repair.
        device: where it runs.
        threads: of the runtime of an .onnx file; None for one a core.

    Raises:
        UsageError: if the network fills no video, or weights are missing or not needed.
        MissingDataError: if there is no such file.
        ArtifactError: if a file is damaged, or of another kind.
    """
    if network is None:
        if weights is not None or seam:
            named = "--network-weights" if weights is not None else "--seam"
            raise UsageError(f"{named} means nothing without --network. Name the network, or leave it out.")
        return None
    from tenfold.video.network_filling import NetworkFilling

    return NetworkFilling(_run(network, weights, device, threads), seam=seam)


def _run(network: str, weights: Path | None, device: str, threads: int | None) -> RunNetwork:
    from tenfold.models import packaged_weights
    from tenfold.video.network_runs import run_file, run_module

    if not (is_file_name(network) or Path(network).is_dir()):
        _check_takes_windows(network)
        packaged = packaged_weights(network) if weights is None else None
        if packaged is None:
            return run_module(_by_name(network, weights), device)
        network = str(packaged)
    if weights is not None:
        raise UsageError(f"--network-weights does not go with {network}: a file brings its weights. Leave it out.")
    if network.endswith(ONNX_SUFFIX):
        if device != "cpu":
            raise UsageError(f"{network} runs on the CPU; got --device {device}. Leave it out, or give an artifact.")
        from tenfold.export.metadata import read_metadata

        return _as_trained(run_file(network, threads=threads), read_metadata(network).get("task"))
    loaded, header = open_artifact(network)
    described = header.get("architecture") or {}
    _check_takes_windows(str(described.get("name", network)))
    return _as_trained(run_module(loaded, device), header.get("task"))


def _as_trained(run: RunNetwork, task: Mapping[str, Any] | None) -> RunNetwork:
    """The network as one that paints colours, whatever it learned to give."""
    from tenfold.video.network_filling import over_smooth

    return over_smooth(run) if (task or {}).get("base") == "smooth" else run


def _by_name(name: str, weights: Path | None) -> nn.Module:
    from tenfold import models

    if weights is None:
        raise UsageError(
            f"--network {name} is not trained. Give its weights with --network-weights, or name the artifact of a "
            "training."
        )
    if weights.suffix != ".safetensors" and models.is_official_tsam(state := models.read_checkpoint(weights)):
        network = models.build(name, mode="compat")  # what their weights were trained with
        models.load_official_tsam(network, state)
        return network
    network = models.build(name)
    start_from(network, weights)
    return network


def _check_takes_windows(name: str) -> None:
    from tenfold import models

    if models.facts(name).takes != "window":
        raise UsageError(f"{name} takes images and fills no video. {_HINT}")
