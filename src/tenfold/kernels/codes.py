"""Integer codes in one pass over memory, and the gradient of a quantizer that kept codes; with their PyTorch twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.kernels.blocks import each_block, sum_blocks
from tenfold.kernels.library import native, required
from tenfold.kernels.quantization import serves

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Rounding:
    """How numbers become codes: `stretch * level(clamp(x * scale + shift, 0, steps)) + start`, within 0 to 255.

    Attributes:
        scale: see the formula.
        shift: see the formula.
        steps: the highest number before rounding.
        top: the highest level.
        floors: levels are cut down to, not rounded half to even.
        stretch: see the formula.
        start: see the formula.
    """

    scale: float
    shift: float
    steps: float
    top: int
    floors: bool = False
    stretch: int = 1
    start: int = 0


def encode(values: Tensor, rounding: Rounding) -> tuple[Tensor, bool]:
    """Numbers as codes.

    Args:
        values: float32, any shape, dense in one order.
        rounding: the formula.

    Returns:
        uint8, in the order of `values`; and whether a number was NaN, whose code means nothing.
    """
    how = rounding
    if not serves(values):
        scaled = values.mul(how.scale).add_(how.shift).clamp_(0, how.steps)
        level = scaled.floor_().clamp_(0, how.top) if how.floors else scaled.round_()
        is_broken = bool(level.isnan().any())
        if is_broken:
            level.nan_to_num_(0)
        return level.mul_(how.stretch).add_(how.start).to(torch.uint8), is_broken
    library, codes = required(), torch.empty_like(values, dtype=torch.uint8)
    source, target = values.data_ptr(), codes.data_ptr()
    options = (how.scale, how.shift, how.steps, float(how.top), how.floors, how.stretch, how.start)

    def work(start: int, length: int) -> int:
        return int(library.encode(source + _FLOAT_BYTES * start, target + start, length, *options))

    return codes, any(each_block(values.numel(), work))


def code_sums(codes: Tensor, middle: int) -> tuple[int, int]:
    """The sum of `codes - middle`, and that of its squares, exactly.

    Args:
        codes: uint8, dense in one order.
        middle: 0 to 255.
    """
    if native() is None:
        centred = codes.double() - middle
        return int(centred.sum()), int(centred.square().sum())
    library, source = required(), codes.data_ptr()

    def work(start: int, length: int, sums: Any) -> None:
        library.code_sums(source + start, length, middle, sums)

    total, squares = sum_blocks(codes.numel(), 2, work)
    return int(total), int(squares)


def decode_backward(
    gradient: Tensor,
    values: Tensor,
    codes: Tensor,
    *,
    factor: float,
    unit: float,
    offset: float,
    low: float,
    high: float,
    calibrated: bool,
) -> tuple[Tensor, float, float]:
    """As `quantization.clip_backward`, for an output kept as codes: the masked gradient and two inner products.

    Args:
        gradient: float32 or bfloat16, to be multiplied by `factor`.
        values: the input of the quantizer, float32.
        codes: its output as uint8, which stands for `unit * code + offset`.
        factor: see above.
        unit: see above.
        offset: see above.
        low: lower end of the range, excluded.
        high: upper end of the range, excluded.
        calibrated: whether the first product is with the output, or with the clipped values.

    Returns:
        The gradient masked, float32; the product of the whole one with the output; of the masked one with `values`.
    """
    if gradient.stride() != values.stride():
        gradient = torch.empty_like(values, dtype=gradient.dtype).copy_(gradient)
    if not (serves(values) and gradient.dtype in (torch.float32, torch.bfloat16)):
        whole = gradient.float() * factor
        masked = torch.where((values <= low) | (values >= high), 0, whole)
        reference = codes.float().mul_(unit).add_(offset) if calibrated else values.clamp(low, high)
        return masked, float((whole * reference).sum()), float((masked * values).sum())
    library, masked = required(), torch.empty_like(values)
    is_bfloat16 = gradient.dtype == torch.bfloat16
    options = (factor, unit, offset, low, high, calibrated)
    places = (gradient.data_ptr(), values.data_ptr(), codes.data_ptr(), masked.data_ptr())

    def work(start: int, length: int, sums: Any) -> None:
        library.decode_backward(
            places[0] + gradient.element_size() * start,
            is_bfloat16,
            places[1] + _FLOAT_BYTES * start,
            places[2] + start,
            places[3] + _FLOAT_BYTES * start,
            length,
            *options,
            sums,
        )

    outer, inner = sum_blocks(values.numel(), 2, work)
    return masked, outer, inner
