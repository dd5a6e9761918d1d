"""Taking everything out of an ONNX file that no runtime needs."""

from __future__ import annotations

import string

import onnx_ir as ir

_DIGITS = string.ascii_letters + string.digits

_DEFAULTS = (
    ("Conv", "group", 1),
    ("Conv", "auto_pad", "NOTSET"),
    ("Gemm", "alpha", 1.0),
    ("Gemm", "beta", 1.0),
    ("Gemm", "transA", 0),
    ("Reshape", "allowzero", 0),
    ("ReduceMean", "keepdims", 1),
    ("Flatten", "axis", 1),
)


def slim(model: ir.Model, *, everything: bool = True) -> None:
    """Remove comments, names and shapes of inner values, and shorten the names that must stay; in place.

    Args:
        model: any model.
        everything: leave out attributes, too, that say what an operator does anyway.
    """
    graph = model.graph
    kept = {value.name for value in (*graph.inputs, *graph.outputs)}
    names = (name for index in range(10**9) if (name := _short(index)) not in kept)
    model.doc_string = graph.doc_string = None
    model.producer_name = model.producer_version = model.domain = None
    model.metadata_props.clear()
    graph.metadata_props.clear()
    graph.name = "g"
    for value in list(graph.initializers.values()):
        value.name = next(names)
        _strip(value)
    for node in graph:
        node.name = None
        node.doc_string = None
        node.metadata_props.clear()
        superfluous = [name for name, value in node.attributes.items() if everything and _is_default(node, name, value)]
        for name in superfluous:
            del node.attributes[name]
        for value in node.outputs:
            if value.name not in kept:
                value.name = next(names)
                value.type = value.shape = None
            _strip(value)


def _strip(value: ir.Value) -> None:
    value.doc_string = None
    value.metadata_props.clear()


def _is_default(node: ir.Node, name: str, attribute: ir.Attr) -> bool:
    """Whether an attribute says what the operator does anyway."""
    value = list(attribute.value) if isinstance(attribute.value, list | tuple) else attribute.value
    if node.op_type == "Conv":
        if name == "kernel_shape":
            return True  # it is the shape of the weight
        if isinstance(value, list):
            return set(value) == {0 if name == "pads" else 1}
    return (node.op_type, name, value) in _DEFAULTS


def _short(index: int) -> str:
    """a, b, …, 9, ba, bb, …: the shortest names there are."""
    text = _DIGITS[index % len(_DIGITS)]
    while index := index // len(_DIGITS):
        text = _DIGITS[index % len(_DIGITS)] + text
    return text
