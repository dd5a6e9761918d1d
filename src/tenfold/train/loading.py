"""Bringing a network back from its artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tenfold import models, quant
from tenfold.errors import ArtifactError, UsageError
from tenfold.export.artifact import read_artifact
from tenfold.layers.map_capture import is_timm_attention
from tenfold.layers.reattention_insertion import expose_products


def load(path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """Rebuild the network of an artifact, with no code from outside and no pickle.

    Args:
        path: a `.safetensors` artifact that `fit` wrote.
        network: a fresh float network to pour the weights into; needed only if the artifact is of a class that the
            model registry does not know.

    Returns:
        The network in eval mode on the CPU; its attribute `header` is the artifact's header (architecture, schemes,
        task, metrics, budget, cost, config, versions).

    Raises:
        ArtifactError: if the file is damaged, not ours, or does not describe a network that can be built here.
        MissingDataError: if there is no such file.
        UsageError: if the artifact has no architecture and no network is given.

    Example:
        >>> network = load("runs/digits/artifact.safetensors")  # doctest: +SKIP
        >>> network.header["metrics"]["top1"]  # doctest: +SKIP
        0.98
    """
    header, tensors = read_artifact(Path(path))
    if network is None:
        network = _build(path, header)
    try:
        schemes = {name: quant.LayerScheme.from_dict(scheme) for name, scheme in header.get("schemes", {}).items()}
        modules = dict(network.named_modules())
        owners = [modules.get(name.rpartition(".")[0]) for name in schemes if name not in modules]
        if any(owner is not None and is_timm_attention(owner) for owner in owners):
            expose_products(network)  # timm's attention hides its products
        network = quant.quantize(network, schemes)
        if "switch" in header:
            network = quant.restore_switch(network, header["switch"])
        for cut in header.get("cuts", []):
            network = quant.cut_channels(network, cut)
        network.load_state_dict(tensors)
    except (UsageError, RuntimeError, AttributeError) as error:
        raise ArtifactError(f"{path}: its tensors do not fit the network that its header describes: {error}") from error
    network.header = header  # type: ignore[assignment]
    return network.eval()


def _build(path: str | Path, header: Mapping[str, Any]) -> nn.Module:
    described = header.get("architecture")
    if described is None:
        raise UsageError(
            f"{path} holds a network of a class that the model registry does not know. "
            "Build that network yourself and give it: load(path, network)."
        )
    try:
        return models.build(models.Architecture.from_dict(described))
    except UsageError as error:
        raise ArtifactError(f"{path}: its network cannot be built here: {error}") from error
