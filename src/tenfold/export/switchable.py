"""The profile `switchable`: one file that runs at any of a network's bit-widths, chosen at every call.

Weights are stored once, at their most bits. Codes of the schemes "modified" and "centered" nest, so those of fewer bits
are the same with the low bits dropped: c_b = c_B >> (B - b), exactly (AdaBits, arXiv 1912.09666; `adabits.md` sections
2.1 and 7). What else depends on the width (steps and highest codes of activations, scales and biases with the batch
norm folded in) stands in tables with a row for each width, of which the graph takes the row that its second input, an
index, names. The arithmetic is that of the profile `compact`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tenfold.errors import ExportError
from tenfold.export.compact import add_bias, raise_opset
from tenfold.export.graph import (
    Builder,
    Codes,
    IntegerLayer,
    Network,
    Quantizer,
    array_of,
    drop_unused,
    is_activation,
    is_weight,
)
from tenfold.export.integers import UINT8_TOP, UNSIGNED, store
from tenfold.export.width_choice import ONE_FILE_EACH, WIDTH_INPUT
from tenfold.quant import QuantLayer, widest
from tenfold.quant.schemes import signed_grid

_NESTING = ("modified", "centered")
_ALL_BITS = 255

Array = NDArray[Any]
Layers = Sequence[Mapping[str, QuantLayer]]


def write_switchable(networks: Sequence[Network], layers: Layers) -> list[list[Codes]]:
    """Write one graph for all widths, in place of the graph of the first.

    Args:
        networks: one network at each of its widths, as `capture_widths` gives it.
        layers: for each width, the quantized layers by name; `refuse_if_not_nested` has seen them.

    Returns:
        For each width the codes of each quantized activation, in the order of `networks[0].quantizers`.

    Raises:
        ExportError: if the graphs differ in more than numbers.
    """
    _refuse_if_different(networks)
    model = networks[0].model
    tables = _Tables(model.graph)
    rows = list(zip(*(list(network.graph) for network in networks), strict=True))
    for nodes in rows:
        if not is_weight(nodes[0]) and not is_activation(nodes[0]):
            _write_constants(tables, nodes)
    for twins in zip(*(network.layers for network in networks), strict=True):
        _write_layer(tables, twins, layers)
    for nodes in rows:
        if is_weight(nodes[0]) and nodes[0].outputs[0].uses():
            _write_loose_weight(tables, nodes, layers)
    codes = [_write_quantizer(tables, twins) for twins in zip(*(one.quantizers for one in networks), strict=True)]
    model.graph.inputs.append(tables.index)
    drop_unused(model)
    raise_opset(model.graph)
    return [[row[position] for row in codes] for position in range(len(networks))]


def refuse_if_not_nested(layers: Layers) -> None:
    """Refuse layers whose weights have different bits at different widths, on grids that do not nest.

    Args:
        layers: for each width, the quantized layers by name.

    Raises:
        ExportError: naming the layer and its scheme.
    """
    for name, layer in layers[0].items():
        bits, scheme = [width[name].w_bits for width in layers], layer.layer.scheme
        if len(set(bits)) > 1 and scheme not in _NESTING:
            raise ExportError(
                f"the weights of {name} have {', '.join(map(str, bits))} bits at the widths of this network, and codes "
                f'of the scheme "{scheme}" do not nest: fewer bits are not the same bits with the low ones dropped. '
                'Train with scheme="modified", or "centered" if a width has 3 bits or less; or '
                f"{ONE_FILE_EACH}."
            )


class _Tables:
    """Values that depend on the width: rows of tables, gathered by the index."""

    def __init__(self, graph: ir.Graph) -> None:
        self.builder, self._graph = Builder(graph, "switchable"), graph
        self.index = ir.Value(name=WIDTH_INPUT, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
        self._rows: dict[str, ir.Value] = {}

    def value(self, rows: Sequence[Array]) -> ir.Value:
        """The array of the current width; a plain constant if all are equal."""
        first = rows[0]
        if all(np.array_equal(first, row) for row in rows):
            return self.builder.constant(first)
        table = self.builder.constant(np.stack(rows))
        if table.name not in self._rows:
            self._rows[table.name] = self.builder.add(next(iter(self._graph)), "Gather", table, self.index)
        return self._rows[table.name]

    def scalar(self, numbers: Sequence[float], kind: type[np.generic]) -> ir.Value:
        """The number of the current width."""
        return self.value([np.asarray(number, kind) for number in numbers])


@dataclass(frozen=True)
class _Nest:
    """The weights of a layer at all widths: real weight = scale * factor * ((stored & mask) - zero + lift).

    Bits are masked and not shifted out, because OpenVINO takes a shift of constants for a division of real numbers.

    Attributes:
        stored: integers of 2, 4 or 8 bits, (C_out, …).
        zero: the stored integer that stands for zero, or for the first level above it on grids without zero.
        masks: the bits that count, for each width.
        lifts: what such a level lies above zero, for each width.
        factors: for each width.
    """

    stored: Array
    zero: int
    masks: list[int]
    lifts: list[float]
    factors: list[float]


def _nest(name: str, codes: Sequence[NDArray[np.int16]], layers: Layers) -> _Nest:
    """Find the codes that hold those of all widths.

    Args:
        name: of the layer.
        codes: with zero point 0, for each width.
        layers: as `write_switchable` takes them.

    Raises:
        ExportError: if there are none.
    """
    if all(np.array_equal(codes[0], one) for one in codes):
        same, times = store(codes[0]), len(codes)
        zero = math.ceil(same.middle)
        return _Nest(same.stored, zero, [_ALL_BITS] * times, [zero - same.middle] * times, [same.factor] * times)
    bits = [widest(width[name].w_bits) for width in layers]  # one number each, as a switch has no others
    grids = [signed_grid(one, layers[0][name].layer.scheme) for one in bits]
    unsigned = [(one - grid.low) // grid.step for one, grid in zip(codes, grids, strict=True)]
    most = max(bits)
    whole = unsigned[bits.index(most)]
    shifts = [most - one for one in bits]
    if not all(np.array_equal(one, whole >> shift) for one, shift in zip(unsigned, shifts, strict=True)):
        raise ExportError(f"the weights of {name} do not nest, although they should; please report this.")
    zero = 2 ** (most - 1)
    return _Nest(
        whole.astype(next(kind for size, kind in UNSIGNED.items() if most <= size)),
        zero,
        [_ALL_BITS >> shift << shift for shift in shifts],
        [zero + grid.low / grid.step * 2**shift for grid, shift in zip(grids, shifts, strict=True)],
        [grid.step / 2**shift for grid, shift in zip(grids, shifts, strict=True)],
    )


def _write_layer(tables: _Tables, twins: Sequence[IntegerLayer], layers: Layers) -> None:
    node = twins[0].node
    nest = _nest(twins[0].name, [twin.codes for twin in twins], layers)
    weight = _weight(tables, node, nest, [twin.scale for twin in twins], is_transposed=node.op_type == "MatMul")
    node.replace_input_with(1, weight)
    biases = [twin.bias.astype(np.float32) for twin in twins]
    add_bias(tables.builder, node, tables.value(biases) if np.any(biases) else None)


def _weight(
    tables: _Tables, reader: ir.Node, nest: _Nest, scales: Sequence[NDArray[np.float64]], *, is_transposed: bool = False
) -> ir.Value:
    """Real weights in front of a node that reads them.

    All is done on matrices: with dimensions of one element at the end, ONNX Runtime takes 20 times as long.
    """
    add, shape = tables.builder.add, nest.stored.shape
    matrix, axis = nest.stored.reshape(shape[0], -1), 0
    if is_transposed:
        matrix, axis = matrix.T, 1
    value = tables.builder.constant(np.ascontiguousarray(matrix))
    if _bits(matrix) < 8:  # unpacked once, when the file is loaded
        kind = ir.DataType.INT8 if _is_signed(matrix) else ir.DataType.UINT8
        value = add(reader, "Cast", value, to=int(kind))
    if set(nest.masks) != {_ALL_BITS}:
        value = add(reader, "BitwiseAnd", value, tables.scalar(nest.masks, np.uint8))
    units = [(scale * factor).astype(np.float32) for scale, factor in zip(scales, nest.factors, strict=True)]
    zero = tables.builder.constant(np.asarray(nest.zero, np.int8 if _is_signed(matrix) else np.uint8))
    if all(np.ptp(unit) == 0 for unit in units):
        units = [np.asarray(unit[0]) for unit in units]
    else:  # a constant that is made when the file is loaded
        zero = add(reader, "Expand", zero, tables.builder.constant(np.array(units[0].shape, np.int64)))
    unit = tables.value(units)
    value = add(reader, "DequantizeLinear", value, unit, zero, axis=axis)
    if any(nest.lifts):
        lift = add(reader, "Mul", unit, tables.scalar(nest.lifts, np.float32))
        if np.ndim(units[0]) and not is_transposed:
            lift = add(reader, "Reshape", lift, tables.builder.constant(np.array([-1, 1])))
        value = add(reader, "Add", value, lift)
    if len(shape) > 2:
        value = add(reader, "Reshape", value, tables.builder.constant(np.array(shape, np.int64)))
    return value


def _write_loose_weight(tables: _Tables, nodes: Sequence[ir.Node], layers: Layers) -> None:
    """Write a quantized weight that is read in an unknown way."""
    codes, scales = ([array_of(node.inputs[index]) for node in nodes] for index in (0, 1))
    nest = _nest(nodes[0].attributes["layer"].value, [np.asarray(one, np.int16) for one in codes], layers)
    wide = [np.broadcast_to(np.asarray(scale, np.float64), (len(nest.stored),)) for scale in scales]
    ir.convenience.replace_all_uses_with(nodes[0].outputs[0], _weight(tables, nodes[0], nest, wide))


def _write_constants(tables: _Tables, nodes: Sequence[ir.Node]) -> None:
    """Give a node that is no quantizer the constants of the current width, where they differ."""
    for index in range(len(nodes[0].inputs)):
        arrays = [array for node in nodes if (array := array_of(node.inputs[index])) is not None]
        if arrays and not all(np.array_equal(arrays[0], array) for array in arrays):
            nodes[0].replace_input_with(index, tables.value(arrays))


def _write_quantizer(tables: _Tables, twins: Sequence[Quantizer]) -> list[Codes]:
    add, node, value = tables.builder.add, twins[0].node, twins[0].source
    grids = [twin.grid for twin in twins]
    step = tables.scalar([grid.step for grid in grids], np.float32)
    if any(grid.shift for grid in grids):
        value = add(node, "Add", value, tables.scalar([grid.shift for grid in grids], np.float32))
    codes = add(node, "QuantizeLinear", value, step)  # uint8, zero point 0: saturates below
    lows, highs = [twin.low for twin in twins], [twin.high for twin in twins]
    if any(lows) or min(highs) < UINT8_TOP:
        low = tables.scalar(lows, np.uint8) if any(lows) else None
        codes = add(node, "Clip", codes, low, tables.scalar(highs, np.uint8))
    value = add(node, "DequantizeLinear", codes, step)
    if any(grid.offset for grid in grids):
        value = add(node, "Add", value, tables.scalar([grid.offset for grid in grids], np.float32))
    ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    return [Codes(twin.grid.step, 0, twin.grid.offset, twin.low, twin.high, codes) for twin in twins]


def _refuse_if_different(networks: Sequence[Network]) -> None:
    """Refuse graphs that differ in more than numbers.

    Raises:
        ExportError: naming the first operator that differs.
    """
    outlines = [_outline(network) for network in networks]
    for outline in outlines[1:]:
        if len(outline) != len(outlines[0]):
            raise _different(f"there are {len(outlines[0])} operators at one and {len(outline)} at another")
        for one, other in zip(outlines[0], outline, strict=True):
            if one != other:
                raise _different(f"{one[1]} at one is {other[1]} at another, or reads something else")


def _different(what: str) -> ExportError:
    return ExportError(
        f"this network computes in different ways at its bit-widths: {what}. One file cannot hold that; "
        f"{ONE_FILE_EACH}."
    )


def _outline(network: Network) -> list[tuple[Any, ...]]:
    """What each node is and reads, without the numbers that may depend on the width."""
    origins: dict[ir.Value, Any] = {}
    outline = []
    for index, node in enumerate(network.graph):
        origins |= {value: (index, number) for number, value in enumerate(node.outputs)}
        free = is_activation(node) or is_weight(node)
        attributes = {} if free else {name: _plain(attribute) for name, attribute in node.attributes.items()}
        reads = tuple(_origin(value, origins) for value in node.inputs)
        outline.append((node.domain, node.op_type, attributes, reads))
    return outline


def _origin(value: ir.Value | None, origins: Mapping[ir.Value, Any]) -> Any:
    if value is None:
        return None
    array = array_of(value)
    return origins.get(value, value.name) if array is None else (array.dtype.name, array.shape)


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


def _bits(array: Array) -> int:
    return next(size for size in (2, 4, 8) if array.dtype.name in (f"int{size}", f"uint{size}"))


def _is_signed(array: Array) -> bool:
    return array.dtype.name.startswith("int")
