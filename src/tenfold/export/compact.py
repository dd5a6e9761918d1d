"""The profile `compact`: the smallest file, with the arithmetic of the network itself.

Weights are stored as integers of 2, 4 or 8 bits and turned into real numbers when a runtime loads the file. The batch
norm is folded into their scale. A runtime computes convolutions in float: the result equals the network's up to
rounding, on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import ml_dtypes
import numpy as np
import onnx_ir as ir
from torch import nn

from tenfold.export.graph import Builder, Codes, IntegerLayer, Network, Quantizer, array_of, drop_unused, is_weight
from tenfold.export.integers import UINT8_TOP, GroupedStorage, Storage, store, store_by_kernel
from tenfold.quant import quantized_layers

KernelBits = Mapping[str, Sequence[int]]
"""By the name of a layer the bits of each of its kernels; layers whose kernels all have the same are not in it."""

TWO_BIT_OPSET = 25
"""The first with two-bit integers. ONNX Runtime reads them; OpenVINO does not yet."""
_IR_VERSION, _TWO_BIT_IR_VERSION = 10, 13
_NODE_BYTES = 150
"""About what a node with the names of its inputs and outputs takes in a file."""
_TWO_BIT = (np.dtype(ml_dtypes.int2), np.dtype(ml_dtypes.uint2))


def write_compact(
    network: Network, kernel_bits: KernelBits = MappingProxyType({}), *, real_weights: bool = False
) -> list[Codes]:
    """Write the layers and quantizers of a network as standard ONNX, in place.

    Args:
        network: as `tidy` leaves it.
        kernel_bits: of the layers whose kernels have bits of their own, see `bits_by_kernel`.
        real_weights: write weights as float32.

    Returns:
        The codes of each quantized activation, in the order of `network.quantizers`.
    """
    builder = Builder(network.graph, "compact")
    for layer in network.layers:
        if real_weights:
            write_float_layer(builder, layer)
        else:
            _write_layer(builder, layer, kernel_bits.get(layer.name))
    for node in list(network.graph):
        if is_weight(node):
            write_loose_weight(builder, node, kernel_bits)
    codes = [_write_quantizer(builder, quantizer) for quantizer in network.quantizers]
    drop_unused(network.model)
    raise_opset(network.graph)
    return codes


def bits_by_kernel(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The bits of each kernel, by the name of the layer, where kernels have bits of their own."""
    return {name: layer.w_bits for name, layer in quantized_layers(network) if isinstance(layer.w_bits, tuple)}


def set_format(model: ir.Model) -> None:
    """Note the version of the file format that the model's operators belong to."""
    two_bit = model.graph.opset_imports[""] == TWO_BIT_OPSET
    model.ir_version = _TWO_BIT_IR_VERSION if two_bit else _IR_VERSION


def raise_opset(graph: ir.Graph) -> None:
    """Ask for the operators that know two-bit integers, if the graph has any."""
    arrays = (value.const_value for value in graph.initializers.values())
    if any(array is not None and array.dtype.numpy() in _TWO_BIT for array in arrays):
        graph.opset_imports[""] = TWO_BIT_OPSET


def _write_layer(builder: Builder, layer: IntegerLayer, kernel_bits: Sequence[int] | None) -> None:
    is_transposed = layer.node.op_type == "MatMul"
    weight = _weight(builder, layer.node, layer.codes, layer.scale, kernel_bits, is_transposed=is_transposed)
    layer.node.replace_input_with(1, weight)
    write_float_bias(builder, layer)


def write_float_layer(builder: Builder, layer: IntegerLayer) -> None:
    """Write a layer with real weights."""
    weight = (layer.codes * layer.scale.reshape(-1, *[1] * (layer.codes.ndim - 1))).astype(np.float32)
    if layer.node.op_type == "MatMul":
        weight = np.ascontiguousarray(weight.T)
    layer.node.replace_input_with(1, builder.constant(weight))
    write_float_bias(builder, layer)


def write_float_bias(builder: Builder, layer: IntegerLayer) -> None:
    """Give a layer its bias as real numbers, unless it has none."""
    bias = layer.bias.astype(np.float32)
    add_bias(builder, layer.node, builder.constant(bias) if np.any(bias) else None)


def add_bias(builder: Builder, node: ir.Node, bias: ir.Value | None) -> None:
    """Give a Conv, Gemm or MatMul a bias, or take it away."""
    if bias is None:
        node.resize_inputs(2)
    elif node.op_type != "MatMul":
        node.resize_inputs(3)
        node.replace_input_with(2, bias)
    else:
        output = node.outputs[0]
        total = builder.add(builder.after(output), "Add", None, bias)
        if output.is_graph_output():
            output.name, total.name = total.name, output.name
        ir.convenience.replace_all_uses_with(output, total, replace_graph_outputs=True)
        total.producer().replace_input_with(0, output)


def _weight(
    builder: Builder,
    reader: ir.Node,
    codes: np.ndarray,
    scale: np.ndarray,
    kernel_bits: Sequence[int] | None,
    *,
    is_transposed: bool = False,
) -> ir.Value:
    """Write a weight whose scale is one number for each kernel, kernels by their bits if they have their own."""

    def integers(stored: Storage) -> ir.Value:
        array = np.ascontiguousarray(stored.stored.T if is_transposed else stored.stored)
        # The scale is a node of its own, so that runtimes do not take this for one of their 8-bit patterns.
        value = builder.add(reader, "DequantizeLinear", builder.constant(array), builder.constant(np.float32(1)))
        if stored.middle:
            value = builder.add(reader, "Sub", value, builder.constant(np.float32(stored.middle)))
        return value

    grouped, axis = None if kernel_bits is None else store_by_kernel(codes, kernel_bits), int(is_transposed)
    if grouped is None or not _is_worth_it(grouped, codes):
        whole = store(codes)
        weight, scale = integers(whole), scale * whole.factor
    else:
        weight, scale = builder.add(reader, "Concat", *map(integers, grouped.groups), axis=axis), scale * grouped.factor
        rows = builder.add(reader, "Cast", builder.constant(grouped.rows), to=ir.DataType.INT32)
        weight = builder.add(reader, "Gather", weight, rows, axis=axis)
    scale = scale[0].reshape(()) if np.ptp(scale) == 0 else scale.reshape(-1, *[1] * (codes.ndim - 1))
    scale = scale.T if is_transposed else scale
    return builder.add(reader, "Mul", weight, builder.constant(scale.astype(np.float32)))


def _is_worth_it(grouped: GroupedStorage, codes: np.ndarray) -> bool:
    """Whether groups make the file smaller, or some kernels are zeros, which fit no type together with odd codes."""
    if not grouped.groups:
        return False
    overhead = _NODE_BYTES * (3 + len(grouped.groups))
    widest = max(group.bits for group in grouped.groups)
    return bool((grouped.factor == 0).any()) or grouped.size_bytes + overhead < codes.size * widest / 8


def write_loose_weight(builder: Builder, node: ir.Node, kernel_bits: KernelBits = MappingProxyType({})) -> None:
    """Write a quantized weight that is read in an unknown way, as real numbers computed from integers."""
    codes, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
    assert codes is not None
    assert scale is not None
    scale = np.broadcast_to(scale.astype(np.float64), (len(codes),))
    weight = _weight(builder, node, codes, scale, kernel_bits.get(node.attributes["layer"].value))
    ir.convenience.replace_all_uses_with(node.outputs[0], weight)
    node.graph.remove(node, safe=True)


def _write_quantizer(builder: Builder, quantizer: Quantizer) -> Codes:
    node, grid, value = quantizer.node, quantizer.grid, quantizer.source
    step = builder.constant(np.float32(grid.step))
    zero = grid.zero or 0
    point = (builder.constant(np.uint8(zero)),) if zero else ()
    if grid.shift and not zero:
        value = builder.add(node, "Add", value, builder.constant(np.float32(grid.shift)))
    codes = builder.add(node, "QuantizeLinear", value, step, *point)  # uint8: saturates below
    if quantizer.low > 0 or quantizer.high < UINT8_TOP:
        low = builder.constant(np.uint8(quantizer.low)) if quantizer.low > 0 else None
        codes = builder.add(node, "Clip", codes, low, builder.constant(np.uint8(quantizer.high)))
    value = builder.add(node, "DequantizeLinear", codes, step, *point)
    if grid.offset and not zero:
        value = builder.add(node, "Add", value, builder.constant(np.float32(grid.offset)))
    ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    return Codes(grid.step, zero, 0.0 if zero else grid.offset, quantizer.low, quantizer.high, codes)
