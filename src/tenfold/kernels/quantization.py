"""Quantizers and their gradients in one pass over memory: the native functions on tensors.

All take float32 tensors on the CPU whose numbers lie without gaps and in one order; `serves` tells. The PyTorch twins
are in `quant/operators.py`, which asks `serves` first.
"""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.kernels.blocks import each_block, sum_blocks
from tenfold.kernels.library import native, required

KINDS = {"none": 0, "original": 1, "symmetric": 1, "modified": 2, "centered": 3}
"""How a scheme puts scaled numbers on levels; "none" leaves them."""

_BYTES = 4
_WORTHWHILE = 2048
"""Below, a call costs more than the passes that it saves."""


def serves(*tensors: Tensor, of_any_size: bool = False) -> bool:
    """Whether there is a native kernel for these tensors: float32, on the CPU, of one shape, dense in one order.

    Args:
        tensors: all that the kernel reads.
        of_any_size: small tensors, too, where calling the kernel takes longer than PyTorch's operators.
    """
    first = tensors[0]
    return (
        (of_any_size or first.numel() >= _WORTHWHILE)
        and native() is not None
        and all(one.is_cpu and one.dtype == torch.float32 and one.layout == torch.strided for one in tensors)
        and (first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last))
        and all(one.shape == first.shape and one.stride() == first.stride() for one in tensors[1:])
    )


def affine_round(
    values: Tensor,
    out: Tensor,
    *,
    scale: float,
    shift: float,
    steps: float,
    bits: int,
    kind: str,
    unit: float,
    offset: float,
) -> Tensor:
    """`out = unit * level(clamp(values * scale + shift, 0, steps)) + offset`; `out` may be `values`.

    Args:
        values: any shape.
        out: of the same shape and order.
        scale: see the formula.
        shift: see the formula.
        steps: the highest level, before rounding.
        bits: 1 to 8; the grids that cut down end at 2^bits - 1.
        kind: a key of `KINDS`.
        unit: see the formula.
        offset: see the formula.
    """
    library, source, target = required(), values.data_ptr(), out.data_ptr()
    options = (scale, shift, steps, float(2**bits - 1), KINDS[kind], unit, offset)

    def work(start: int, length: int) -> None:
        library.affine_round(source + _BYTES * start, target + _BYTES * start, length, *options)

    each_block(values.numel(), work)
    return out


class Interpolation(ctypes.Structure):
    """A quantizer between two grids: `unit (q_0(u) + share (q_1(u) - q_0(u))) + offset`, u in [0, 1].

    A grid with steps puts u on `level(u steps) / steps`, where grids that cut down end at the level `top`; one without
    steps is the constant `zero`. `u = clamp(values scale + shift, 0, 1)`.
    """

    _fields_: ClassVar = [
        ("scale", ctypes.c_float),
        ("shift", ctypes.c_float),
        ("steps", ctypes.c_float * 2),
        ("top", ctypes.c_float * 2),
        ("share", ctypes.c_float),
        ("zero", ctypes.c_float),
        ("unit", ctypes.c_float),
        ("offset", ctypes.c_float),
        ("kind", ctypes.c_int32),
    ]


def interpolate(values: Tensor, out: Tensor, options: Interpolation) -> Tensor:
    """Quantize between two grids; `out` may be `values`."""
    library, source, target = required(), values.data_ptr(), out.data_ptr()

    def work(start: int, length: int) -> None:
        library.interpolate(source + _BYTES * start, target + _BYTES * start, length, ctypes.byref(options))

    each_block(values.numel(), work)
    return out


def interpolate_slope(gradient: Tensor, values: Tensor, options: Interpolation) -> float:
    """`<gradient, q_1(u) - q_0(u)>`."""
    library, pointers = required(), [one.data_ptr() for one in (gradient, values)]

    def work(start: int, length: int, sums: Any) -> None:
        places = [one + _BYTES * start for one in pointers]
        library.interpolate_slope(*places, length, ctypes.byref(options), sums)

    (slope,) = sum_blocks(values.numel(), 1, work)
    return slope


def clip_backward(
    gradient: Tensor, values: Tensor, output: Tensor, *, low: float, high: float, calibrated: bool
) -> tuple[Tensor, float, float]:
    """The gradient inside a range, and two inner products.

    Returns:
        `gradient` where `low < values < high`, else 0; its inner product with `output`, or with the clipped values if
        not `calibrated`; that of the masked gradient with `values`.
    """
    library, masked = required(), torch.empty_like(values)
    pointers = [one.data_ptr() for one in (gradient, values, output, masked)]

    def work(start: int, length: int, sums: Any) -> None:
        places = [one + _BYTES * start for one in pointers]
        library.clip_backward(*places, length, low, high, calibrated, sums)

    outer, inner = sum_blocks(values.numel(), 2, work)
    return masked, outer, inner


def tanh(values: Tensor) -> Tensor:
    """Tanh to 3e-7, in a tenth of the time of PyTorch's, which is exact to half a unit in the last place."""
    library, out = required(), torch.empty_like(values)
    source, target = values.data_ptr(), out.data_ptr()

    def work(start: int, length: int) -> None:
        library.tanh(source + _BYTES * start, target + _BYTES * start, length)

    each_block(values.numel(), work)
    return out


def moments(values: Tensor) -> tuple[float, float]:
    """The sum of the numbers and of their squares."""
    library, source = required(), values.data_ptr()

    def work(start: int, length: int, sums: Any) -> None:
        library.moments(source + _BYTES * start, length, sums)

    first, second = sum_blocks(values.numel(), 2, work)
    return first, second


def tanh_backward(gradient: Tensor, tanh: Tensor, peak: float) -> tuple[Tensor, float]:
    """`gradient (1 - tanh^2) / peak`, and the inner product of gradient and tanh."""
    library, out = required(), torch.empty_like(tanh)
    pointers = [one.data_ptr() for one in (gradient, tanh, out)]

    def work(start: int, length: int, sums: Any) -> None:
        library.tanh_backward(*[one + _BYTES * start for one in pointers], length, peak, sums)

    (inner,) = sum_blocks(tanh.numel(), 1, work)
    return out, inner


def find(values: Tensor, wanted: float) -> int:
    """The first position, in the order of memory, that holds a number; -1 if none does."""
    return int(required().find(values.data_ptr(), values.numel(), wanted))
