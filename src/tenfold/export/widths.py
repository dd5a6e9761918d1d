"""Capturing a network that has several bit-widths, once at each of them.

Translating a network takes torch some ten seconds, so it is done once, on a copy in which every tensor that depends on
the width holds numbers of its own: the exporter merges equal constants, and these must stay apart. Each width's tensors
are then put in their places. Where a place is not found, as when the exporter has folded a constant into another, the
network is translated anew at each width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from tenfold.errors import ExportError
from tenfold.export.capture import activation_grid, capture, freeze
from tenfold.export.graph import Builder, Network, array_of, is_activation, is_weight, tidy
from tenfold.export.integers import ActivationGrid
from tenfold.export.width_choice import ONE_FILE_EACH
from tenfold.quant import FLOAT_BITS, SwitchableBatchNorm, activation_quantizers, find_switch, quantized_parts

_CODES, _SCALE = ".weight_quantizer.codes", ".weight_quantizer.scale"
_COUNTER = "num_batches_tracked"


def settle(network: nn.Module, position: int) -> nn.Module:
    """A copy of a network, on the CPU, that has one bit-width only: that at a position of its switch."""
    copied = copy.deepcopy(network).cpu().float().eval()
    switch = find_switch(copied)
    assert switch is not None
    switch.position = position
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SwitchableBatchNorm):
                setattr(parent, name, child.choices[position])
    return copied


def capture_widths(settled: Sequence[nn.Module], example: Tensor) -> list[Network]:
    """The graphs of one network at all its widths, the batch norms folded in.

    Args:
        settled: the network at each position of its switch, as `settle` gives it.
        example: a batch of inputs, (B, C, H, W).

    Raises:
        ExportError: if torch cannot express the network in ONNX, or a layer is quantized at some widths only.
    """
    for one in settled[1:]:
        _refuse_if_float(settled[0], one)
    models = _from_one_capture(settled, example) or [capture(one, example) for one in settled]
    return [tidy(model) for model in models]


def _refuse_if_float(network: nn.Module, twin: nn.Module) -> None:
    """Refuse a layer that is quantized at one width and not at another: one graph cannot be both."""
    for (name, one), (_, other) in zip(quantized_parts(network), quantized_parts(twin), strict=True):
        for what, bits in (("weights", (one.w_bits, other.w_bits)), ("input", (one.a_bits, other.a_bits))):
            if bits[0] != bits[1] and FLOAT_BITS in bits:
                raise ExportError(
                    f"the {what} of {name} are to have {bits[0]} bits at one width and {bits[1]} at another; a "
                    f"switchable file cannot hold both, as {FLOAT_BITS} bits are no integers. So {ONE_FILE_EACH}."
                )


def _from_one_capture(settled: Sequence[nn.Module], example: Tensor) -> list[ir.Model] | None:
    """The graphs at all widths, from one translation; None if some tensor cannot be found in it."""
    levels = [
        [quantizer.level for quantizer in activation_quantizers(one).values() if quantizer.policy.bits == FLOAT_BITS]
        for one in settled
    ]
    if any(own != levels[0] for own in levels):
        return None  # the clips of inputs that are not quantized have no names in the graph
    template = copy.deepcopy(settled[0])
    _make_unique(template)
    states = [freeze(one).state_dict() for one in settled]
    marks = freeze(template).state_dict()
    private = {name for name in marks if any(not torch.equal(state[name], marks[name]) for state in states)}
    named = {name for name in private if not name.endswith((_CODES, _SCALE, _COUNTER))}
    contents = [_content(tensor) for tensor in marks.values()]
    model = capture(template, example)
    for name in named:
        constant = array_of(model.graph.initializers.get(name))
        is_itself = constant is not None and np.array_equal(constant, marks[name].numpy())
        if not is_itself or contents.count(_content(marks[name])) > 1:
            return None
    return [
        _filled(model, {name: state[name] for name in state if name in named or name.endswith((_CODES, _SCALE))}, one)
        for state, one in zip(states, settled, strict=True)
    ]


def _make_unique(network: nn.Module) -> None:
    """Fill the batch norms with numbers that occur once."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in module.state_dict(keep_vars=True).values():
                if tensor.is_floating_point():
                    tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5


def _content(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _filled(model: ir.Model, tensors: dict[str, Tensor], network: nn.Module) -> ir.Model:
    """A copy of a graph with the tensors and grids of one width."""
    model = model.clone()
    builder = Builder(model.graph, "width")
    grids = _grids(network)
    for name, value in model.graph.initializers.items():
        if name in tensors:
            value.const_value = ir.tensor(tensors[name].numpy(), name=name)
    for node in model.graph:
        if is_weight(node):
            layer = node.attributes["layer"].value
            for index, suffix in enumerate((_CODES, _SCALE)):
                node.replace_input_with(index, builder.constant(tensors[layer + suffix].numpy(), is_shared=False))
        elif is_activation(node):
            grid = grids[node.attributes["layer"].value]
            for key in ("step", "shift", "offset"):
                node.attributes[key] = ir.AttrFloat32(key, getattr(grid, key))
            node.attributes["top"] = ir.AttrInt64("top", grid.top)
    return model


def _grids(network: nn.Module) -> dict[str, ActivationGrid]:
    return {
        name: activation_grid(quantizer)
        for name, quantizer in activation_quantizers(network).items()
        if quantizer.policy.bits != FLOAT_BITS
    }
