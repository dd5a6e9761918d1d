"""Small tools for ONNX graphs, and the clean-up that both profiles begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from tenfold.export.capture import DOMAIN
from tenfold.export.integers import UINT8_TOP, ActivationGrid


@dataclass(eq=False)
class IntegerLayer:
    """A convolution or linear layer of the graph whose weights are integers.

    Attributes:
        name: of the module in the network.
        node: Conv, Gemm with transB, or MatMul; its weight input is written by the profile.
        codes: int16 (C_out, …), zero point 0.
        scale: unit of the codes per output channel, a batch norm that followed included; may be negative or 0.
        bias: (C_out,), the batch norm included.
    """

    name: str
    node: ir.Node
    codes: NDArray[np.int16]
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel sees one input channel."""
        return self.node.op_type == "Conv" and self.codes.shape[1] == 1

    @property
    def is_grouped(self) -> bool:
        """Whether each output channel sees only some of the input channels."""
        return bool(attribute(self.node, "group", 1) != 1)

    @property
    def is_padded(self) -> bool:
        """Whether zeros are put around the input."""
        return self.node.op_type == "Conv" and any(attribute(self.node, "pads", ()))

    @property
    def kernel_sums(self) -> NDArray[np.float64]:
        """Sum of each output channel's real weights, (C_out,): its response to a constant input of one."""
        return self.codes.reshape(len(self.codes), -1).sum(axis=1) * self.scale


@dataclass(eq=False)
class Quantizer:
    """An activation quantizer of the graph.

    Attributes:
        name: of the layer whose input it quantizes.
        node: the `Activation` node.
        grid: what it computes.
        low: smallest code that occurs, because of a ReLU or clip that stood in front of it.
        high: largest code that occurs.
    """

    name: str
    node: ir.Node
    grid: ActivationGrid
    low: int
    high: int

    @property
    def source(self) -> ir.Value:
        """What is quantized."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def result(self) -> ir.Value:
        """The quantized activation, as real numbers."""
        return self.node.outputs[0]


@dataclass(eq=False)
class Codes:
    """The 8-bit codes of one activation in a written graph: value = scale * (code - zero) + offset.

    Attributes:
        scale: above 0.
        zero: the code that stands for `offset`.
        offset: not 0 only for grids without zero.
        low: smallest code that the quantizer gives.
        high: largest code.
        value: the tensor of codes, once it is written.
        kind: of the codes; int8 is for the right operand of a product only, where kernels want what a weight is.
    """

    scale: float
    zero: int = 0
    offset: float = 0.0
    low: int = 0
    high: int = UINT8_TOP
    value: ir.Value | None = None
    kind: type[np.uint8] | type[np.int8] = np.uint8


@dataclass(frozen=True)
class Network:
    """A captured network: the ONNX model, and what of it is quantized, in order of execution."""

    model: ir.Model
    layers: list[IntegerLayer]
    quantizers: list[Quantizer]

    @property
    def graph(self) -> ir.Graph:
        """The nodes and constants."""
        return self.model.graph

    def clone(self) -> Network:
        """An independent copy, to be written in another way."""
        for index, node in enumerate(self.graph):
            node.name = f"node_{index}"
        model = self.model.clone()
        nodes = {node.name: node for node in model.graph}
        return Network(
            model,
            [replace(layer, node=nodes[layer.node.name]) for layer in self.layers],
            [replace(quantizer, node=nodes[quantizer.node.name]) for quantizer in self.quantizers],
        )


class Builder:
    """Inserts nodes into a graph, and shares equal constants; `prefix` keeps its names apart from others'."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph, self.prefix = graph, prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._count = 0

    def constant(self, array: Any, *, is_shared: bool = True) -> ir.Value:
        """An initializer; equal ones are one, unless `is_shared` is False."""
        array = np.asarray(array)
        key = (array.dtype.name, array.shape, array.tobytes())
        if is_shared and key in self._constants:
            return self._constants[key]
        value = ir.Value(name=self._name("c"), const_value=ir.Tensor(array))
        value.type = ir.TensorType(value.const_value.dtype)
        value.shape = ir.Shape(array.shape)
        self.graph.register_initializer(value)
        if is_shared:
            self._constants[key] = value
        return value

    def add(
        self, before: ir.Node | None, operator: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Insert one node in front of `before` (at the end if None); its output."""
        node = ir.Node(
            domain, operator, inputs, ir.convenience.convert_attributes(attributes), name=self._name(operator)
        )
        node.outputs[0].name = self._name("v")
        if before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(before, node)
        return node.outputs[0]

    def after(self, value: ir.Value) -> ir.Node | None:
        """The node in front of which a reader of `value` can stand: the one right behind its producer."""
        producer = value.producer()
        nodes = list(self.graph)
        if producer is None:
            return nodes[0] if nodes else None
        index = nodes.index(producer) + 1
        return nodes[index] if index < len(nodes) else None

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self.prefix}_{kind}_{self._count}"


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The value of an attribute, or the default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def array_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant that a value is, or None."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The only node that reads a value, if there is exactly one and the value is no output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def bypass(node: ir.Node, value: ir.Value) -> None:
    """Remove a node; `value` stands for its output."""
    (output,) = node.outputs
    if output.is_graph_output():
        value.name, output.name = output.name, f"{output.name}_bypassed"
    ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def is_activation(node: ir.Node | None) -> bool:
    """Whether a node is a quantizer of the network."""
    return node is not None and node.domain == DOMAIN and node.op_type == "Activation"


def is_weight(node: ir.Node | None) -> bool:
    """Whether a node is a quantized weight of the network."""
    return node is not None and node.domain == DOMAIN and node.op_type == "Weight"


def tidy(model: ir.Model) -> Network:
    """Bring a captured graph into the form that both profiles start from; the model is changed in place.

    Zero padding becomes part of its convolution, the batch norm after an integer layer part of the layer's scale and
    bias, a ReLU or clip in front of a quantizer a bound of its codes, and a mean over all pixels the pooling it is.

    Returns:
        The model with its layers and quantizers. `Weight` nodes that no known layer reads stay as they are.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Pad":
            _fold_padding(node)
        elif node.op_type == "ReduceMean":
            _pool_from_mean(graph, node)
    layers = [layer for node in graph if (layer := _integer_layer(node)) is not None]
    for layer in layers:
        while _absorb_follower(layer):
            pass
    quantizers = [_quantizer(node) for node in graph if is_activation(node)]
    for quantizer in quantizers:
        while absorb_clamp(quantizer):
            pass
    return Network(model, layers, quantizers)


def _quantizer(node: ir.Node) -> Quantizer:
    a = node.attributes
    grid = ActivationGrid(a["step"].value, a["shift"].value, a["offset"].value, a["top"].value)
    return Quantizer(a["layer"].value, node, grid, 0, grid.top)


def clamp_bounds(node: ir.Node | None) -> tuple[float, float] | None:
    """What a ReLU or a clip with constant bounds limits its input to, or None for any other node."""
    if node is None or node.domain or node.op_type not in ("Relu", "Clip"):
        return None
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = []
    for index, open_end in ((1, -np.inf), (2, np.inf)):
        value = node.inputs[index] if len(node.inputs) > index else None
        constant = array_of(value)
        if value is not None and constant is None:
            return None
        bounds.append(open_end if constant is None else float(constant))
    return bounds[0], bounds[1]


def absorb_clamp(quantizer: Quantizer) -> bool:
    """Take the ReLU or clip in front of a quantizer into it; False if there is none that only it reads."""
    node = quantizer.source.producer()
    bounds = clamp_bounds(node)
    if node is None or bounds is None or sole_reader(quantizer.source) is not quantizer.node:
        return False
    low, high = (quantizer.grid.code(bound) for bound in bounds)
    quantizer.low, quantizer.high = max(quantizer.low, low), min(quantizer.high, high)
    bypass(node, node.inputs[0])
    return True


def _integer_layer(node: ir.Node) -> IntegerLayer | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain:
        return None
    weight = node.inputs[1].producer() if node.inputs[1] is not None else None
    if node.op_type == "MatMul":
        if weight is None or weight.op_type != "Transpose" or list(attribute(weight, "perm", ())) != [1, 0]:
            return None
        weight = weight.inputs[0].producer()
    plain = {"transB": 1, "transA": 0, "alpha": 1.0, "beta": 1.0}
    if node.op_type == "Gemm" and any(
        attribute(node, key, 0 if key[0] == "t" else 1.0) != v for key, v in plain.items()
    ):
        return None
    if weight is None or not is_weight(weight):
        return None
    codes, scale = array_of(weight.inputs[0]), array_of(weight.inputs[1])
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
    if codes is None or scale is None or bias is None:
        return None
    channels = len(codes)
    return IntegerLayer(
        name=weight.attributes["layer"].value,
        node=node,
        codes=np.asarray(codes, np.int16),
        scale=np.broadcast_to(np.asarray(scale, np.float64), (channels,)).copy(),
        bias=np.broadcast_to(np.asarray(bias, np.float64).reshape(-1), (channels,)).copy(),
    )


def _absorb_follower(layer: IntegerLayer) -> bool:
    """Take a batch norm, a constant factor, or the Add that is the bias of a MatMul, into the layer."""
    follower = sole_reader(layer.node.outputs[0])
    if follower is None:
        return False
    if follower.op_type == "BatchNormalization" and layer.node.op_type != "MatMul" and len(follower.outputs) == 1:
        parameters = [array_of(value) for value in follower.inputs[1:5]]
        if any(parameter is None for parameter in parameters):
            return False
        gamma, beta, mean, variance = (np.asarray(parameter, np.float64) for parameter in parameters)
        factor = gamma / np.sqrt(variance + attribute(follower, "epsilon", 1e-5))
        layer.scale = layer.scale * factor
        layer.bias = (layer.bias - mean) * factor + beta
    elif follower.op_type == "Mul" and layer.node.op_type != "MatMul":
        factors = [array for value in follower.inputs if (array := array_of(value)) is not None and array.size == 1]
        if not factors:
            return False
        factor = factors[0].item()
        layer.scale, layer.bias = layer.scale * factor, layer.bias * factor
    elif follower.op_type == "Add" and layer.node.op_type == "MatMul":
        constants = [array for value in follower.inputs if (array := array_of(value)) is not None]
        if not constants or constants[0].shape != layer.bias.shape:
            return False
        layer.bias = layer.bias + constants[0]
    else:
        return False
    bypass(follower, layer.node.outputs[0])
    return True


def _fold_padding(node: ir.Node) -> None:
    """Zero padding of the two spatial dimensions, read by convolutions only, becomes theirs."""
    pads, fill = array_of(node.inputs[1]), np.zeros(1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        given = array_of(node.inputs[2])
        fill = np.ones(1) if given is None else given
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if pads is None or has_axes or attribute(node, "mode", "constant") != "constant" or np.any(fill):
        return
    if len(pads) != 8 or pads.min() < 0 or any(pads[[0, 1, 4, 5]]):
        return
    readers = [use.node for use in node.outputs[0].uses()]
    data_only = all(use.idx == 0 for use in node.outputs[0].uses())
    automatic = any(attribute(reader, "auto_pad", "NOTSET") != "NOTSET" for reader in readers)
    if node.outputs[0].is_graph_output() or automatic or not data_only or {r.op_type for r in readers} != {"Conv"}:
        return
    for reader in readers:
        own = attribute(reader, "pads", (0, 0, 0, 0))
        total = [int(a) + int(b) for a, b in zip(own, pads[[2, 3, 6, 7]], strict=True)]
        reader.attributes["pads"] = ir.AttrInt64s("pads", total)
    bypass(node, node.inputs[0])


def _pool_from_mean(graph: ir.Graph, node: ir.Node) -> None:
    axes, value = array_of(node.inputs[1]) if len(node.inputs) > 1 else None, node.inputs[0]
    if value is None or value.shape is None or len(value.shape) != 4 or axes is None:
        return
    if sorted(int(axis) % 4 for axis in axes.reshape(-1)) != [2, 3]:
        return
    pool = ir.Node("", "GlobalAveragePool", [value], name=f"{node.name}_pool")
    pool.outputs[0].name = f"{node.name}_pooled"
    pool.outputs[0].type = node.outputs[0].type
    graph.insert_before(node, pool)
    result = pool.outputs[0]
    if not attribute(node, "keepdims", 1):
        flat = ir.Node("", "Flatten", [result], {"axis": ir.AttrInt64("axis", 1)}, name=f"{node.name}_flatten")
        flat.outputs[0].name = f"{node.name}_flat"
        graph.insert_before(node, flat)
        result = flat.outputs[0]
    bypass(node, result)


def data_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that are no constants."""
    for value in node.inputs:
        if value is not None and value.const_value is None:
            yield value


def drop_unused(model: ir.Model) -> None:
    """Remove nodes and constants that nothing reads any more."""
    passes.RemoveUnusedNodesPass()(model)
    if not any(node.domain == DOMAIN for node in model.graph):
        model.graph.opset_imports.pop(DOMAIN, None)
