"""The profile `fast`: 8-bit integer kernels in ONNX Runtime and OpenVINO.

Both runtimes recognise `QuantizeLinear` and `DequantizeLinear` around an operator and replace the three by one integer
kernel. They want unsigned activations and signed weights with one scale per output channel. Below 8 bits the codes are
clipped after `QuantizeLinear`; a clip of real numbers in front of it would keep the convolution in float.

Source: `sat.md` section 8, and measurements with ONNX Runtime 1.32 and OpenVINO 2026.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from tenfold.export.capture import DOMAIN
from tenfold.export.graph import (
    Builder,
    IntegerLayer,
    Network,
    Quantizer,
    bypass,
    clamp_bounds,
    drop_unused,
    is_activation,
    is_weight,
    sole_reader,
)
from tenfold.export.compact import _write_loose_weight, rename_as_output
from tenfold.export.integers import UINT8_TOP, KernelWeight, kernel_weight
from tenfold.export.placing import Observation, Plan, readers


_WIDEST = 1.25
"""How much coarser an observed grid may become to save a node."""
_WHOLE = 1e-4
"""How far from a whole number a zero point may be, relative to a step."""


@dataclass
class Codes:
    """How the 8-bit codes of one activation are to be read: value = scale * (code - zero) + offset.

    Attributes:
        scale: above 0.
        zero: the code of the real number 0, or of `offset`.
        offset: not 0 only where the readers' biases account for it.
        low: smallest code that the quantizer gives.
        high: largest code.
        value: the uint8 tensor of the graph, once it is written.
    """

    scale: float
    zero: int
    offset: float
    low: int
    high: int
    value: ir.Value | None = None
    odd: bool = False
    reuses: bool = False
    source_zero: int | None = None


@dataclass(frozen=True)
class Written:
    """The result of writing: the codes of each quantized activation by layer name, and each layer's weights."""

    codes: dict[str, Codes]
    weights: dict[str, KernelWeight]


def write_fast(
    network: Network, plan: Plan, ranges: Mapping[str, tuple[float, float]], *, any_cpu: bool
) -> Written:
    """Write the layers, quantizers and observations of a network as standard ONNX, in place.

    Args:
        network: after `place`.
        plan: what `place` decided.
        ranges: smallest and largest value seen at each calibrated observation, by its name.
        any_cpu: see `kernel_weight`.
    """
    return _Writer(network, plan, ranges, any_cpu).run()


class _Writer:
    def __init__(
        self, network: Network, plan: Plan, ranges: Mapping[str, tuple[float, float]], any_cpu: bool
    ) -> None:
        self.network, self.plan, self.ranges, self.any_cpu = network, plan, ranges, any_cpu
        self.builder = Builder(network.graph)
        self.layer_of = {layer.node: layer for layer in network.layers}
        self.quantizer_of = {quantizer.node: quantizer for quantizer in network.quantizers}
        self.observation_of = {observation.node: observation for observation in plan.observations}
        self.codes: dict[ir.Value, Codes] = {}
        self.codes_before: dict[ir.Node, Codes] = {}
        self.weights: dict[str, KernelWeight] = {}

    def run(self) -> Written:
        nodes = list(self.network.graph)
        for node in nodes:
            if node in self.observation_of:
                self.codes[node.outputs[0]] = self._observed_codes(self.observation_of[node])
            elif node in self.quantizer_of:
                self.codes[node.outputs[0]] = self._quantizer_codes(self.quantizer_of[node])
        for layer in self.network.layers:
            if layer in self.plan.integer:
                self._write_integer_layer(layer)
            else:
                self._write_float_layer(layer)
        named = {quantizer.name: self.codes[quantizer.result] for quantizer in self.network.quantizers}
        for node in nodes:
            if node in self.observation_of:
                self._write_observation(self.observation_of[node])
            elif node in self.quantizer_of:
                self._write_quantizer(self.quantizer_of[node])
            elif is_weight(node) and any(node.outputs[0].uses()):
                _write_loose_weight(self.builder, node)
        drop_unused(self.network.model)
        return Written(named, self.weights)

    # -- grids

    def _observed_codes(self, observation: Observation) -> Codes:
        if observation.same_as is not None:
            return self.codes[observation.same_as]
        if observation.node.attributes["pixels"].value:
            return Codes(1.0, 0, 0.0, 0, UINT8_TOP)
        low, high = self.ranges[observation.name]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / UINT8_TOP
        if not scale > np.finfo(np.float32).tiny:
            return Codes(1.0, 0, 0.0, 0, UINT8_TOP)
        shift = self._shift_after(observation.node.outputs[0], low)
        widened = (high + max(shift, -low)) / UINT8_TOP
        if shift > scale and widened < _WIDEST * scale:
            # Make the shift of the quantizer that reads this a whole number of steps: it becomes a zero point.
            scale = shift / np.floor(shift / widened)
            low = min(low, -shift)
        return Codes(scale, int(np.clip(np.rint(-low / scale), 0, UINT8_TOP)), 0.0, 0, UINT8_TOP)

    def _shift_after(self, value: ir.Value, low: float) -> float:
        """The shift of the first two-sided quantizer below 8 bits that reads an observed value, or 0.

        Codes of that quantizer which lie below the observed range are taken out of it first.
        """
        for use in value.uses():
            quantizer = self.quantizer_of.get(use.node)
            if quantizer is None or quantizer.grid.shift <= 0 or quantizer.grid.top == UINT8_TOP:
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

    def _quantizer_codes(self, quantizer: Quantizer) -> Codes:
        grid = quantizer.grid
        source = self.codes.get(quantizer.source)
        if source is not None:
            self.codes_before[quantizer.node] = source
        if source is not None and not source.offset and grid.top == UINT8_TOP:
            # Eight bits from eight bits: a second rounding would only add noise. Its clipping is kept.
            low, high = (
                int(np.clip(source.zero + np.rint((grid.step * code + grid.offset) / source.scale), 0, UINT8_TOP))
                for code in (quantizer.low, quantizer.high)
            )
            return Codes(source.scale, source.zero, 0.0, low, high, reuses=True)
        plain = Codes(grid.step, 0, grid.offset, quantizer.low, quantizer.high)
        shift_steps = 0.0 if source is None else grid.shift / source.scale
        if source is not None and 0 < np.rint(shift_steps) <= source.zero and abs(shift_steps % 1 - 0.5) > 0.499:
            plain.source_zero = source.zero - int(np.rint(shift_steps))
        else:
            self._shift_source(quantizer)
        if not grid.offset:
            return plain
        layers = [self.layer_of[node] for node in readers(quantizer.result) if node in self.layer_of]
        zero = -grid.offset / grid.step
        if not any(layer.is_padded for layer in layers):
            self._add_to_biases(layers, grid.offset)
            return plain
        doubled = int(np.rint(2 * zero))
        if abs(zero - np.rint(zero)) < _WHOLE and 0 <= zero <= UINT8_TOP:
            return replace(plain, zero=int(np.rint(zero)), offset=0.0)
        if 2 * grid.top <= UINT8_TOP and 0 <= doubled <= UINT8_TOP:
            # Zero lies half-way between two levels, and padding needs it: count in half steps.
            return replace(plain, scale=grid.step / 2, zero=doubled, offset=0.0, odd=True)
        nearest = int(np.clip(np.rint(zero), 0, UINT8_TOP))
        self._add_to_biases(layers, grid.offset + nearest * grid.step)  # wrong by this only where padding is read
        return replace(plain, zero=nearest, offset=0.0)

    def _add_to_biases(self, layers: list[IntegerLayer], offset: float) -> None:
        for layer in layers:
            layer.bias = layer.bias + offset * layer.kernel_sums

    def _shift_source(self, quantizer: Quantizer) -> None:
        """Add a two-sided quantizer's shift to what it reads: to the bias of the layer before it, if it can be."""
        shift, source = quantizer.grid.shift, quantizer.source
        if not shift:
            return
        layer = self.layer_of.get(source.producer())  # type: ignore[arg-type]
        if layer is not None and sole_reader(source) is quantizer.node:
            layer.bias = layer.bias + shift
            return
        shifted = self.builder.add(quantizer.node, "Add", source, self.builder.constant(np.float32(shift)))
        quantizer.node.replace_input_with(0, shifted)

    # -- writing

    def _write_integer_layer(self, layer: IntegerLayer) -> None:
        node, source = layer.node, layer.node.inputs[0]
        assert source is not None
        codes = self.codes[source]
        top = 2 * codes.high if codes.odd else codes.high
        weight = kernel_weight(
            layer.codes,
            layer.scale,
            input_top=min(top, UINT8_TOP),
            input_step=codes.scale,
            bias=layer.bias,
            any_cpu=self.any_cpu,
            pairs=not layer.is_depthwise,
        )
        self.weights[layer.name] = weight
        is_product = node.op_type == "MatMul"
        integers = weight.codes.T if is_product else weight.codes
        constant = self.builder.constant
        node.replace_input_with(
            1,
            self.builder.add(
                node,
                "DequantizeLinear",
                constant(np.ascontiguousarray(integers)),
                constant(weight.scale),
                # One of its own: ONNX Runtime's precise mode rewrites it, and fails if two layers share one.
                self.builder.constant(np.zeros(len(weight.scale), np.int8), is_shared=False),
                axis=int(is_product),
            ),
        )
        if is_product:
            self._add_float_bias(layer)
            return
        step = (np.float32(codes.scale) * weight.scale).astype(np.float32)
        bias = np.rint(layer.bias / step).astype(np.int32)
        node.resize_inputs(3)
        node.replace_input_with(
            2,
            self.builder.add(
                node,
                "DequantizeLinear",
                constant(bias),
                constant(step),
                axis=0,
            ),
        )

    def _write_float_layer(self, layer: IntegerLayer) -> None:
        node = layer.node
        weight = (layer.codes * layer.scale.reshape(-1, *[1] * (layer.codes.ndim - 1))).astype(np.float32)
        is_product = node.op_type == "MatMul"
        node.replace_input_with(1, self.builder.constant(np.ascontiguousarray(weight.T if is_product else weight)))
        if is_product:
            self._add_float_bias(layer)
            return
        node.resize_inputs(3)
        node.replace_input_with(2, self.builder.constant(layer.bias.astype(np.float32)))

    def _add_float_bias(self, layer: IntegerLayer) -> None:
        if not np.any(layer.bias):
            return
        output = layer.node.outputs[0]
        total = self.builder.add(
            self.builder.after(output), "Add", None, self.builder.constant(layer.bias.astype(np.float32))
        )
        rename_as_output(output, total)
        ir.convenience.replace_all_uses_with(output, total, replace_graph_outputs=True)
        total.producer().replace_input_with(0, output)  # type: ignore[union-attr]

    def _write_observation(self, observation: Observation) -> None:
        node, codes = observation.node, self.codes[observation.node.outputs[0]]
        before = node.inputs[0].producer()  # type: ignore[union-attr]
        if observation.same_as is None and clamp_bounds(before) is not None and before is not None:
            if sole_reader(before.outputs[0]) is node:
                bypass(before, before.inputs[0])  # type: ignore[arg-type]
        assert node.inputs[0] is not None
        value = self._quantize(node, node.inputs[0], codes, 0, UINT8_TOP)
        self._finish(node, value, codes)

    def _write_quantizer(self, quantizer: Quantizer) -> None:
        node, codes = quantizer.node, self.codes[quantizer.result]
        if codes.source_zero is not None:
            source = self.codes_before[quantizer.node]
            assert source.value is not None
            shifted = self._dequantize(node, source.value, replace(source, zero=codes.source_zero))
            node.replace_input_with(0, shifted)
        if codes.reuses:
            source = self.codes_before[quantizer.node]
            assert source.value is not None
            value = self._clip(node, source.value, codes.low, codes.high)
        elif codes.odd:
            plain = Codes(codes.scale * 2, 0, 0.0, codes.low, codes.high)
            value = self._quantize(node, quantizer.source, plain, codes.low, codes.high)
            real = self._dequantize(node, value, plain)
            real = self.builder.add(
                node, "Sub", real, self.builder.constant(np.float32(codes.scale * codes.zero))
            )
            value = self._quantize(node, real, codes, 0, UINT8_TOP)
        elif codes.zero:
            # The source was shifted so that the codes start at 0; the reader takes them with this zero point.
            plain = Codes(codes.scale, 0, 0.0, codes.low, codes.high)
            value = self._quantize(node, quantizer.source, plain, codes.low, codes.high)
        else:
            value = self._quantize(node, quantizer.source, codes, codes.low, codes.high)
        self._finish(node, value, codes)

    def _finish(self, node: ir.Node, value: ir.Value, codes: Codes) -> None:
        codes.value = value
        real = self._dequantize(node, value, codes)
        ir.convenience.replace_all_uses_with(node.outputs[0], real, replace_graph_outputs=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)

    def _quantize(self, before: ir.Node, value: ir.Value, codes: Codes, low: int, high: int) -> ir.Value:
        constant = self.builder.constant
        rounded = self.builder.add(
            before, "QuantizeLinear", value, constant(np.float32(codes.scale)), constant(np.uint8(codes.zero))
        )
        return self._clip(before, rounded, low, high)

    def _clip(self, before: ir.Node, value: ir.Value, low: int, high: int) -> ir.Value:
        if low <= 0 and high >= UINT8_TOP:
            return value
        constant = self.builder.constant
        return self.builder.add(before, "Clip", value, constant(np.uint8(low)), constant(np.uint8(high)))

    def _dequantize(self, before: ir.Node, value: ir.Value, codes: Codes) -> ir.Value:
        constant = self.builder.constant
        return self.builder.add(
            before, "DequantizeLinear", value, constant(np.float32(codes.scale)), constant(np.uint8(codes.zero))
        )


_ = (DOMAIN, is_activation)
