"""The two operators that quantization-aware training runs: one for a weight tensor, one for an activation tensor.

Bits are whole numbers here; `interpolation.py` has the operators between them.

Both are registered with `torch.library`, so that autograd, `torch.compile` and `torch.export` see one node each. Where
there are native kernels for a tensor (`kernels/quantization.py`), they do the same in one pass over memory: same values
to the bit, sums to float rounding. The code here is their twin, and serves everywhere else.

The backward passes are closed forms (`sat.md` sections 2.1 and 2.3). What they keep is alive anyway: the weight is a
parameter, the input of a quantizer is kept by the activation before it and its output by the convolution after it.

Arithmetic is in float32 whatever the dtype of the input: bfloat16 has too few bits for codes above 6 bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tenfold.kernels import quantization as native
from tenfold.quant.schemes import FLOAT_BITS, check_scheme, num_steps, round_to_levels_
from tenfold.recomputation import recomputable

MINIMUM_CLIPPING_LEVEL = 1e-3
"""A clipping level is used as if it were at least this: at zero it would kill its layer for good."""

SMALLEST_PEAK = 1e-30
"""The largest magnitude of a tensor is taken as at least this, so that a tensor of zeros divides by something."""


def dense(tensor: Tensor) -> Tensor:
    """The tensor in float32 and in one of the two layouts that `_rows` can view."""
    channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return (tensor if channels_last else tensor.contiguous()).float()


def _rows(tensor: Tensor, per_channel: bool) -> Tensor:
    """A view of a `dense` tensor with one row a maximum: (C_out, N) or (1, N).

    The order of the elements in a row does not matter, so channels-last tensors are viewed in their own order; a full
    reduction over them would copy them first.
    """
    if not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.view(tensor.shape[0] if per_channel else 1, -1)


def _peak(rows: Tensor) -> Tensor:
    """Largest magnitude of each row, (rows, 1)."""
    low, high = torch.aminmax(rows, dim=1, keepdim=True) if len(rows) > 1 else torch.aminmax(rows.flatten())
    return torch.maximum(-low, high).clamp_min_(SMALLEST_PEAK).view(-1, 1)


def weight_peak(values: Tensor, per_channel: bool) -> Tensor:
    """Largest magnitude of a tensor, (1, 1, …), or of each output channel, (C_out, 1, …)."""
    return _peak(_rows(dense(values), per_channel)).view(-1, *[1] * (values.dim() - 1))


def squash(weight: Tensor) -> Tensor:
    """Tanh of a weight, float32: one function for all sizes, so that what was cut out of a tensor keeps its values."""
    values = dense(weight)
    return native.tanh(values) if native.serves(values, of_any_size=True) else torch.tanh(values)


def _weight_backward_natively(gradient: Tensor, tanh: Tensor) -> Tensor:
    peak = float(_peak(_rows(tanh, False)))
    result, inner = native.tanh_backward(gradient, tanh, peak)
    position, sign = native.find(tanh, peak), 1.0
    if position < 0:
        position, sign = native.find(tanh, -peak), -1.0
    if position >= 0:  # a tensor of zeros has no peak
        _rows(result, False)[0, position] -= (1 - peak**2) * sign * inner / peak**2
    return result


def laid_out_as(reference: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in float32 and in the order of another one."""
    same = tensor.stride() == reference.stride()
    return tensor.float() if same else torch.empty_like(reference, dtype=torch.float32).copy_(tensor)


def _round_natively(values: Tensor, out: Tensor, scale: Tensor | float, bits: int, scheme: str) -> Tensor:
    """2 q_b(scale values / steps + 1/2) - 1."""
    steps = num_steps(bits, check_scheme(scheme))
    return native.affine_round(
        values,
        out,
        scale=float(scale),
        shift=steps / 2,
        steps=steps,
        bits=bits,
        kind=scheme,
        unit=2 / steps,
        offset=-1,
    )


@torch.library.custom_op("tenfold::quantize_weight", mutates_args=())
def quantize_weight(weight: Tensor, bits: int, scheme: str, per_channel: bool, clamp: bool) -> Tensor:
    """Quantize a weight tensor.

    With `clamp`, DoReFa's normalization: t = tanh(W) / max|tanh W|, then 2 q_b((t + 1) / 2) - 1, in [-1, 1].
    Without it, the same grid on t = W / max|W|, multiplied by max|W|: the scale of the weight stays.

    Source: `sat.md` section 2.1. The gradient flows through the maximum, to its first arg-max only.

    Args:
        weight: (C_out, …), any float dtype.
        bits: 1 to 8; 32 leaves out the rounding.
        scheme: one of `schemes.SCHEMES`.
        per_channel: one maximum per output channel instead of one per tensor.
        clamp: whether tanh clamps the weights (the papers' way).

    Returns:
        float32 tensor of the weight's shape.
    """
    values = squash(weight) if clamp else dense(weight).clone()
    peak = weight_peak(values, per_channel)
    if bits == FLOAT_BITS:
        return values.div_(peak) if clamp else values
    steps = num_steps(bits, check_scheme(scheme))
    if not per_channel and native.serves(values):
        quantized = _round_natively(values, values, steps / (2 * peak), bits, scheme)
        return quantized if clamp else quantized.mul_(peak)
    scaled = values.mul_(steps / (2 * peak)).add_(steps / 2)
    quantized = round_to_levels_(scaled, bits, check_scheme(scheme)).mul_(2 / steps).sub_(1)
    return quantized if clamp else quantized.mul_(peak)


@quantize_weight.register_fake
def _(weight: Tensor, bits: int, scheme: str, per_channel: bool, clamp: bool) -> Tensor:
    return torch.empty_like(weight, dtype=torch.float32)


@torch.library.custom_op("tenfold::quantize_weight_backward", mutates_args=())
def quantize_weight_backward(gradient: Tensor, weight: Tensor, per_channel: bool) -> Tensor:
    """Gradient of `quantize_weight` with clamp: straight through the rounding, exact through tanh and the maximum.

    With t = tanh W and M = max|t| at m: (1 - t^2) (g / M - [m] sign(t_m) <g, t> / M^2).
    """
    tanh = squash(weight)
    gradient = laid_out_as(tanh, gradient)
    if not per_channel and native.serves(tanh, gradient):
        return _weight_backward_natively(gradient, tanh)
    result = torch.ops.aten.tanh_backward(gradient, tanh)
    values, gradients, results = (_rows(tensor, per_channel) for tensor in (tanh, gradient, result))
    peak = _peak(values)
    results.div_(peak)
    # One element a row is corrected: the larger one of the ends, found without a pass over magnitudes.
    highest, lowest = values.argmax(1, keepdim=True), values.argmin(1, keepdim=True)
    position = torch.where(values.gather(1, highest) == peak, highest, lowest)
    at_peak = values.gather(1, position)
    inner = torch.linalg.vecdot(gradients, values).unsqueeze(1)
    correction = (1 - at_peak.square()) * at_peak.sign() * inner / peak.square()
    results.scatter_add_(1, position, -correction)
    return result


@quantize_weight_backward.register_fake
def _(gradient: Tensor, weight: Tensor, per_channel: bool) -> Tensor:
    return torch.empty_like(weight, dtype=torch.float32)


def _keep_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, *options = inputs
    _, _, ctx.per_channel, ctx.clamp = options
    recomputable(output, lambda weight: quantize_weight(weight, *options), weight)
    ctx.dtype = weight.dtype
    if ctx.clamp:
        ctx.save_for_backward(weight)


def _weight_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.clamp:
        gradient = quantize_weight_backward(gradient, *ctx.saved_tensors, ctx.per_channel)
    return gradient.to(ctx.dtype), None, None, None, None


quantize_weight.register_autograd(_weight_gradient, setup_context=_keep_weight)


@torch.library.custom_op("tenfold::round_weight", mutates_args=())
def round_weight(normalized: Tensor, bits: int, scheme: str) -> Tensor:
    """The second half of `quantize_weight`, for a weight that is normalized already: 2 q_b((t + 1) / 2) - 1.

    The gradient goes straight through.

    Args:
        normalized: in [-1, 1], any shape, float32.
        bits: 1 to 8; 32 changes nothing.
        scheme: one of `schemes.SCHEMES`.
    """
    if bits == FLOAT_BITS:
        return normalized.clone()
    steps = num_steps(bits, check_scheme(scheme))
    if native.serves(normalized):
        return _round_natively(normalized, torch.empty_like(normalized), steps / 2, bits, scheme)
    scaled = normalized.mul(steps / 2).add_(steps / 2)
    return round_to_levels_(scaled, bits, check_scheme(scheme)).mul_(2 / steps).sub_(1)


@round_weight.register_fake
def _(normalized: Tensor, bits: int, scheme: str) -> Tensor:
    return torch.empty_like(normalized)


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    normalized, *options = inputs
    recomputable(output, lambda normalized: round_weight(normalized, *options), normalized)


round_weight.register_autograd(lambda _, gradient: (gradient, None, None), setup_context=_keep_nothing)


@torch.library.custom_op("tenfold::standard_deviation", mutates_args=())
def standard_deviation(values: Tensor) -> Tensor:
    """The standard deviation of all numbers of a tensor, 0-d, with Bessel's correction; 0 of one number."""
    count = values.numel()
    if not native.serves(values):
        return values.std(correction=min(1, count - 1))
    first, second = native.moments(values)
    return values.new_tensor(max(0.0, (second - first * first / count) / (count - 1)) ** 0.5)


@standard_deviation.register_fake
def _(values: Tensor) -> Tensor:
    return values.new_empty(())


@torch.library.custom_op("tenfold::quantize_activation", mutates_args=())
def quantize_activation(
    input: Tensor, alpha: Tensor, bits: int, scheme: str, two_sided: bool, calibrated: bool
) -> Tensor:
    """Clip an activation tensor at a learnable level A = |alpha| and quantize it (PACT).

    One-sided: A q_b(c / A) with c = clip(x, 0, A). Two-sided: A (2 q_b((c / A + 1) / 2) - 1) with c = clip(x, -A, A).

    Source: `sat.md` section 2.3. The gradient for the level is the calibrated one of CG-PACT, or the original of PACT.

    Args:
        input: any shape, any float dtype.
        alpha: 0-d clipping level, in units of the input; its sign does not matter.
        bits: 1 to 8; 32 clips without rounding.
        scheme: "original" in every paper; the others for completeness.
        two_sided: whether negative values are kept.
        calibrated: CG-PACT's gradient, which knows the rounding error below the level, or PACT's, which does not.

    Returns:
        float32 tensor of the input's shape.
    """
    level = clipping_level(alpha)
    steps = 1 if bits == FLOAT_BITS else num_steps(bits, check_scheme(scheme))
    if native.serves(input):
        return native.affine_round(
            input,
            torch.empty_like(input),
            scale=float(steps / (2 * level) if two_sided else steps / level),
            shift=steps / 2 if two_sided else 0.0,
            steps=steps,
            bits=min(bits, 8),
            kind="none" if bits == FLOAT_BITS else check_scheme(scheme),
            unit=float(2 * level / steps if two_sided else level / steps),
            offset=-float(level) if two_sided else 0.0,
        )
    if two_sided:
        scaled = input.float().mul(steps / (2 * level)).add_(steps / 2).clamp_(0, steps)
    else:
        scaled = input.float().mul(steps / level).clamp_(0, steps)
    if bits != FLOAT_BITS:
        round_to_levels_(scaled, bits, check_scheme(scheme))
    return scaled.mul_(2 * level / steps).sub_(level) if two_sided else scaled.mul_(level / steps)


@quantize_activation.register_fake
def _(input: Tensor, alpha: Tensor, bits: int, scheme: str, two_sided: bool, calibrated: bool) -> Tensor:
    return torch.empty_like(input, dtype=torch.float32)


@torch.library.custom_op("tenfold::quantize_activation_backward", mutates_args=())
def quantize_activation_backward(
    gradient: Tensor, input: Tensor, output: Tensor, alpha: Tensor, two_sided: bool, calibrated: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `quantize_activation` for the input and for alpha.

    The gradient for the level, sum g dy/dA with dy/dA = (y - x) / A inside the range and y / A outside of it (CG-PACT;
    for PACT y is the clipped input), is (<g, y> - <gx, x>) / A with gx the masked gradient: two inner products.
    """
    level = clipping_level(alpha)
    gradient = laid_out_as(input, gradient)
    if native.serves(input, gradient, output):
        top = float(level)
        masked, outer, inner = native.clip_backward(
            gradient, input, output, low=-top if two_sided else 0.0, high=top, calibrated=calibrated
        )
        slope = level.new_tensor((outer - inner) / top)
        return masked, torch.where(alpha < 0, -slope, slope)
    values = input.float()
    masked = mask_outside(gradient, values, level, two_sided)
    reference = output if calibrated else torch.clamp(values, -level if two_sided else torch.zeros_like(level), level)
    slope = (inner_product(gradient, reference) - inner_product(masked, values)) / level
    return masked, torch.where(alpha < 0, -slope, slope)


@quantize_activation_backward.register_fake
def _(
    gradient: Tensor, input: Tensor, output: Tensor, alpha: Tensor, two_sided: bool, calibrated: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(input, dtype=torch.float32), torch.empty_like(alpha, dtype=torch.float32)


def clipping_level(alpha: Tensor) -> Tensor:
    """A = |alpha|, kept away from zero, without gradient."""
    return alpha.detach().float().abs().clamp_min(MINIMUM_CLIPPING_LEVEL)


def mask_outside(gradient: Tensor, values: Tensor, level: Tensor, two_sided: bool) -> Tensor:
    """The gradient where a value lies strictly inside the clipping range, else 0."""
    if values.is_cpu:  # one fused pass; elsewhere reading the level would make the device wait
        top = float(level)
        return torch.ops.aten.hardtanh_backward(gradient, values, -top if two_sided else 0.0, top)
    return torch.where((values > (-level if two_sided else 0)) & (values < level), gradient, 0)


def inner_product(first: Tensor, second: Tensor) -> Tensor:
    """<first, second>, 0-d, in float32."""
    return (first * second).sum()


def _keep_activation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, alpha, *options = inputs
    _, _, ctx.two_sided, ctx.calibrated = options
    recomputable(output, lambda input, alpha: quantize_activation(input, alpha, *options), input, alpha)
    ctx.save_for_backward(input, output, alpha)


def _activation_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    input, output, alpha = ctx.saved_tensors
    gradient_input, gradient_alpha = quantize_activation_backward(
        gradient, input, output, alpha, ctx.two_sided, ctx.calibrated
    )
    return gradient_input.to(input.dtype), gradient_alpha.to(alpha.dtype), None, None, None, None


quantize_activation.register_autograd(_activation_gradient, setup_context=_keep_activation)
