"""The two operators of fractional bit-widths: a quantizer between two integer ones, and its gradient for the bits.

A real bit-width b means q_b = (1 + l - b) q_l + (b - l) q_h with the integers l, h around it (FracBits, arXiv
2007.02017; `fracbits.md` sections 2.2 and 2.3). Bits may differ from channel to channel, and be 0: then the output is
the constant middle of the range, so that a weight vanishes. The operators are registered as those of `operators.py`
are, for the same reasons, and native kernels find the same seam here.

Where all bits are whole numbers the second quantizer has weight 0 and is left out (on the CPU; elsewhere looking would
make the device wait).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tenfold.kernels import quantization as native
from tenfold.quant.operators import (
    clipping_level,
    dense,
    laid_out_as,
    quantize_activation_backward,
    quantize_weight_backward,
    squash,
    weight_peak,
)
from tenfold.quant.schemes import Scheme, check_scheme, num_steps, round_to_levels_
from tenfold.recomputation import recomputable


@torch.library.custom_op("tenfold::interpolate_weight", mutates_args=())
def interpolate_weight(
    weight: Tensor, bits: Tensor, scheme: str, per_channel: bool, clamp: bool, upper_is_next: bool
) -> Tensor:
    """Quantize a weight tensor with fractional bits; see `quantize_weight` for the normalization.

    Args:
        weight: (C_out, …), any float dtype.
        bits: float, () or (C_out,), 0 to 8.
        scheme: one of `schemes.SCHEMES`.
        per_channel: one maximum per output channel instead of one per tensor.
        clamp: whether tanh clamps the weights (the papers' way).
        upper_is_next: take l + 1 as the upper neighbour of an integer l too, so that bits get a gradient there; the
            paper's code takes l, where the gradient is exactly 0.

    Returns:
        float32 tensor of the weight's shape.
    """
    values, peak = _values(weight, per_channel, clamp)
    if not per_channel and _is_shared(bits) and native.serves(values):
        options = _options(bits, scheme, 0.5, upper_is_next, scale=0.5 / peak, shift=0.5, unit=2, offset=-1)
        mixed = native.interpolate(values, torch.empty_like(values), options)
    else:
        unit = values.mul(0.5 / peak).add_(0.5)
        mixed = _mix(unit, _as_rows(bits, weight), check_scheme(scheme), 0.5, upper_is_next).mul_(2).sub_(1)
    return mixed if clamp else mixed.mul_(peak)


@interpolate_weight.register_fake
def _(weight: Tensor, bits: Tensor, scheme: str, per_channel: bool, clamp: bool, upper_is_next: bool) -> Tensor:
    return torch.empty_like(weight, dtype=torch.float32)


@torch.library.custom_op("tenfold::interpolate_weight_backward", mutates_args=())
def interpolate_weight_backward(
    gradient: Tensor, weight: Tensor, bits: Tensor, scheme: str, per_channel: bool, clamp: bool, upper_is_next: bool
) -> Tensor:
    """Gradient of `interpolate_weight` for the bits: 2 sum g (q_h - q_l), over each kernel or over all."""
    values, peak = _values(weight, per_channel, clamp)
    if not per_channel and _is_shared(bits):
        gradient = laid_out_as(values, gradient)
        if native.serves(values, gradient):
            options = _options(bits, scheme, 0.5, upper_is_next, scale=0.5 / peak, shift=0.5)
            slope = 2 * native.interpolate_slope(gradient, values, options)
            return bits.new_tensor(slope if clamp else slope * float(peak), dtype=torch.float32)
    gap = _gap(values.mul(0.5 / peak).add_(0.5), _as_rows(bits, weight), check_scheme(scheme), 0.5, upper_is_next)
    products = gap.mul_(gradient).mul_(2) if clamp else gap.mul_(gradient).mul_(2 * peak)
    return products.flatten(1).sum(1) if bits.dim() else products.sum()


@interpolate_weight_backward.register_fake
def _(
    gradient: Tensor, weight: Tensor, bits: Tensor, scheme: str, per_channel: bool, clamp: bool, upper_is_next: bool
) -> Tensor:
    return torch.empty_like(bits, dtype=torch.float32)


def _keep_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, bits, *options = inputs
    ctx.options = options
    recomputable(output, lambda weight, bits: interpolate_weight(weight, bits, *options), weight, bits)
    ctx.save_for_backward(weight, bits)


def _weight_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    weight, bits = ctx.saved_tensors
    _, per_channel, clamp, _ = ctx.options
    for_bits = interpolate_weight_backward(gradient, weight, bits, *ctx.options) if ctx.needs_input_grad[1] else None
    # The weights of the two branches add up to 1, so the gradient for W is that of the integer quantizer.
    through = quantize_weight_backward(gradient, weight, per_channel) if clamp else gradient
    return through.to(weight.dtype), for_bits, None, None, None, None


interpolate_weight.register_autograd(_weight_gradient, setup_context=_keep_weight)


@torch.library.custom_op("tenfold::interpolate_activation", mutates_args=())
def interpolate_activation(
    input: Tensor, alpha: Tensor, bits: Tensor, scheme: str, two_sided: bool, calibrated: bool, upper_is_next: bool
) -> Tensor:
    """Clip an activation tensor and quantize it with fractional bits; see `quantize_activation`.

    Args:
        input: any shape, any float dtype.
        alpha: 0-d clipping level, in units of the input; its sign does not matter.
        bits: float, 0 to 8, 0-d or of a shape that broadcasts to the input's.
        scheme: "original" in the paper.
        two_sided: whether negative values are kept.
        calibrated: CG-PACT's gradient for the level, or PACT's.
        upper_is_next: see `interpolate_weight`.

    Returns:
        float32 tensor of the input's shape.
    """
    level, zero = clipping_level(alpha), 0.5 if two_sided else 0.0
    if _is_shared(bits) and native.serves(input):
        options = _activation_options(level, bits, scheme, two_sided, upper_is_next)
        return native.interpolate(input, torch.empty_like(input), options)
    mixed = _mix(_unit_activation(input, level, two_sided), bits, check_scheme(scheme), zero, upper_is_next)
    return mixed.mul_(2 * level).sub_(level) if two_sided else mixed.mul_(level)


@interpolate_activation.register_fake
def _(
    input: Tensor, alpha: Tensor, bits: Tensor, scheme: str, two_sided: bool, calibrated: bool, upper_is_next: bool
) -> Tensor:
    return torch.empty_like(input, dtype=torch.float32)


@torch.library.custom_op("tenfold::interpolate_activation_backward", mutates_args=())
def interpolate_activation_backward(
    gradient: Tensor,
    input: Tensor,
    output: Tensor,
    alpha: Tensor,
    bits: Tensor,
    scheme: str,
    two_sided: bool,
    calibrated: bool,
    upper_is_next: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `interpolate_activation` for the input, for alpha and for the bits: A sum g (q_h - q_l)."""
    masked, for_alpha = quantize_activation_backward(gradient, input, output, alpha, two_sided, calibrated)
    level = clipping_level(alpha)
    span = 2 * level if two_sided else level
    if _is_shared(bits):
        if bits == bits.floor() and not upper_is_next:
            return masked, for_alpha, torch.zeros_like(bits, dtype=torch.float32)
        gradient = laid_out_as(input, gradient)
        if native.serves(input, gradient):
            options = _activation_options(level, bits, scheme, two_sided, upper_is_next)
            slope = float(span) * native.interpolate_slope(gradient, input, options)
            return masked, for_alpha, bits.new_tensor(slope, dtype=torch.float32)
    unit = _unit_activation(input, level, two_sided)
    gap = _gap(unit, bits, check_scheme(scheme), 0.5 if two_sided else 0.0, upper_is_next)
    for_bits = gap.mul_(gradient).mul_(span).sum_to_size(bits.shape)
    return masked, for_alpha, for_bits.to(torch.float32)


@interpolate_activation_backward.register_fake
def _(
    gradient: Tensor,
    input: Tensor,
    output: Tensor,
    alpha: Tensor,
    bits: Tensor,
    scheme: str,
    two_sided: bool,
    calibrated: bool,
    upper_is_next: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (input, alpha, bits)
    first, second, third = (torch.empty_like(one, dtype=torch.float32) for one in shapes)
    return first, second, third


def _keep_activation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, alpha, bits, *options = inputs
    ctx.options = options
    recomputable(output, lambda *inputs: interpolate_activation(*inputs, *options), input, alpha, bits)
    ctx.save_for_backward(input, output, alpha, bits)


def _activation_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    input, output, alpha, bits = ctx.saved_tensors
    for_input, for_alpha, for_bits = interpolate_activation_backward(gradient, input, output, alpha, bits, *ctx.options)
    return for_input.to(input.dtype), for_alpha.to(alpha.dtype), for_bits.to(bits.dtype), None, None, None, None


interpolate_activation.register_autograd(_activation_gradient, setup_context=_keep_activation)


def _as_rows(bits: Tensor, weight: Tensor) -> Tensor:
    """Bits of kernels in a shape that broadcasts to the weight's."""
    return bits.view(-1, *[1] * (weight.dim() - 1)) if bits.dim() else bits


def _is_shared(bits: Tensor) -> bool:
    """Whether one number of bits, which can be read without making a device wait, holds for the whole tensor."""
    return not bits.dim() and bits.is_cpu


def _whole_and_rest(bits: Tensor) -> tuple[int, float]:
    """The whole number below bits that a tensor shares, and how far they are above it."""
    low = int(bits.floor())
    return low, float(bits) - low


def _values(weight: Tensor, per_channel: bool, clamp: bool) -> tuple[Tensor, Tensor]:
    """What is put on the grid, and the largest magnitude that it is divided by."""
    values = squash(weight) if clamp else dense(weight)
    return values, weight_peak(values, per_channel)


def _options(
    bits: Tensor,
    scheme: str,
    zero: float,
    upper_is_next: bool,
    *,
    scale: Tensor,
    shift: float = 0,
    unit: Tensor | float = 0,
    offset: Tensor | float = 0,
) -> native.Interpolation:
    """The same for the native kernels."""
    low, share = _whole_and_rest(bits)
    both = (low, low + 1 if share or upper_is_next else low)
    return native.Interpolation(
        scale=float(scale),
        shift=shift,
        steps=tuple(num_steps(one, check_scheme(scheme)) if one else 0 for one in both),
        top=tuple(2**one - 1 for one in both),
        share=share,
        zero=zero,
        unit=float(unit),
        offset=float(offset),
        kind=native.KINDS[scheme],
    )


def _activation_options(
    level: Tensor, bits: Tensor, scheme: str, two_sided: bool, upper_is_next: bool
) -> native.Interpolation:
    if two_sided:
        return _options(bits, scheme, 0.5, upper_is_next, scale=0.5 / level, shift=0.5, unit=2 * level, offset=-level)
    return _options(bits, scheme, 0, upper_is_next, scale=1 / level, unit=level)


def _unit_activation(input: Tensor, level: Tensor, two_sided: bool) -> Tensor:
    """The input clipped and brought to [0, 1], in memory of its own."""
    if two_sided:
        return input.float().mul(0.5 / level).add_(0.5).clamp_(0, 1)
    return input.float().mul(1 / level).clamp_(0, 1)


def _mix(unit: Tensor, bits: Tensor, scheme: Scheme, zero: float, upper_is_next: bool) -> Tensor:
    """(1 + l - b) q_l(u) + (b - l) q_h(u); may overwrite `unit`."""
    if _is_shared(bits):
        low, share = _whole_and_rest(bits)
        if share == 0:
            return _quantized(unit, low, scheme, zero)
        below = _quantized(unit.clone(), low, scheme, zero)
        # Not `lerp`, which rounds in other ways from processor to processor.
        return _quantized(unit, low + 1, scheme, zero).sub_(below).mul_(share).add_(below)
    lower = bits.floor()
    share_of = bits - lower
    below = _quantized(unit.clone(), lower, scheme, zero)
    if bits.is_cpu and not bool(share_of.any()):
        return below
    return below.lerp_(_quantized(unit, _upper(bits, upper_is_next), scheme, zero), share_of.expand_as(below))


def _gap(unit: Tensor, bits: Tensor, scheme: Scheme, zero: float, upper_is_next: bool) -> Tensor:
    """q_h(u) - q_l(u); overwrites `unit`."""
    below = _quantized(unit.clone(), bits.floor(), scheme, zero)
    return _quantized(unit, _upper(bits, upper_is_next), scheme, zero).sub_(below)


def _upper(bits: Tensor, upper_is_next: bool) -> Tensor:
    return bits.floor() + 1 if upper_is_next else bits.ceil()


def _quantized(unit: Tensor, bits: int | Tensor, scheme: Scheme, zero: float) -> Tensor:
    """q_b(u), in place; the constant `zero` where b is 0. A tensor of bits holds whole numbers."""
    if isinstance(bits, int):
        if bits == 0:
            return unit.fill_(zero)
        steps = num_steps(bits, scheme)
        return round_to_levels_(unit.mul_(steps), bits, scheme).div_(steps)
    levels = torch.exp2(bits)
    steps_of = (levels - {"original": 1, "symmetric": 2}.get(scheme, 0)).clamp_min(1)
    unit.mul_(steps_of)
    if scheme in ("original", "symmetric"):
        unit.round_()
    else:
        torch.minimum(unit.floor_(), levels - 1, out=unit)
        if scheme == "centered":
            unit.add_(0.5)
    unit.div_(steps_of)
    return unit.masked_fill_(bits == 0, zero)
