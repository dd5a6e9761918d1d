"""The product of a quantized input with a quantized weight, computed on integers.

A quantized tensor lies on a grid, so it is `unit * (code - zero + half)` with 8-bit codes, and so the product is one of
codes: exact in 32 bits (oneDNN, by PyTorch's own operators), and multiplied by both units at the end. `half` is 1/2 on
the grids of 8 bits that have no zero, which lie between the integers; their share is a sum over windows, or a map that
does not depend on the batch, and is added in float32.

What is kept for the backward pass are codes, a byte each. They are whole numbers, or halves, of 8 bits, and so exact in
bfloat16: a backward pass in bfloat16 rounds the incoming gradient and the results, and no factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.kernels.codes import Rounding, decode_backward, encode
from tenfold.quant.coded_weight import CodedWeight
from tenfold.quant.operators import clipping_level, dense, quantize_weight_backward
from tenfold.quant.schemes import Scheme, num_steps
from tenfold.recomputation import recomputable

_MIDDLE = 128
"""The code of zero, where an input may be negative."""
_ops = torch.ops.onednn


@dataclass(frozen=True)
class InputGrid:
    """How an activation is quantized, and what its codes mean: `unit * (code - zero + half)`.

    Attributes:
        rounding: from numbers to codes.
        unit: see the formula.
        zero: see the formula.
        half: 0, or 1/2.
        low: lower end of the range inside which gradients pass.
        high: upper end.
        calibrated: CG-PACT's gradient for the level, or PACT's.
    """

    rounding: Rounding
    unit: float
    zero: int
    half: float
    low: float
    high: float
    calibrated: bool


def input_grid(alpha: Tensor, bits: int, scheme: Scheme, *, two_sided: bool, calibrated: bool) -> InputGrid:
    """The grid of `quantize_activation`, whose arithmetic the rounding repeats to the bit.

    Args:
        alpha: clipping level, 0-d.
        bits: 1 to 8.
        scheme: of the activation.
        two_sided: whether it may be negative.
        calibrated: see `InputGrid`.
    """
    level, steps = clipping_level(alpha), num_steps(bits, scheme)
    reach = 2 * level if two_sided else level
    middle = (steps / 2 if two_sided else 0.0) - (0.5 if scheme == "centered" else 0.0)
    unit, zero, half, stretch, start = float(reach / steps), _MIDDLE if two_sided else 0, 0.0, 1, 0
    if middle == int(middle):
        zero = int(middle)
    elif bits < 8:  # there is room for a grid twice as fine, which has a zero
        unit, stretch, start = unit / 2, 2, zero - int(2 * middle)
    else:
        half = zero - middle
    rounding = Rounding(
        scale=float(steps / reach),
        shift=steps / 2 if two_sided else 0.0,
        steps=steps,
        top=2**bits - 1,
        floors=scheme in ("modified", "centered"),
        stretch=stretch,
        start=start,
    )
    top = float(level)
    return InputGrid(rounding, unit, zero, half, -top if two_sided else 0.0, top, calibrated)


@dataclass(frozen=True)
class Window:
    """How a convolution moves over its input; `padding` is (top, left), and `before` what F.pad adds before it."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    before: tuple[int, ...] = ()


def integer_product(
    input: Tensor,
    alpha: Tensor,
    weight: CodedWeight,
    bias: Tensor | None,
    grid: InputGrid,
    window: Window | None,
    backward: torch.dtype,
) -> Tensor:
    """Quantize an input and multiply it with a quantized weight.

    Args:
        input: (B, C_in, H, W) for a convolution, (…, C_in) for a linear layer; on the CPU.
        alpha: the clipping level, 0-d, which gets its gradient.
        weight: its `source` gets the gradient.
        bias: (C_out,) or None.
        grid: of the input.
        window: of the convolution; None for a linear layer.
        backward: number format of the backward products, float32 or bfloat16.

    Returns:
        float32; NaN everywhere if the input has a NaN, or the weight is NaN.
    """
    output: Tensor = _IntegerProduct.apply(input, alpha, weight.source, bias, weight, grid, window, backward)
    return output


class _IntegerProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        alpha: Tensor,
        source: Tensor,
        bias: Tensor | None,
        weight: CodedWeight,
        grid: InputGrid,
        window: Window | None,
        backward: torch.dtype,
    ) -> Tensor:
        values = dense(input.detach())
        codes, is_broken = encode(values, grid.rounding)
        recomputable(codes, lambda values: encode(values, grid.rounding)[0], values)
        unit = weight.unit.masked_fill(weight.is_broken, float("nan"))
        input_unit = float("nan") if is_broken else grid.unit
        kept = source if weight.squashes else None  # a parameter
        ctx.save_for_backward(values, codes, weight.codes, alpha, kept)
        ctx.units, ctx.half = (weight.level_unit, weight.unit), weight.half
        ctx.grid, ctx.window, ctx.backward_dtype = grid, window, backward
        ctx.dtypes = input.dtype, source.dtype
        multiply = _linear if window is None else _convolution
        return multiply(codes, grid, input_unit, weight.codes, unit, weight.half, bias, window)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, codes, weight_codes, alpha, source = ctx.saved_tensors
        grid, window, dtype, (level_unit, unit), half = ctx.grid, ctx.window, ctx.backward_dtype, ctx.units, ctx.half
        needs_input, needs_alpha, needs_weight, needs_bias = ctx.needs_input_grad[:4]
        shared = unit.numel() == 1
        channels = (1, -1, 1, 1) if window is not None else (-1,)
        for_bias = None
        if needs_bias:
            for_bias = gradient.sum((0, 2, 3) if window is not None else tuple(range(gradient.dim() - 1)))
        scaled = (gradient if shared else gradient * unit.view(channels)).to(dtype)
        real_codes = codes.to(dtype)
        if grid.zero - grid.half:
            real_codes -= grid.zero - grid.half
        real_weight = weight_codes.to(dtype)
        if bool(half.any()):
            real_weight += half.view(-1, *[1] * (weight_codes.dim() - 1))
        needs = (needs_input or needs_alpha, needs_weight)
        if window is None:
            for_codes, for_weight = _linear_backward(scaled, real_codes, real_weight, needs)
        else:
            for_codes, for_weight = _convolution_backward(scaled, real_codes, real_weight, window, needs)
        for_input = for_alpha = None
        if for_codes is not None:
            for_input, outer, inner = decode_backward(
                for_codes,
                values,
                codes,
                factor=float(unit) if shared else 1.0,
                unit=grid.unit,
                offset=grid.unit * (grid.half - grid.zero),
                low=grid.low,
                high=grid.high,
                calibrated=grid.calibrated,
            )
            slope = (outer - inner) / grid.high
            for_alpha = torch.where(alpha < 0, -slope, slope).to(alpha.dtype)
            for_input = for_input.to(ctx.dtypes[0])
        if for_weight is not None:
            # The chain rule through the scale adjustment: its factor is unit / level_unit.
            factor = grid.unit * unit / level_unit
            factor = factor if shared else factor / unit
            # Of a gradient in bfloat16, float32 comes in one pass.
            for_weight = for_weight * factor.view(-1, *[1] * (weight_codes.dim() - 1))
            if source is not None:
                for_weight = quantize_weight_backward(for_weight, source, False)
            for_weight = for_weight.to(ctx.dtypes[1])
        return for_input, for_alpha, for_weight, for_bias, None, None, None, None


def _convolution(
    codes: Tensor,
    grid: InputGrid,
    input_unit: float,
    weight: Tensor,
    unit: Tensor,
    half: Tensor,
    bias: Tensor | None,
    window: Window | None,
) -> Tensor:
    assert window is not None
    if any(window.before):
        codes = F.pad(codes, window.before, value=grid.zero)
    stride, padding, dilation, groups = window.stride, window.padding, window.dilation, window.groups
    packed = _ops.qconv_prepack(
        weight, unit, input_unit, grid.zero, stride, padding, dilation, groups, list(codes.shape)
    )
    zeros = torch.zeros(len(unit), dtype=torch.int32)
    bias = None if bias is None else bias.detach().float()
    moves = (stride, padding, dilation, groups)
    output: Tensor = _ops.qconv_pointwise(
        codes, input_unit, grid.zero, packed, unit, zeros, bias, *moves, 1.0, 0, torch.float32, "none", [], ""
    )
    if bool(half.any()):
        sums = (codes.float() - grid.zero).unflatten(1, (groups, -1)).sum(2)
        ones = torch.ones(groups, 1, *weight.shape[2:])
        boxes = F.conv2d(sums, ones, None, *moves).repeat_interleave(len(weight) // groups, 1)
        output += boxes.mul_((input_unit * unit * half).view(1, -1, 1, 1))
    if grid.half:
        shift = half.view(-1, 1, 1, 1)
        ones = torch.ones(1, *codes.shape[1:])
        if any(window.before):
            left, right, top, bottom = window.before
            ones = F.pad(ones[..., top : ones.shape[-2] - bottom, left : ones.shape[-1] - right], window.before)
        added = F.conv2d(ones, weight.float() + shift, None, *moves)
        output += added.mul_((input_unit * grid.half * unit).view(1, -1, 1, 1))
    return output


def _linear(
    codes: Tensor,
    grid: InputGrid,
    input_unit: float,
    weight: Tensor,
    unit: Tensor,
    half: Tensor,
    bias: Tensor | None,
    _: Window | None,
) -> Tensor:
    rows = codes.reshape(-1, codes.shape[-1])
    packed = _ops.qlinear_prepack(weight, list(rows.shape))
    zeros = torch.zeros(len(unit), dtype=torch.int32)
    bias = None if bias is None else bias.detach().float()
    output: Tensor = _ops.qlinear_pointwise(
        rows, input_unit, grid.zero, packed, unit, zeros, bias, 1.0, 0, torch.float32, "none", [], ""
    )
    if bool(half.any()):
        sums = rows.sum(1, dtype=torch.float32) - rows.shape[1] * grid.zero
        output += sums.unsqueeze(1) * (input_unit * unit * half)
    if grid.half:
        sums = weight.sum(1, dtype=torch.float32) + weight.shape[1] * half
        output += input_unit * grid.half * unit * sums
    return output.view(*codes.shape[:-1], len(weight))


def _convolution_backward(
    gradient: Tensor, codes: Tensor, weight: Tensor, window: Window, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    if any(window.before):
        codes = F.pad(codes, window.before)
    moves = (window.stride, window.padding, window.dilation)
    for_codes, for_weight, _ = torch.ops.aten.convolution_backward(
        gradient, codes, weight, None, *moves, False, (0, 0), window.groups, (*needs, False)
    )
    if for_codes is not None and any(window.before):
        left, right, top, bottom = window.before
        for_codes = for_codes[..., top : for_codes.shape[-2] - bottom, left : for_codes.shape[-1] - right]
    return for_codes, for_weight


def _linear_backward(
    gradient: Tensor, codes: Tensor, weight: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    rows = gradient.reshape(-1, gradient.shape[-1])
    for_codes = (rows @ weight).view(codes.shape) if needs[0] else None
    for_weight = rows.T @ codes.reshape(-1, codes.shape[-1]) if needs[1] else None
    return for_codes, for_weight
