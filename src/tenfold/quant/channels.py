"""Which layers read the output channels of which, in any network.

The answer is read off the graph that `torch.export` draws, not off classes or names: so it holds for functional code
and for networks of other libraries. Channels are followed from the convolution or linear layer that makes them, through
everything that works on each channel by itself, to the layers that mix them. What enters a sum with other channels, a
concatenation, an attention, an output of the network or an operation that is not known here is not followed: such
channels have no path.

Source: FracBits (arXiv 2007.02017) prunes kernels at 0 bits but leaves their channels in place; this is what
`fracbits.md` section 2.8 asks for instead.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from tenfold.quant.channel_rules import Flow, follow, operation
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.schemes import FLOAT_BITS
from tenfold.quant.swap import quantizable_layers, quantized_layers
from tenfold.quant.switching import SwitchableBatchNorm

_UNQUANTIZED = LayerScheme(w_bits=FLOAT_BITS, a_bits=FLOAT_BITS, clamp=False)


@dataclass(frozen=True)
class ChannelPath:
    """The way of a layer's output channels to the layers that mix them.

    Attributes:
        producer: name of the convolution or linear layer that makes the channels.
        norm: the batch norm that alone reads its output (or the `SwitchableBatchNorm`), if there is one.
        through: depthwise convolutions and further batch norms that the channels pass, in order. A channel of theirs is
            the same channel, so that it can be removed only together with the producer's.
        consumers: layers that have these channels as their input channels.
        routes: for each consumer the layers on the way to it: the producer, depthwise convolutions, the consumer.
    """

    producer: str
    norm: str | None
    through: tuple[str, ...]
    consumers: tuple[str, ...]
    routes: tuple[tuple[str, ...], ...]

    @property
    def readers(self) -> frozenset[str]:
        """All layers that have these channels as input channels: consumers and depthwise convolutions."""
        return frozenset(name for route in self.routes for name in route[1:])

    @property
    def carriers(self) -> tuple[str, ...]:
        """Everything between the producer and its consumers that has one entry for each channel."""
        return self.through if self.norm is None else (self.norm, *self.through)


@dataclass(frozen=True)
class Wiring:
    """What the graph of a network tells.

    Attributes:
        paths: by producer.
        norms: for each layer whose output only a batch norm reads, the name of that norm.
    """

    paths: Mapping[str, ChannelPath]
    norms: Mapping[str, str]


def channel_paths(network: nn.Module, example: Tensor) -> dict[str, ChannelPath]:
    """The path of each layer whose output channels reach their readers one to one.

    Only what `forward` does in eval mode counts. Modules and parameters that are used at two places have no path, nor
    have grouped convolutions (depthwise ones are passed through).

    Args:
        network: any module, float or quantized; left as it was.
        example: a batch of its inputs, (B, C, H, W), on the network's device. Two images are enough.

    Returns:
        The paths by the producer's name; empty if torch cannot draw the graph of the network.
    """
    return dict(wiring(network, example).paths)


def wiring(network: nn.Module, example: Tensor) -> Wiring:
    """As `channel_paths`, with the batch norm behind each layer."""
    program = _exported(network, example)
    return Wiring({}, {}) if program is None else _Tracer(network, program).trace()


def channel_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer that is understood, by name: quantized ones, and those that could be."""
    layers = {**quantizable_layers(network), **dict(quantized_layers(network))}
    # A weight that is computed from other parameters (weight norm) is not one that can be cut.
    return {name: module for name, module in layers.items() if name and "weight" in module._parameters}


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel of a layer reads just the input channel of the same index."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


def _exported(network: nn.Module, example: Tensor) -> ExportedProgram | None:
    try:
        twin = copy.deepcopy(network).eval()
        for _, layer in quantized_layers(twin):  # a quantizer belongs to its layer, and leaves channels where they are
            layer.use_scheme(_UNQUANTIZED)
            layer.input_quantizer = None
        with torch.no_grad(), _quiet():
            return torch.export.export(twin, (example[:2],), strict=False)
    except Exception:  # whatever a network does that torch cannot follow, we cannot either
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says about a network off the screen (it prints, too): giving up is an answer here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


class _Tracer:
    """Follows all channels through a graph at once, operation by operation."""

    def __init__(self, network: nn.Module, program: ExportedProgram) -> None:
        self.modules = dict(network.named_modules())
        self.layers = channel_layers(network)
        self.graph = program.graph
        self.flows: dict[Node, Flow] = {}
        self.made_by: dict[Node, str] = {}
        self.norms: dict[str, str] = {}
        self.carriers: defaultdict[str, list[str]] = defaultdict(list)
        self.routes: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        self.lost: set[str] = set()
        self.public = _modules_used_elsewhere(network, program)
        self.calls = Counter(self._owner(node) for node in self.graph.nodes)

    def trace(self) -> Wiring:
        for node in self.graph.nodes:
            if node.op == "placeholder" or operation(node) == "_assert_tensor_metadata":
                continue
            flow = self._after(node)
            if flow is not None:
                self.flows[node] = flow
        found = [name for name in self.routes if name not in self.lost]
        return Wiring({name: self._path(name) for name in found}, self.norms)

    def _path(self, producer: str) -> ChannelPath:
        routes = tuple(dict.fromkeys(self.routes[producer]))
        norm = self.norms.get(producer)
        through = tuple(name for name in self.carriers[producer] if name != norm)
        return ChannelPath(producer, norm, through, tuple(route[-1] for route in routes), routes)

    def _after(self, node: Node) -> Flow | None:
        """The channels that a node's output has, if they are known; takes note of where its inputs' channels go."""
        owner = self._owner(node)
        if owner in self.layers:
            return self._after_layer(node, owner)
        flow = self._after_norm(node, owner) if owner is not None else follow(node, self.flows)
        if flow is None:
            self._lose(*node.all_input_nodes)
        return flow

    def _after_layer(self, node: Node, name: str) -> Flow | None:
        module, source = self.layers[name], node.args[0]
        assert isinstance(source, Node)
        is_private = self._is_private(name)
        last = source.meta["val"].dim() - 1
        dim = last if isinstance(module, nn.Linear) else 1
        self._lose(*(other for other in node.all_input_nodes if other is not source))
        flow = self.flows.get(source)
        is_linked = flow is not None and flow.dim == dim and is_private
        if is_depthwise(module):
            if flow is None or not is_linked:
                self._lose(source)
                return None
            self.carriers[flow.producer].append(name)
            self.made_by[node] = name
            return replace(flow, route=(*flow.route, name))
        is_grouped = getattr(module, "groups", 1) != 1
        if flow is not None and is_linked and not is_grouped:
            self.routes[flow.producer].append((*flow.route, name))
        else:
            self._lose(source)
        if is_grouped or not is_private:
            return None
        self.made_by[node] = name
        return Flow(name, dim, (name,))

    def _after_norm(self, node: Node, name: str) -> Flow | None:
        source = node.args[0]
        assert isinstance(source, Node)
        flow = self.flows.get(source)
        others = [other for other in node.all_input_nodes if other is not source]
        if flow is None or flow.dim != 1 or not self._is_private(name) or any(o.op != "placeholder" for o in others):
            return None
        self.carriers[flow.producer].append(name)
        if source in self.made_by and len(source.users) == 1:
            self.norms[self.made_by[source]] = name
        return flow

    def _lose(self, *nodes: Node) -> None:
        """Some channels go where they cannot be followed."""
        self.lost.update(self.flows[node].producer for node in nodes if node in self.flows)

    def _is_private(self, name: str) -> bool:
        return name not in self.public and self.calls[name] == 1

    def _owner(self, node: Node) -> str | None:
        """The layer or norm whose very operation a node is."""
        stack = _stack(node)
        name = stack[-1] if stack else ""
        if operation(node) in ("conv2d", "linear") and name in self.layers:
            return name
        if operation(node) == "batch_norm" and isinstance(self.modules.get(name), nn.modules.batchnorm._BatchNorm):
            holder = name.rpartition(".choices.")[0]
            return holder if isinstance(self.modules.get(holder), SwitchableBatchNorm) else name
        return None


def _stack(node: Node) -> list[str]:
    """Names of the modules that were running when a node was drawn, outermost first."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    return [name for name, _ in stack.values()]


def _modules_used_elsewhere(network: nn.Module, program: ExportedProgram) -> set[str]:
    """Modules that have a second name, or a tensor that others hold or read too; cutting them would cut more."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for named in (network.named_modules, network.named_parameters, network.named_buffers):
        for name, part in named(remove_duplicate=False):
            names[id(part)].append(name)
    public: set[str] = set()
    for several in names.values():
        if len(several) > 1:
            public.update(holder for name in several for holder in _holders(name) if not _inside(several, holder))
    signature = program.graph_signature
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in program.graph.nodes:
        for reader in node.users if node.name in tensors else ():
            stack = _stack(reader)
            public.update(holder for holder in _holders(tensors[node.name]) if holder not in stack)
    return public


def _holders(name: str) -> list[str]:
    """A name itself and those of all modules around it."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _inside(names: list[str], holder: str) -> bool:
    """Whether all names are of parts of one module, as those of norms that share a scale are."""
    return all(name.startswith(f"{holder}.") for name in names)
