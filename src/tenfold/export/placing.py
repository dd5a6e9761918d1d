"""Deciding where the profile `fast` computes with integers, and where it must round values that the network does not.

A runtime's integer kernels take 8-bit integers and give 8-bit integers. The network quantizes what its layers read;
what lies between a convolution and the next quantizer (a residual sum, a pooling) is real in training. There, nodes of
the kind `Observe` are put in: they become 8-bit grids over the range that calibration sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tenfold.export.capture import DOMAIN
from tenfold.export.graph import (
    Builder,
    IntegerLayer,
    Network,
    Quantizer,
    absorb_clamp,
    clamp_bounds,
    data_inputs,
    is_activation,
    sole_reader,
)
from tenfold.export.integers import INT8_TOP, UINT8_TOP, kernel_weight

MOVERS = frozenset({"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
"""Operators that only move or select values: rounding before or after them is the same."""

COMPUTERS = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"})
"""Operators that both runtimes compute on 8-bit integers."""


@dataclass(eq=False)
class Observation:
    """A place where the profile rounds a value to 8 bits.

    Attributes:
        node: the `Observe` node.
        same_as: the value whose grid holds here too, because the values were only moved; None if it is calibrated.
        is_pixels: whether it is an image of bytes 0 … 255, so that rounding changes nothing.
    """

    node: ir.Node
    same_as: ir.Value | None = None
    is_pixels: bool = False

    @property
    def name(self) -> str:
        """A name that survives copying the graph."""
        return str(self.node.attributes["name"].value)


@dataclass(frozen=True)
class Product:
    """A matrix product of two quantized activations.

    Attributes:
        node: the MatMul.
        left: the quantizer of the left operand.
        right: that of the right one.
    """

    node: ir.Node
    left: ir.Node
    right: ir.Node

    @property
    def name(self) -> str:
        """Of the module in the network."""
        return str(self.left.attributes["layer"].value).removesuffix(" left")


@dataclass
class Plan:
    """What runs in integers.

    Attributes:
        observations: in order of execution.
        integer: layers that run in integers.
        reasons: for the other layers, why not.
        halved: integer layers whose weights are the sum of two halves, each of which fits 8-bit kernels exactly.
        products: of two activations that are both on 8-bit grids, by name.
        kept_real: layers between two grids that runtimes must not turn into integer ones on their own.
    """

    observations: list[Observation] = field(default_factory=list)
    integer: set[IntegerLayer] = field(default_factory=set)
    reasons: dict[IntegerLayer, str] = field(default_factory=dict)
    halved: set[IntegerLayer] = field(default_factory=set)
    products: dict[str, Product] = field(default_factory=dict)
    kept_real: set[IntegerLayer] = field(default_factory=set)


def place(network: Network, *, pixel_layers: Collection[str], any_cpu: bool) -> Plan:
    """Insert `Observe` nodes where integers would otherwise become real numbers; the graph is changed in place.

    Args:
        network: as `tidy` leaves it.
        pixel_layers: names of layers that read the image as bytes 0 … 255.
        any_cpu: see `kernel_weight`.
    """
    for quantizer in network.quantizers:
        while _lift(quantizer) or absorb_clamp(quantizer):
            pass
    return _Placer(network, pixel_layers, any_cpu).run()


class _Placer:
    def __init__(self, network: Network, pixel_layers: Collection[str], any_cpu: bool) -> None:
        self.network, self.pixel_layers, self.any_cpu = network, pixel_layers, any_cpu
        self.builder = Builder(network.graph, "place")
        self.layer_of = {layer.node: layer for layer in network.layers}
        self.grids = {quantizer.node: quantizer.grid for quantizer in network.quantizers}
        self.on_grid: set[ir.Value] = set()
        self.ends_real = self._values_of_the_end()
        self.plan = Plan()

    def _values_of_the_end(self) -> set[ir.Value]:
        """The values from which only the network's output is made: no layer and no quantizer comes behind them."""
        found: set[ir.Value] = set()
        for node in reversed(list(self.network.graph)):
            for value in node.outputs:
                if not any(
                    use.node in self.layer_of or is_activation(use.node) or not found.issuperset(use.node.outputs)
                    for use in value.uses()
                ):
                    found.add(value)
        return found

    def run(self) -> Plan:
        self._observe_image()
        for node in list(self.network.graph):
            if is_activation(node):
                # A grid without zero needs its reader's help: only an integer layer gives it.
                has_zero = self.grids[node].zero is not None or not self.grids[node].offset
                if has_zero or all(reader in self.layer_of for reader in readers(node.outputs[0])):
                    self.on_grid.add(node.outputs[0])
            elif node in self.layer_of:
                self._place_layer(self.layer_of[node])
            elif node.op_type == "MatMul":
                self._place_product(node)
            elif node.op_type in MOVERS and len(node.outputs) == 1:
                self._place_mover(node)
            elif node.op_type in COMPUTERS:
                self._place_computer(node)
        return self.plan

    def _observe_image(self) -> None:
        """Round the network's input, if that makes the layers that read it run in integers at no loss.

        The exception: where other layers lose by 8-bit kernels anyway, the first may, too.
        """
        image = self.network.graph.inputs[0]
        layers = [self.layer_of.get(use.node) for use in image.uses()]
        known = [layer for layer in layers if layer is not None]
        if not known or len(known) < len(layers):
            return
        pixels = all(layer.name in self.pixel_layers for layer in known)
        inexact = [layer for layer in known if not self._fits(layer.codes, layer)]
        if pixels and all(layer.node.op_type == "Conv" and not layer.is_grouped for layer in inexact):
            halved = [layer for layer in inexact if self._fits(halves(layer.codes), layer)]
            self.plan.halved.update(halved)
            inexact = [layer for layer in inexact if layer not in halved]
        if inexact and not self._others_lose(known):
            for layer in known:
                self.plan.reasons[layer] = "its weights with an 8-bit input would not be exact in 8-bit kernels"
            return
        self._observe(image, pixels=pixels)

    def _fits(self, codes: NDArray[np.int16], layer: IntegerLayer) -> bool:
        weight = kernel_weight(
            codes,
            layer.scale,
            input_top=UINT8_TOP,
            input_step=1.0,
            bias=np.zeros(len(codes)),
            any_cpu=self.any_cpu,
            pairs=not layer.is_depthwise,
        )
        return bool(weight.exact.all())

    def _others_lose(self, known: Collection[IntegerLayer]) -> bool:
        for quantizer in self.network.quantizers:
            if quantizer.grid.top > INT8_TOP:
                layers = {self.layer_of[node] for node in readers(quantizer.result) if node in self.layer_of}
                if any(not self._fits(layer.codes, layer) for layer in layers.difference(known)):
                    return True
        return False

    def _place_layer(self, layer: IntegerLayer) -> None:
        node = layer.node
        if node.inputs[0] not in self.on_grid:
            self.plan.reasons.setdefault(layer, "its input is not quantized")
        elif node.op_type != "Conv":
            self.plan.integer.add(layer)  # both runtimes give real numbers from integer matrix products
        elif _mixes_maps(node):
            # Mixed maps have few values, each of which occurs often; an integer bias would round some of them wrongly,
            # all at once. Measured: 1 % of the codes of a block, and 20 % of the answers of a 4-bit DeepViT.
            self.plan.reasons[layer] = "it mixes attention maps, and its bias must not be rounded"
            self.plan.kept_real.add(layer)
        elif node.outputs[0] in self.ends_real:
            self.plan.reasons[layer] = "it gives the network's output, which must not be rounded to 8 bits"
        else:
            self._round_output(node.outputs[0])
            self.plan.integer.add(layer)

    def _place_product(self, node: ir.Node) -> None:
        """Note a product whose operands come from quantizers; both runtimes give real numbers from it."""
        if all(value in self.on_grid for value in node.inputs):
            left, right = (_quantizer_behind(value) for value in node.inputs)
            if left is not None and right is not None:
                product = Product(node, left, right)
                self.plan.products[product.name] = product

    def _place_computer(self, node: ir.Node) -> None:
        inputs = list(data_inputs(node))
        if len(inputs) < len(node.inputs) or not any(value in self.on_grid for value in inputs):
            return
        if node.outputs[0] in self.ends_real:
            return
        self._round_output(node.outputs[0])
        for index, value in enumerate(node.inputs):
            if value is not None and value not in self.on_grid:
                self._observe(value, [(node, index)])  # a partner from a float layer is rounded for this reader only

    def _place_mover(self, node: ir.Node) -> None:
        source, output = node.inputs[0], node.outputs[0]
        if source in self.on_grid and not output.is_graph_output():
            assert source is not None
            self._observe(output, same_as=source)

    def _round_output(self, value: ir.Value) -> None:
        """See that an output of an integer kernel is rounded."""
        is_layer = value.producer() in self.layer_of  # a layer's bias can take a quantizer's shift, an Add cannot
        reader = sole_reader(value)
        if clamp_bounds(reader) is not None:
            assert reader is not None
            value = reader.outputs[0]  # saturation will do what this node does
            reader = sole_reader(value)
        is_direct = is_activation(reader) and (is_layer or not self._is_shifted(reader))
        if not is_direct:
            self._observe(value)

    def _is_shifted(self, quantizer: ir.Node) -> bool:
        grid = self.grids[quantizer]
        return bool(grid.shift) and grid.zero is None

    def _observe(
        self,
        value: ir.Value,
        uses: Iterable[tuple[ir.Node, int]] | None = None,
        *,
        same_as: ir.Value | None = None,
        pixels: bool = False,
    ) -> None:
        uses = [(use.node, use.idx) for use in value.uses()] if uses is None else uses
        observed = self.builder.add(
            self.builder.after(value), "Observe", value, domain=DOMAIN, name=f"observed_{len(self.plan.observations)}"
        )
        for reader, index in uses:
            reader.replace_input_with(index, observed)
        node = observed.producer()
        assert node is not None
        self.plan.observations.append(Observation(node, same_as, pixels))
        self.on_grid.add(observed)


def halves(codes: NDArray[np.int16]) -> NDArray[np.int16]:
    """Weights for an input that is there twice: (C_out, 2 C_in, …) with the same sums, and each half as large."""
    upper = (codes + 1) // 2
    return np.concatenate([upper, codes - upper], axis=1)


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that compute with a value, seen through those that only move it."""
    for use in value.uses():
        if use.node.op_type in MOVERS or use.node.op_type == "Observe":
            yield from readers(use.node.outputs[0])
        else:
            yield use.node


def _mixes_maps(node: ir.Node) -> bool:
    """Whether a convolution reads quantized maps of an attention."""
    quantizer = _quantizer_behind(node.inputs[0])
    maps = None if quantizer is None or quantizer.inputs[0] is None else quantizer.inputs[0].producer()
    return maps is not None and maps.op_type == "Softmax"


def _quantizer_behind(value: ir.Value | None) -> ir.Node | None:
    """The quantizer that a value comes from, if it was only moved since."""
    node = None if value is None else value.producer()
    while node is not None and (node.op_type in MOVERS or node.op_type == "Observe"):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node if is_activation(node) else None


def _lift(quantizer: Quantizer) -> bool:
    """Put a quantizer in front of the mover whose result only it reads; False if there is none."""
    node, result = quantizer.node, quantizer.result
    mover: Any = quantizer.source.producer()
    if mover is None or mover.op_type not in MOVERS or len(mover.outputs) > 1:
        return False
    reader = sole_reader(quantizer.source)
    if reader is None or reader is not node or result.is_graph_output():
        return False
    ir.convenience.replace_all_uses_with(result, mover.outputs[0])
    node.replace_input_with(0, mover.inputs[0])
    mover.replace_input_with(0, result)
    graph = mover.graph
    assert graph is not None
    graph.remove(node)
    graph.insert_before(mover, node)
    return True
