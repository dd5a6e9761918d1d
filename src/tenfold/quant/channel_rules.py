"""What operations do to channels: which of them work on each channel by itself, and where the channels are afterwards.

An operation that is not listed here mixes channels, as far as we know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Node


@dataclass(frozen=True)
class Flow:
    """The channels of one layer, somewhere behind it.

    Attributes:
        producer: name of that layer.
        dim: the dimension of the tensor that counts them.
        route: the layers passed: the producer and depthwise convolutions.
    """

    producer: str
    dim: int
    route: tuple[str, ...]


# One number in, one number out. Those of two tensors count only where both are the same channels (x * sigmoid(x)).
_ELEMENTWISE = frozenset(
    """
    abs add alias alpha_dropout celu clamp clamp_max clamp_min clip clone contiguous detach div divide dropout elu erf
    exp feature_dropout gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid maximum minimum mish mul
    multiply neg pow reciprocal relu relu6 rsqrt rsub selu sigmoid silu softplus softshrink softsign sqrt square sub
    subtract tanh tanhshrink threshold to type_as
    """.split()  # noqa: SIM905 - as a list, forty lines
)
# Each output is computed from places of the same channel, and a constant map stays one (max_pool2d pads with -inf).
_SPATIAL = frozenset(("max_pool2d", "adaptive_avg_pool2d", "avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d"))
_RESHAPING = frozenset(("flatten", "view", "reshape", "squeeze", "unsafe_view"))
# What may give back its input's memory, so that writing into the result writes into the input.
_ALIASING = _RESHAPING | {"dropout", "feature_dropout", "alpha_dropout", "contiguous", "detach", "alias", "to"}
_ALIASING |= {"select", "type_as"}


def operation(node: Node) -> str:
    """The name of a node's operator without namespace, overload and the sign of working in place; "" if it has none."""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else schema.name.rpartition("::")[2].removesuffix("_")


def follow(node: Node, flows: Mapping[Node, Flow]) -> Flow | None:
    """The channels behind a node that is neither a convolution or linear layer nor a batch norm.

    Args:
        node: any call of the graph, or its output.
        flows: what is known of the nodes before.

    Returns:
        The channels of its output; None if its inputs have none, or mix here.
    """
    source = node.args[0] if node.args else None
    flow = flows.get(source) if isinstance(source, Node) else None
    if flow is None or not isinstance(source, Node) or (_works_in_place(node) and not _is_only_reader(source)):
        return None
    name, others = operation(node), [other for other in node.all_input_nodes if other is not source]
    if name == "pad":
        return flow if len(_argument(node, 1, "pad", ())) // 2 < len(_shape(source)) - flow.dim else None
    if any(flows.get(other) != flow or _shape(other) != _shape(source) for other in others):
        return None
    if name in _ELEMENTWISE:
        return None if "dropout" in name and _argument(node, 2, "train", False) else flow
    if name in _SPATIAL:
        return flow if flow.dim == 1 and len(_shape(source)) == 4 and not _averages_padding(node) else None
    if name in _RESHAPING:
        return flow if flow.dim == 1 and _only_drops_ones(node, source) else None
    if name in ("mean", "select"):
        return _without_dimensions(node, source, flow)
    return None


def _works_in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_only_reader(source: Node) -> bool:
    """Whether nobody else can see that a tensor is overwritten."""
    while True:
        if sum(operation(user) != "_assert_tensor_metadata" for user in source.users) > 1:
            return False
        before = source.args[0] if source.args else None
        if not isinstance(before, Node) or not (operation(source) in _ALIASING or _works_in_place(source)):
            return True
        source = before


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _argument(node: Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _averages_padding(node: Node) -> bool:
    """Whether an average pooling counts places outside of the map, which are zeros."""
    if operation(node) != "avg_pool2d":
        return False
    padding, ceils = _argument(node, 3, "padding", 0), _argument(node, 4, "ceil_mode", False)
    return bool(ceils) or (any(padding) if isinstance(padding, list | tuple) else bool(padding))


def _only_drops_ones(node: Node, source: Node) -> bool:
    """Whether (B, C, 1, 1) loses its last dimensions, and that in words that hold for any number of channels."""
    before, after = _shape(source), _shape(node)
    if len(after) < 2 or after != before[: len(after)] or any(size != 1 for size in before[len(after) :]):
        return False
    if operation(node) in ("flatten", "squeeze"):
        return True
    sizes = _argument(node, 1, "size", _argument(node, 1, "shape", ()))
    return len(sizes) > 1 and bool(sizes[1] == -1)


def _without_dimensions(node: Node, source: Node, flow: Flow) -> Flow | None:
    """The mean over some dimensions, or one place of a dimension."""
    given, rank = _argument(node, 1, "dim", None), len(_shape(source))
    if given is None:
        return None
    gone = {one % rank for one in (given if isinstance(given, list | tuple) else [given])}
    if not gone or flow.dim in gone:
        return None
    keeps = operation(node) == "mean" and _argument(node, 2, "keepdim", False)
    return flow if keeps else replace(flow, dim=flow.dim - sum(one < flow.dim for one in gone))
