"""The AutoNL authors' names of tensors (their PyTorch code), so that their released checkpoints load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from tenfold.models.autonl import NonLocalClassifier
from tenfold.models.weights import load_renamed

_PARTS = {"conv": "0", "bn": "1"}


def official_autonl_names(network: NonLocalClassifier) -> Iterator[tuple[str, str]]:
    """Our name and the authors' of every tensor of `autonl_s`, `autonl_l` and found networks, in the authors' order.

    Source: `autonl.md` section 6.

    Example:
        >>> from tenfold.models import build
        >>> dict(official_autonl_names(build("autonl_s")))["stage1.0.attention.bn.weight"]
        'features.2.nl_op.bn.weight'
    """
    places = ["stem", *(name for name, *_ in network.blocks), "tail"]
    numbers = {f"{place}.": index for index, place in enumerate(places)}
    for name in network.state_dict():
        prefix = next((prefix for prefix in numbers if name.startswith(prefix)), None)
        if prefix is None:
            yield name, name.replace("classifier.", "classifier.1.")
            continue
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part in _PARTS:  # of the stem or the tail
            official = f"{_PARTS[part]}.{rest}"
        else:
            official = _part_of_block(network.get_submodule(prefix.removesuffix(".")), part, rest)
        yield name, f"features.{numbers[prefix]}.{official}"


def _part_of_block(block: nn.Module, part: str, rest: str) -> str:
    head, _, tail = rest.partition(".")
    if part == "attention":
        return f"nl_op.{'depthwise_conv' if head == 'depthwise' else head}.{tail}"
    if part == "squeeze_excite":
        return f"se_op.se_{rest}"
    if part == "depthwise":
        layer, _, last = tail.partition(".")
        group = list(block.get_submodule("depthwise")._modules).index(head)
        expands = not isinstance(block.get_submodule("expand"), nn.Identity)
        return f"depth_ops.{group}.{int(expands)}.{_PARTS[layer]}.{last}"
    return f"{part}_conv.{_PARTS[head]}.{tail}"


def load_official_autonl(network: NonLocalClassifier, state: Mapping[str, Tensor]) -> None:
    """Load a checkpoint that the authors released into the same network of ours.

    Their PyTorch code leaves out the 1 / HW of the paper: build the network with `legacy_scale=True` for its weights.

    Args:
        network: `autonl_s` or `autonl_l`, with the checkpoint's number of classes.
        state: tensors by the authors' names, as `read_checkpoint` reads them.

    Raises:
        UsageError: if a tensor is missing or has another shape.
    """
    load_renamed(network, dict(official_autonl_names(network)), state)
