"""The profile `fast`: 8-bit integer kernels in ONNX Runtime and OpenVINO.

Both runtimes recognise `QuantizeLinear` and `DequantizeLinear` around an operator and replace the three by one integer
kernel. They want unsigned activations and signed weights with one scale per output channel. Below 8 bits the codes are
clipped after `QuantizeLinear`; a clip of real numbers in front of it would keep the convolution in float.

Source: `sat.md` section 8, and measurements with ONNX Runtime 1.32 and OpenVINO 2026.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from tenfold.export.compact import write_float_bias, write_float_layer, write_loose_weight
from tenfold.export.graph import (
    Builder,
    Codes,
    IntegerLayer,
    Network,
    Quantizer,
    attribute,
    bypass,
    clamp_bounds,
    drop_unused,
    is_weight,
    sole_reader,
)
from tenfold.export.integers import INT8_TOP, UINT8_TOP, KernelWeight, is_whole, kernel_weight
from tenfold.export.placing import MOVERS, Observation, Plan, halves, readers
from tenfold.export.products import saturates, write_product

_WIDEST = 1.25
"""How much coarser an observed grid may become to save a node."""


@dataclass(eq=False)
class _Grid(Codes):
    """The codes of an activation, and how its `QuantizeLinear` comes by them.

    Attributes:
        source: the grid that the quantized value is on already, if it is.
        source_zero: the zero point with which to read that grid, so that the quantizer's shift is part of it.
        is_reused: the quantizer keeps the grid of its source and only clips.
        is_doubled: the codes count in half steps, because zero lies half-way between two levels.
    """

    source: Codes | None = None
    source_zero: int | None = None
    is_reused: bool = False
    is_doubled: bool = False


@dataclass(frozen=True)
class Written:
    """The result of writing.

    Attributes:
        codes: of each quantized activation, in the order of `network.quantizers`.
        weights: of each layer that runs in integers.
        saturates: whether kernels without VNNI may saturate in a product of activations.
    """

    codes: list[Codes]
    weights: dict[IntegerLayer, KernelWeight] = field(default_factory=dict)
    saturates: bool = False


def write_fast(network: Network, plan: Plan, ranges: Mapping[str, tuple[float, float]], *, any_cpu: bool) -> Written:
    """Write the layers, quantizers and observations of a network as standard ONNX, in place.

    Args:
        network: after `place`.
        plan: what `place` decided.
        ranges: smallest and largest value to represent at each calibrated observation, by its name.
        any_cpu: see `kernel_weight`.
    """
    nodes = list(network.graph)
    observations = {observation.node: observation for observation in plan.observations}
    quantizers = {quantizer.node: quantizer for quantizer in network.quantizers}
    grids = _Grids(network, quantizers, ranges)
    saturating = {one for one in plan.products.values() if saturates(quantizers[one.left], quantizers[one.right])}
    grids.signed.update(one.right for one in plan.products.values() if not any_cpu or one not in saturating)
    for node in nodes:
        if node in observations:
            grids.settle_observation(observations[node])
        elif node in quantizers:
            grids.settle_quantizer(quantizers[node])
    for node in nodes:
        if node.op_type == "AveragePool":
            _replace_padded_pool(grids, node)
    weights = {}
    for layer in network.layers:
        if layer in plan.integer:
            if layer in plan.halved:
                _halve(grids, layer)
            weights[layer] = _write_integer_layer(grids, layer, any_cpu)
        elif layer in plan.kept_real:
            _write_real_layer(grids.builder, layer)
        else:
            write_float_layer(grids.builder, layer)
    codes: list[Codes] = [grids.of[_as_read(quantizer.result)] for quantizer in network.quantizers]
    written = Written(codes, weights, bool(saturating) and not any_cpu)
    for node in nodes:
        if node in observations:
            _write_observation(grids, observations[node])
        elif node in quantizers:
            _write_quantizer(grids, quantizers[node])
        elif is_weight(node) and any(node.outputs[0].uses()):
            write_loose_weight(grids.builder, node)
    for product in plan.products.values():
        write_product(grids.builder, product.node)
    drop_unused(network.model)
    return written


class _Grids:
    """The 8-bit grid of every rounded value, settled in the order of execution.

    Settling a grid may add to the bias of a layer before it (its shift) or after it (its offset), so all are settled
    before the first layer is written.
    """

    def __init__(
        self, network: Network, quantizers: Mapping[ir.Node, Quantizer], ranges: Mapping[str, tuple[float, float]]
    ) -> None:
        self.builder = Builder(network.graph, "fast")
        self.of: dict[ir.Value, _Grid] = {}
        self.signed: set[ir.Node] = set()
        self._layers = {layer.node: layer for layer in network.layers}
        self._quantizers, self._ranges = quantizers, ranges

    def settle_observation(self, observation: Observation) -> None:
        """Choose the grid of a value that the network does not quantize."""
        result = observation.node.outputs[0]
        if observation.same_as is not None:
            known = self.of[observation.same_as]
            self.of[result] = _Grid(known.scale, known.zero, known.offset, is_doubled=known.is_doubled)
            self.of[result].high, self.of[result].kind = known.high, known.kind
        elif observation.is_pixels:
            self.of[result] = _Grid(1.0)
        else:
            self.of[result] = self._calibrated(result, *self._ranges[observation.name])

    def _calibrated(self, value: ir.Value, low: float, high: float) -> _Grid:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / UINT8_TOP
        if not scale > np.finfo(np.float32).tiny:
            return _Grid(1.0)
        shift = self._shift_after(value, low)
        widened = (high + max(shift, -low)) / UINT8_TOP
        if shift > scale and widened < _WIDEST * scale:
            # Make the shift of the quantizer that reads this a whole number of steps: it becomes a zero point.
            scale = shift / np.floor(shift / widened)
            low = min(low, -shift)
        return _Grid(scale, int(np.clip(np.rint(-low / scale), 0, UINT8_TOP)))

    def _shift_after(self, value: ir.Value, low: float) -> float:
        """The shift of the first two-sided quantizer below 8 bits that reads an observed value, or 0.

        Codes of that quantizer which lie below the observed range are taken out of it first.
        """
        for use in value.uses():
            quantizer = self._quantizers.get(use.node)
            if quantizer is None or quantizer.grid.shift <= 0 or quantizer.grid.top == UINT8_TOP:
                continue
            if quantizer.grid.zero is not None:
                continue
            grid = quantizer.grid
            unused = max(0, int((low + grid.shift) // grid.step))
            quantizer.grid = replace(
                grid,
                shift=grid.shift - unused * grid.step,
                offset=grid.offset + unused * grid.step,
                top=grid.top - unused,
            )
            quantizer.low, quantizer.high = max(quantizer.low - unused, 0), max(quantizer.high - unused, 0)
            return quantizer.grid.shift
        return 0.0

    def settle_quantizer(self, quantizer: Quantizer) -> None:
        """Choose how the codes of a quantizer of the network are counted."""
        grid, source = quantizer.grid, self.of.get(quantizer.source)
        if quantizer.node in self.signed:
            # Kernels of both runtimes are fastest, and OpenVINO's are there at all, for a right operand like a weight.
            zero = grid.zero or 0
            low, high = quantizer.low - zero, quantizer.high - zero
            self.of[quantizer.result] = _Grid(grid.step, 0, 0.0, low, high, kind=np.int8)
            return
        if source is not None and not source.offset and grid.top > INT8_TOP:
            # Eight bits from eight bits: a second rounding would only add noise. Its clipping is kept.
            low, high = (
                int(np.clip(source.zero + np.rint((grid.step * code + grid.offset) / source.scale), 0, UINT8_TOP))
                for code in (quantizer.low, quantizer.high)
            )
            self.of[quantizer.result] = _Grid(source.scale, source.zero, 0.0, low, high, source=source, is_reused=True)
            return
        if grid.zero is not None:
            self.of[quantizer.result] = _Grid(grid.step, grid.zero, 0.0, quantizer.low, quantizer.high, source=source)
            return
        codes = _Grid(grid.step, 0, grid.offset, quantizer.low, quantizer.high, source=source)
        shift_steps = 0.0 if source is None else grid.shift / source.scale
        if source is not None and 1 <= np.rint(shift_steps) <= source.zero and is_whole(shift_steps):
            codes.source_zero = source.zero - int(np.rint(shift_steps))
        else:
            self._shift_source(quantizer)
        if grid.offset:
            self._settle_offset(quantizer, codes)
        self.of[quantizer.result] = codes

    def _shift_source(self, quantizer: Quantizer) -> None:
        """Add a two-sided quantizer's shift to what it reads: to the bias of the layer before it, if it can be."""
        shift, source = quantizer.grid.shift, quantizer.source
        if not shift:
            return
        layer = self._layers.get(source.producer())
        if layer is not None and sole_reader(source) is quantizer.node:
            layer.bias = layer.bias + shift
            return
        shifted = self.builder.add(quantizer.node, "Add", source, self.builder.constant(np.float32(shift)))
        quantizer.node.replace_input_with(0, shifted)

    def _settle_offset(self, quantizer: Quantizer, codes: _Grid) -> None:
        """Find a form for a grid whose codes do not start at zero."""
        layers = [self._layers[node] for node in readers(quantizer.result) if node in self._layers]
        if not any(layer.is_padded for layer in layers):
            for layer in layers:
                layer.bias = layer.bias + codes.offset * layer.kernel_sums
            return
        # Padding writes zeros between the codes, so a code must stand for zero.
        zero, offset, step = -codes.offset / codes.scale, codes.offset, codes.scale
        codes.offset = 0.0
        if is_whole(zero) and 0 <= zero <= UINT8_TOP:
            codes.zero = int(np.rint(zero))
        elif 2 * quantizer.grid.top <= UINT8_TOP and 0 <= np.rint(2 * zero) <= UINT8_TOP:
            codes.scale, codes.zero, codes.is_doubled = step / 2, int(np.rint(2 * zero)), True
        else:
            codes.zero = int(np.clip(np.rint(zero), 0, UINT8_TOP))
            codes.offset = offset + codes.zero * step
            for layer in layers:  # right inside; where padding is read, wrong by half a step of the padded weights
                layer.bias = layer.bias + codes.offset * layer.kernel_sums


def _as_read(value: ir.Value) -> ir.Value:
    """A quantized value where its reader meets it, behind the operators that the quantizer was moved in front of."""
    reader = sole_reader(value)
    while reader is not None and reader.op_type in MOVERS:
        observe = sole_reader(reader.outputs[0])
        if observe is None or observe.op_type != "Observe":
            break
        value = observe.outputs[0]
        reader = sole_reader(value)
    return value


def _halve(grids: _Grids, layer: IntegerLayer) -> None:
    """Give a layer its input twice, and weights of half the size."""
    node, builder = layer.node, grids.builder
    assert node.inputs[0] is not None
    codes = grids.of[node.inputs[0]]
    twice = builder.add(node, "Concat", node.inputs[0], node.inputs[0], axis=1)
    real = _dequantize(builder, node, _quantize(builder, node, twice, codes), codes)
    grids.of[real] = codes
    node.replace_input_with(0, real)
    layer.codes = halves(layer.codes)


def _write_integer_layer(grids: _Grids, layer: IntegerLayer, any_cpu: bool) -> KernelWeight:
    node, constant = layer.node, grids.builder.constant
    assert node.inputs[0] is not None
    codes = grids.of[node.inputs[0]]
    weight = kernel_weight(
        layer.codes,
        layer.scale,
        input_top=min(2 * codes.high if codes.is_doubled else codes.high, UINT8_TOP),
        input_step=codes.scale,
        bias=layer.bias,
        any_cpu=any_cpu,
        pairs=not layer.is_depthwise,
    )
    is_product = node.op_type == "MatMul"
    integers = np.ascontiguousarray(weight.codes.T if is_product else weight.codes)
    # A zero point of its own: ONNX Runtime's precise mode rewrites it, and fails if two layers share one.
    zero = constant(np.zeros(len(weight.scale), np.int8), is_shared=False)
    real = grids.builder.add(
        node, "DequantizeLinear", constant(integers), constant(weight.scale), zero, axis=int(is_product)
    )
    node.replace_input_with(1, real)
    if is_product:
        write_float_bias(grids.builder, layer)
        return weight
    step = np.float32(codes.scale) * weight.scale
    bias = np.rint(layer.bias / step).astype(np.int32)
    node.resize_inputs(3)
    node.replace_input_with(2, grids.builder.add(node, "DequantizeLinear", constant(bias), constant(step), axis=0))
    return weight


def _write_real_layer(builder: Builder, layer: IntegerLayer) -> None:
    """Write a convolution with real weights that stay real.

    ONNX Runtime rounds weights and bias on its own if the output is quantized at once. So the bias comes in between, as
    a difference, since a sum would be taken back into the convolution.
    """
    bias, layer.bias = layer.bias.astype(np.float32), np.zeros_like(layer.bias)
    write_float_layer(builder, layer)
    output = layer.node.outputs[0]
    result = builder.add(builder.after(output), "Sub", None, builder.constant(-bias.reshape(1, -1, 1, 1)))
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    result.producer().replace_input_with(0, output)


def _replace_padded_pool(grids: _Grids, node: ir.Node) -> None:
    """Turn an average over padding into a depthwise convolution.

    OpenVINO (2026.4) pads the codes of an average pool with 0, which is wrong if 0 is not the code of zero.
    """
    codes, channels = grids.of.get(node.inputs[0]), _channels(node.outputs[0])
    counts_padding = attribute(node, "count_include_pad", 0) and any(attribute(node, "pads", ()))
    if codes is None or not codes.zero or not counts_padding or channels is None or attribute(node, "ceil_mode", 0):
        return
    kernel = attribute(node, "kernel_shape", ())
    scale = np.full(channels, 1 / (INT8_TOP * np.prod(kernel)), np.float32)
    constant = grids.builder.constant
    weight = grids.builder.add(
        node,
        "DequantizeLinear",
        constant(np.full((channels, 1, *kernel), INT8_TOP, np.int8)),
        constant(scale),
        constant(np.zeros(channels, np.int8), is_shared=False),
        axis=0,
    )
    kept = {name: attribute(node, name, None) for name in ("kernel_shape", "pads", "strides", "dilations")}
    options = {name: value for name, value in kept.items() if value is not None}
    average = grids.builder.add(node, "Conv", node.inputs[0], weight, group=channels, **options)
    bypass(node, average)


def _channels(value: ir.Value) -> int | None:
    shape = value.shape
    return shape[1] if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else None


def _write_observation(grids: _Grids, observation: Observation) -> None:
    node, codes = observation.node, grids.of[observation.node.outputs[0]]
    clamp = node.inputs[0].producer()
    if clamp is not None and clamp_bounds(clamp) is not None and sole_reader(clamp.outputs[0]) is node:
        bypass(clamp, clamp.inputs[0])  # the codes saturate where it clips
    assert node.inputs[0] is not None
    _finish(grids.builder, node, _quantize(grids.builder, node, node.inputs[0], codes), codes)


def _write_quantizer(grids: _Grids, quantizer: Quantizer) -> None:
    node, codes, builder = quantizer.node, grids.of[quantizer.result], grids.builder
    value = quantizer.source
    if codes.is_reused:
        assert codes.source is not None
        assert codes.source.value is not None
        _finish(builder, node, _clip(builder, node, codes.source.value, codes), codes)
        return
    if codes.source_zero is not None:
        assert codes.source is not None
        assert codes.source.value is not None
        value = _dequantize(builder, node, codes.source.value, Codes(codes.source.scale, codes.source_zero))
    step = 2 * codes.scale if codes.is_doubled else codes.scale
    # Elsewhere the shift has made the codes start at 0.
    zero = 0 if quantizer.grid.zero is None else codes.zero
    rounded = _quantize(builder, node, value, Codes(step, zero, kind=codes.kind))
    rounded = _clip(builder, node, rounded, codes)
    if codes.is_doubled:
        real = _dequantize(builder, node, rounded, Codes(step))
        real = builder.add(node, "Sub", real, builder.constant(np.float32(codes.scale * codes.zero)))
        rounded = _quantize(builder, node, real, codes)
    _finish(builder, node, rounded, codes)


def _finish(builder: Builder, node: ir.Node, value: ir.Value, codes: Codes) -> None:
    codes.value = value
    real = _dequantize(builder, node, value, codes)
    ir.convenience.replace_all_uses_with(node.outputs[0], real, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _quantize(builder: Builder, before: ir.Node, value: ir.Value, codes: Codes) -> ir.Value:
    scale, zero = builder.constant(np.float32(codes.scale)), builder.constant(codes.kind(codes.zero))
    return builder.add(before, "QuantizeLinear", value, scale, zero)


def _clip(builder: Builder, before: ir.Node, value: ir.Value, codes: Codes) -> ir.Value:
    kind = np.iinfo(codes.kind)
    if codes.low <= kind.min and codes.high >= kind.max:
        return value
    bounds = builder.constant(codes.kind(codes.low)), builder.constant(codes.kind(codes.high))
    return builder.add(before, "Clip", value, *bounds)


def _dequantize(builder: Builder, before: ir.Node, value: ir.Value, codes: Codes) -> ir.Value:
    constants = builder.constant(np.float32(codes.scale)), builder.constant(codes.kind(codes.zero))
    return builder.add(before, "DequantizeLinear", value, *constants)
