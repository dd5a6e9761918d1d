"""The integer engine: which quantized layers compute on integers while they train, and why others do not.

A quantized layer multiplies its input with its weight in one of two ways: simulated, in float numbers that lie on
grids, or in integers (`integer_product.py`). The values are the same to float rounding. An engine is not part of a
network's state: a layer without one is the ordinary layer, and that is what is exported.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.processor import has_vnni
from tenfold.quant.coded_weight import coded_weight
from tenfold.quant.fractional import FractionalBits
from tenfold.quant.integer_product import Window, input_grid, integer_product
from tenfold.quant.layers import same_padding
from tenfold.quant.schemes import FLOAT_BITS
from tenfold.quant.swap import quantized_layers
from tenfold.quant.switching import SearchedBits

if TYPE_CHECKING:
    from tenfold.quant.layers import QuantConv2d, QuantLayer

INTEGERS = "integers"
"""What `engine_report` says of a layer that computes on integers."""


@functools.cache
def missing_instructions() -> str | None:
    """Why this machine cannot compute on integers as fast and exactly as needed; None if it can."""
    if not has_vnni():
        return "its processor lacks VNNI instructions, or does not say that it has them"
    operators = ("qconv_prepack", "qconv_pointwise", "qlinear_prepack", "qlinear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.onednn, name) for name in operators):
        return "this build of PyTorch lacks oneDNN's quantized operators"
    return None


@dataclass(frozen=True)
class IntegerEngine:
    """Computes quantized layers on integers.

    Args:
        backward: number format of the backward products. "fp32" gives the gradients of the simulated layer, to float
            rounding; "bf16" is faster, and rounds each gradient to 8 significant bits.

    Raises:
        UsageError: if this machine cannot, or for another format.
    """

    backward: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        if self.backward not in ("fp32", "bf16"):
            raise UsageError(f'the backward pass of the integer engine is "fp32" or "bf16", not {self.backward!r}.')
        if reason := missing_instructions():
            raise UsageError(f'this machine cannot train in integers: {reason}. Use engine="simulated", or "auto".')

    def product(self, layer: QuantLayer, input: Tensor, *, rescaled: bool = True) -> Tensor | None:
        """What a layer makes of its input; None if it must be simulated.

        Args:
            layer: the layer.
            input: not quantized yet.
            rescaled: without it all of it is smaller by the scale adjustment of the weight, if the layer has one.
        """
        plain = input.is_cpu and input.numel() > 0 and (isinstance(layer, nn.Linear) or input.dim() == 4)
        if not plain or torch.compiler.is_compiling() or why_simulated(layer) or _is_watched(layer):
            return None
        quantizer = layer.input_quantizer
        assert quantizer is not None
        alpha, bits, scheme = quantizer.active_alpha, quantizer.policy.whole, layer.layer
        assert isinstance(bits, int)
        grid = input_grid(alpha, bits, scheme.a_scheme, two_sided=scheme.two_sided, calibrated=scheme.calibrated)
        window = _window(layer, input) if isinstance(layer, nn.Conv2d) else None
        dtype = torch.bfloat16 if self.backward == "bf16" else torch.float32
        mixed = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        with torch.autocast("cpu", enabled=False):
            weight, bias = coded_weight(layer), layer.bias
            if not rescaled:
                bias = None if bias is None else bias * (weight.level_unit / weight.unit)
                weight = weight.unadjusted()
            output = integer_product(input, alpha, weight, bias, grid, window, dtype)
        return output if mixed is None else output.to(mixed)


def why_simulated(layer: QuantLayer) -> str | None:
    """Why a layer cannot compute on integers, or would not gain from it; None if it does."""
    quantizer = layer.input_quantizer
    if quantizer is None:
        return "its input is the image itself" if layer.layer.pixels else "its input is not quantized"
    w_bits, a_bits = layer.weight_quantizer.policy.whole, quantizer.policy.whole
    if w_bits is None or a_bits is None:
        return "its bits are being learned"
    if not isinstance(a_bits, int):
        return "the channels of its input differ in bits"
    if FLOAT_BITS in (w_bits, a_bits):
        return f"its {'weight' if w_bits == FLOAT_BITS else 'input'} is not quantized"
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            padding = layer.padding if layer.padding_mode == "zeros" else layer.padding_mode
            return f"its padding is {padding!r}"
        if layer.groups > 1 and layer.in_channels // layer.groups < _FEW_CHANNELS:
            return "it is depthwise, and waits for memory rather than for arithmetic"
    return None


_FEW_CHANNELS = 4
"""A grouped convolution with fewer input channels a group gains nothing (measured by benchmarks/qat_step.py)."""


def use_engine(network: nn.Module, engine: IntegerEngine | None) -> nn.Module:
    """Let all quantized layers of a network compute by an engine; None lets them simulate, as they do without."""
    for _, layer in quantized_layers(network):
        layer.engine = engine
    return network


def engine_report(network: nn.Module) -> dict[str, str]:
    """For each quantized layer "integers", or why it is simulated."""
    found = {}
    for name, layer in quantized_layers(network):
        if layer.engine is None:
            found[name] = "no integer engine is in use"
            continue
        found[name] = why_simulated(layer) or INTEGERS + (", since its bits are fixed" if _was_learned(layer) else "")
    return found


def _was_learned(layer: QuantLayer) -> bool:
    quantizers = (layer.weight_quantizer, layer.input_quantizer)
    return any(one is not None and isinstance(one.policy, FractionalBits | SearchedBits) for one in quantizers)


def _is_watched(layer: QuantLayer) -> bool:
    """Whether somebody looks at what a quantizer gives, so that it must be called."""
    quantizer = layer.input_quantizer
    return quantizer is not None and any((quantizer._forward_hooks, quantizer._forward_pre_hooks))


def _window(layer: QuantConv2d, input: Tensor) -> Window:
    assert not isinstance(layer.padding, str)
    before = same_padding(input, layer.kernel_size, layer.stride, layer.dilation) if layer.same else ()
    padding = (0, 0) if layer.same else (layer.padding[0], layer.padding[1])
    stride, dilation = (layer.stride[0], layer.stride[1]), (layer.dilation[0], layer.dilation[1])
    return Window(stride, padding, dilation, layer.groups, before)
