"""The network behind `tenfold inpaint`, as the command line names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tenfold.cli.artifacts import ARTIFACT_NAME, artifact_path, open_artifact
from tenfold.cli.output import to_stderr
from tenfold.cli.starting_weights import start_from
from tenfold.cli.values import ONNX_SUFFIX, is_file_name
from tenfold.errors import ArtifactError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from tenfold.video.engine_choice import EngineReport
    from tenfold.video.filling import Filling
    from tenfold.video.network_filling import RunNetwork

TORCH = "torch"
EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]
_HINT = "`tenfold models 'tsam*'` lists networks for it."


def make_filling(
    network: str | None,
    weights: Path | None,
    *,
    seam: int,
    device: str,
    engine: EngineName = "auto",
    threads: int | None = None,
    memory: Path | None = None,
) -> Filling | None:
    """What fills the rest of holes; None where no network is named.

    Args:
        network: a run folder, an artifact, an .onnx file, or a model's name.
        weights: of a model's name.
        seam: pixels of what was copied that the network may repair.
        device: where PyTorch runs.
        engine: the runtime; "auto" takes the fastest of those that can run it.
        threads: of the runtime of an .onnx file; None for one a core.
        memory: file that keeps the choice of a runtime; see EngineChoice.

    Raises:
        UsageError: if the network fills no video, the engine cannot run it, or weights are missing or not needed.
        MissingDataError: if there is no such file.
        ArtifactError: if a file is damaged, or of another kind.
    """
    if network is None:
        named = {"--network-weights": weights is not None, "--seam": seam, "--engine": engine != "auto"}
        for option, is_given in named.items():
            if is_given:
                raise UsageError(f"{option} means nothing without --network. Name the network, or leave it out.")
        return None
    from tenfold.video.engine_choice import EngineChoice
    from tenfold.video.network_filling import NetworkFilling

    runs, refused = _runs(network, weights, device, engine, threads)
    return NetworkFilling(EngineChoice(runs, engine, refused=refused, memory=memory), seam=seam)


def _runs(
    network: str, weights: Path | None, device: str, engine: EngineName, threads: int | None
) -> tuple[dict[str, RunNetwork], dict[str, str]]:
    """The network in every runtime that can run it, PyTorch first; and why others cannot."""
    from tenfold.models import packaged_weights

    exported: Path | None = None
    if not (is_file_name(network) or Path(network).is_dir()):
        _check_takes_windows(network)
        artifact = packaged_weights(network) if weights is None else None
        if artifact is None:
            _check_has_export(None, network, engine)
            return {TORCH: _in_torch(_by_name(network, weights), device)}, {}
    else:
        artifact, exported = _pair(Path(network))
    if weights is not None:
        raise UsageError(f"--network-weights does not go with {network}: a file brings its weights. Leave it out.")
    if device != "cpu":
        if network.endswith(ONNX_SUFFIX):
            raise UsageError(f"{network} runs on the CPU; got --device {device}. Leave it out, or give an artifact.")
        exported = None
    runs: dict[str, RunNetwork] = {}
    if artifact is not None:
        loaded, header = open_artifact(artifact)
        described = header.get("architecture") or {}
        _check_takes_windows(str(described.get("name", network)))
        runs[TORCH] = _as_trained(_in_torch(loaded, device), header.get("task"))
    elif engine == TORCH:
        raise UsageError(
            f"{network} has no artifact beside it that PyTorch could run. Name the run folder, or leave out --engine."
        )
    _check_has_export(exported, network, engine)
    if exported is None:
        return runs, {}
    in_runtimes, refused = _in_runtimes(exported, engine, threads)
    return runs | in_runtimes, refused


def _pair(path: Path) -> tuple[Path | None, Path | None]:
    """An artifact, and what `tenfold export` made of it beside it, whichever of them (or their folder) is named."""
    if path.suffix == ONNX_SUFFIX:
        artifact, exported = path.with_name(ARTIFACT_NAME), path
    else:
        artifact = artifact_path(path)
        exported = artifact.with_name(f"fast{ONNX_SUFFIX}")
    if not (artifact.is_file() and exported.is_file() and artifact.stat().st_mtime <= exported.stat().st_mtime):
        # Only one is there, or the network was trained anew after the export: what was named counts.
        return (None, exported) if exported == path else (artifact, None)
    return artifact, exported


def network_files(network: str | None, weights: Path | None) -> list[Path]:
    """The files that the network is read from: with one of them changed it is another network."""
    files = [] if weights is None else [weights]
    if network is not None and (is_file_name(network) or Path(network).is_dir()):
        files += [one for one in _pair(Path(network)) if one is not None]
    return files


def _check_has_export(exported: Path | None, network: str, engine: EngineName) -> None:
    if exported is None and engine not in ("auto", TORCH):
        raise UsageError(
            f"--engine {engine} runs .onnx files on the CPU, and {network} is none. Make one by `tenfold export`, and "
            "name the file, or the run folder with it."
        )


def _in_torch(network: nn.Module, device: str) -> RunNetwork:
    from tenfold.video.network_runs import run_module

    return run_module(network, device)


def _in_runtimes(path: Path, engine: EngineName, threads: int | None) -> tuple[dict[str, RunNetwork], dict[str, str]]:
    from tenfold.export.engine import ENGINES, installed_engines
    from tenfold.export.metadata import read_metadata
    from tenfold.video.network_runs import run_file

    task = read_metadata(path).get("task")
    runs: dict[str, RunNetwork] = {}
    refused: dict[str, str] = {}
    for name in ENGINES:
        if name not in (installed_engines() or ENGINES[:1]) and name != engine:
            continue
        try:
            runs[name] = _as_trained(run_file(path, name, threads), task)
        except ArtifactError as error:
            if name == engine or len(installed_engines()) < 2:
                raise
            refused[name] = str(error)
    if not runs:
        raise ArtifactError(" ".join(refused.values()))
    return runs, refused


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

    names = models.list_models()
    if name not in names and ":" not in name:
        fill = [one for one in names if models.facts(one).takes == "window"]
        raise UnknownNameError(
            "network for filling video", name, fill, hint=f"There is no file or run folder of that name either. {_HINT}"
        )
    if models.facts(name).takes != "window":
        raise UsageError(f"{name} takes images and fills no video. {_HINT}")


def tell_engine(report: EngineReport | None, done: str = "filled") -> None:
    """Say which runtime ran a network, and how the others compare.

    Args:
        report: of a network; None if none was run.
        done: what it did.
    """
    if report is None:
        return
    from rich.text import Text

    times = ", ".join(f"{name} {one:.1f} ms" for name, one in report.milliseconds.items())
    lines = [f"{done} by a network that {report.engine} ran (first call: {times})"]
    for name, gap in report.differences.items():
        lines.append(
            f"{name} differs from {report.reference} by {gap['mean']:.2g} of 255 levels on average, {gap['largest']:g} "
            "at most"
        )
    lines += [f"not run by {name}: {reason}" for name, reason in report.refused.items()]
    for line in lines:
        to_stderr(Text(line, style="dim"))
