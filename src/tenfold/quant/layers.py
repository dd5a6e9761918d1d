"""Quantized convolution and linear layers: a float layer, a weight quantizer and an input quantizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.errors import UsageError
from tenfold.products import HeadMixing
from tenfold.quant.bits import FixedBits
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.quantizers import ActivationQuantizer, IntegerWeight, WeightQuantizer
from tenfold.quant.schemes import FLOAT_BITS, Bits
from tenfold.recomputation import recomputable

if TYPE_CHECKING:
    from tenfold.quant.engine import IntegerEngine

INITIAL_LEVEL_CONV = 8.0
INITIAL_LEVEL_LINEAR = 10.0
"""Initial clipping levels of the official code (`sat.md` section 2.3)."""


class _Quantized:
    """What quantized convolutions and linear layers share; a mixin in front of the float layer's class."""

    weight: Any
    bias: Any
    training: bool
    weight_quantizer: WeightQuantizer
    input_quantizer: ActivationQuantizer | None
    layer: LayerScheme
    engine: IntegerEngine | None = None
    """What multiplies input and weight, where it can; None simulates integers in float numbers. See `engine.py`."""

    def _add_quantizers(self, layer: LayerScheme, level: float) -> None:
        self.layer = layer
        self.weight_quantizer = WeightQuantizer(layer)
        quantizes_input = layer.a_bits != FLOAT_BITS and not layer.pixels
        trailing = 2 if isinstance(self, nn.Conv2d) else 0
        self.input_quantizer = ActivationQuantizer(layer, level, trailing) if quantizes_input else None

    def use_scheme(self, layer: LayerScheme) -> None:
        """Be quantized in another way from now on; weights, bias and clipping level stay."""
        self.layer = self.weight_quantizer.layer = layer
        self.weight_quantizer.policy = FixedBits(layer.w_bits).to(self.weight.device)
        if self.input_quantizer is not None:
            self.input_quantizer.layer = layer
            self.input_quantizer.policy = FixedBits(layer.a_bits).to(self.weight.device)

    @property
    def w_bits(self) -> Bits:
        """Bits of the weights now: one number, or one for each kernel."""
        return self.weight_quantizer.policy.bits

    @property
    def a_bits(self) -> Bits:
        """Bits of the input now (8 for an image): one number, or one for each channel."""
        return self.layer.a_bits if self.input_quantizer is None else self.input_quantizer.policy.bits

    def effective_weight(self) -> Tensor:
        """The weight that multiplies the input in training: quantized, and scaled where the layer's scheme says so."""
        quantized, factor = self.quantized_weight()
        return quantized if factor is None else quantized * factor

    def quantized_weight(self) -> tuple[Tensor, Tensor | None]:
        """The quantized weight, and the factor that adjusts its scale, if any."""
        quantized = self.weight_quantizer(self.weight)
        return quantized, self.weight_quantizer.factor(quantized, self.weight)

    def _multiply(self, input: Tensor, *, rescaled: bool = True) -> Tensor:
        """The input, quantized, times the effective weight, plus the bias: by the engine, or in float numbers.

        Without `rescaled` all of it is smaller by the scale adjustment of the weight, if there is one.
        """
        output = None if self.engine is None else self.engine.product(self, input, rescaled=rescaled)  # type: ignore[arg-type]
        if output is not None:
            return output
        (weight, factor), bias = self.quantized_weight(), self.bias
        if factor is not None and rescaled:
            quantized, weight = weight, weight * factor
            recomputable(weight, torch.mul, quantized, factor)
        elif factor is not None and bias is not None:
            bias = bias / factor
        input = self._quantized_input(input)
        return self._simulate(input, weight.to(input.dtype), bias)

    def _simulate(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def integer_weight(self) -> IntegerWeight:
        """`effective_weight` as integers and a scale, exactly."""
        return self.weight_quantizer.integers(self.weight)

    def _quantized_input(self, input: Tensor) -> Tensor:
        return input if self.input_quantizer is None else self.input_quantizer(input)


class QuantConv2d(_Quantized, nn.Conv2d):
    """A 2-D convolution with quantized weights and input.

    Args:
        layer: how it is quantized.
        same: TensorFlow's "same" padding, computed from the input's size, instead of `padding`.
        arguments: those of `torch.nn.Conv2d`.
    """

    def __init__(self, layer: LayerScheme, *arguments: Any, same: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.same = same
        self._add_quantizers(layer, INITIAL_LEVEL_CONV)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H', W')."""
        return self._multiply(input)

    def _simulate(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.same:
            input = pad_same(input, self.kernel_size, self.stride, self.dilation)
        return self._conv_forward(input, weight, bias)


class QuantLinear(_Quantized, nn.Linear):
    """A linear layer with quantized weights and input.

    Args:
        layer: how it is quantized.
        arguments: those of `torch.nn.Linear`.
    """

    def __init__(self, layer: LayerScheme, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._add_quantizers(layer, INITIAL_LEVEL_LINEAR)

    def forward(self, input: Tensor) -> Tensor:
        """(…, C_in) to (…, C_out)."""
        # The official layer: logits smaller by the factor, so that the arg-max is the same but the loss is not.
        return self._multiply(input, rescaled=self.training or self.layer.rescale_in_eval)

    def _simulate(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(input, weight, bias)


QuantLayer: TypeAlias = QuantConv2d | QuantLinear


def pad_same(input: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Pad (B, C, H, W) as TensorFlow's "SAME" does: the surplus goes to the bottom and to the right."""
    padding = same_padding(input, kernel, stride, dilation)
    return F.pad(input, padding) if any(padding) else input


def same_padding(
    input: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    """What `pad_same` adds to the left, right, top and bottom."""
    padding: list[int] = []
    for size, k, s, d in zip(input.shape[-2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        padding = [total // 2, total - total // 2, *padding]
    return tuple(padding)


def is_quantizable(module: nn.Module) -> bool:
    """Whether a module is a float layer that `quantize_layer` can replace.

    Subclasses that compute something of their own are left alone, but for timm's `Conv2dSame`, whose padding is
    understood. `HeadMixing` is a plain convolution, and timm's `Linear` a plain linear layer.
    """
    plain = type(module) in (nn.Conv2d, nn.Linear, HeadMixing)
    return plain or _is_same_convolution(module) or _is_timm(module, "Linear")


def quantize_layer(module: nn.Module, layer: LayerScheme) -> QuantLayer:
    """The quantized twin of a float layer, sharing its parameters.

    Raises:
        UsageError: if the module is not a plain convolution or linear layer.
    """
    twin: QuantLayer
    if not is_quantizable(module):
        raise UsageError(
            f"cannot quantize a {type(module).__name__}; only torch.nn.Conv2d and torch.nn.Linear (not subclasses that "
            "change what they compute) can be."
        )
    if isinstance(module, nn.Conv2d):
        twin = QuantConv2d(
            layer,
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            groups=module.groups,
            bias=module.bias is not None,
            padding_mode=module.padding_mode,
            same=_is_same_convolution(module),
            device="meta",
        )
    else:
        assert isinstance(module, nn.Linear)
        twin = QuantLinear(layer, module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    twin.weight, twin.bias = module.weight, module.bias
    if twin.input_quantizer is not None:
        twin.input_quantizer.to(module.weight.device)
    return twin.train(module.training)


def _is_same_convolution(module: nn.Module) -> bool:
    return _is_timm(module, "Conv2dSame")


def _is_timm(module: nn.Module, name: str) -> bool:
    """Whether a module is of one of timm's layers; known by name, as timm need not be there."""
    return type(module).__name__ == name and type(module).__module__.startswith("timm.layers.")
