"""Where the blocks of a convolutional network end: the places for non-local blocks.

Source: AutoNL (arXiv 2004.01961) puts LightNL behind the projection and its batch norm, before the input is added. In
any network that is a batch norm without activation: of a linear bottleneck, or before the sum of a residual block.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.layers.lightnl import LightNonLocal
from tenfold.layers.nonlocal_block import NonLocalBlock

_ACTIVATIONS = frozenset(
    """
    celu clamp clamp_max clamp_min elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish mul prelu
    relu relu6 selu sigmoid silu softmax softplus tanh threshold
    """.split()  # noqa: SIM905 - as a list, thirty lines
)
_SUMS = frozenset(("add",))


class BlockEnd(NamedTuple):
    """A batch norm without activation, and the map that it gives."""

    name: str
    channels: int
    height: int
    width: int


def find_block_ends(network: nn.Module, example: Tensor) -> list[BlockEnd]:
    """The batch norms that end the blocks of a network, in the order of execution.

    Where two of them are added to each other, the one of the shortcut (with fewer convolutions on its way) is none. Nor
    is one inside a non-local block, or with such a block behind it already.

    Args:
        network: any module; left as it was.
        example: a batch of its inputs, (B, C, H, W), on the network's device.

    Returns:
        Empty if there are none, or torch cannot draw the graph of the network.
    """
    try:
        twin = copy.deepcopy(network).eval()
        with torch.no_grad():
            graph = torch.export.export(twin, (example[:2],), strict=False).graph
    except Exception:  # whatever a network does that torch cannot follow, we cannot either
        return []
    modules = dict(network.named_modules())
    taken = {name for name, module in modules.items() if isinstance(module, LightNonLocal | NonLocalBlock)}
    ends = {
        node: name
        for node in graph.nodes
        if (name := _norm_of(node, modules)) and _is_linear(node) and not _is_taken(node, taken)
    }
    depths = _depths(graph)
    found = []
    for node, name in ends.items():
        rivals = [other for other in _added_to(node) if other in ends]
        if all(depths[other] < depths[node] for other in rivals):
            _, channels, height, width = node.meta["val"].shape
            found.append(BlockEnd(name, int(channels), int(height), int(width)))
    return found


def _operation(node: Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name).rpartition("::")[2].removesuffix("_")


def _norm_of(node: Node, modules: dict[str, nn.Module]) -> str:
    """The name of the 2-d batch norm whose operation a node is, or ""."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    name = next(reversed(stack.values()))[0] if stack else ""
    is_norm = "batch_norm" in _operation(node) and isinstance(modules.get(name), _BatchNorm)
    return name if is_norm and node.meta["val"].dim() == 4 else ""


def _is_linear(node: Node) -> bool:
    return not any(_operation(user) in _ACTIVATIONS for user in node.users)


def _is_taken(node: Node, blocks: set[str]) -> bool:
    """Whether a node, or what reads it, is part of one of some modules."""
    stacks: list[dict[str, Any]] = [one.meta.get("nn_module_stack") or {} for one in (node, *node.users)]
    return any(module[0] in blocks for stack in stacks for module in stack.values())


def _added_to(node: Node) -> list[Node]:
    """What a node is added to, if nothing else reads it."""
    if any(_operation(user) not in _SUMS for user in node.users):
        return []
    return [other for user in node.users for other in user.all_input_nodes if other is not node]


def _depths(graph: Graph) -> dict[Node, int]:
    """For each node the most convolutions on a way to it from the input."""
    depths: dict[Node, int] = {}
    for node in graph.nodes:
        before = max((depths[source] for source in node.all_input_nodes), default=0)
        depths[node] = before + ("conv" in _operation(node))
    return depths
