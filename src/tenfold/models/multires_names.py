"""The NCP authors' names of tensors, so that their checkpoints load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from tenfold.models.weights import load_renamed

_LAYER = {"conv": "0", "bn": "1"}


def official_multires_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Our name and the authors' of every tensor of `multires` and `multires_segmenter`, in the authors' order.

    Source: arXiv 2103.13253, official code (ncp.md section 3).

    Example:
        >>> from tenfold.models import build
        >>> dict(official_multires_names(build("multires_tiny")))["body.blocks.1.fusion.grow.conv.weight"]
        'features.2.fuse_layers.1.0.0.weight'
    """
    names = [(name, _official(network, name)) for name in network.state_dict()]
    order = {"downsamples": 0, "transform": 1, "classifier": 2, "features": 3}
    return iter(sorted(names, key=lambda pair: order[pair[1].partition(".")[0]]))


def _official(network: nn.Module, own: str) -> str:
    name = own.removeprefix("body.")
    if match := re.fullmatch(r"stem\.(\d)\.(conv|bn)\.(.+)", name):
        return f"downsamples.{match[1]}.{_LAYER[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"mix\.(conv|bn)\.(.+)", name):
        return f"transform.{_LAYER[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"blocks\.(\d+)\.fusion\.rows\.(\d)\.(\d)\.(conv|bn)\.(.+)", name):
        block, row, source, layer, rest = match.groups()
        nested = "" if row == source else ".0"
        return f"features.{2 * int(block)}.fuse_layers.{row}.{source}{nested}.{_LAYER[layer]}.{rest}"
    if match := re.fullmatch(r"blocks\.(\d+)\.fusion\.grow\.(conv|bn)\.(.+)", name):
        row = len(network.get_submodule(own.partition(".grow.")[0]).rows)  # type: ignore[arg-type]
        return f"features.{2 * int(match[1])}.fuse_layers.{row}.0.{_LAYER[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"blocks\.(\d+)\.branches\.(.+)", name):
        return f"features.{2 * int(match[1]) + 1}.branches.{match[2]}"
    return name


def load_official_multires(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights under the authors' names into the same network of ours.

    Args:
        network: `multires` or `multires_segmenter` with the code and the number of classes of the weights.
        state: tensors by the authors' names, as `read_checkpoint` reads them.

    Raises:
        UsageError: if a tensor is missing or has another shape.
    """
    state = dict(state)
    weight = state.get("classifier.weight")
    if weight is not None and weight.dim() == 4 and isinstance(network.get_submodule("classifier"), nn.Linear):
        state["classifier.weight"] = weight.flatten(1)  # theirs is a 1x1 convolution
    load_renamed(network, dict(official_multires_names(network)), state)
