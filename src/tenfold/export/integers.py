"""The integers that go into a file: how they are stored, and how a runtime's 8-bit kernels want them.

Source: `sat.md` section 8. Weights arrive as integers with zero point 0: two's complement for the scheme "modified",
odd integers (up to 9 bits) for "original" and "centered", whose levels do not contain zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

INT8_TOP = 127
UINT8_TOP = 255
INT16_TOP = 32767
"""Where x86 kernels without VNNI saturate the sum of two 8-bit products."""
BIAS_TOP = 2.0**30
"""Half of int32, so that a bias and the sum of the products fit together."""

_WHOLE = 1e-4
"""How far from a whole number a zero point may be, relative to a step."""
_SIGNED = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}
UNSIGNED = {2: ml_dtypes.uint2, 4: ml_dtypes.uint4, 8: np.uint8}


def is_whole(number: float) -> bool:
    """Whether a number may serve as a zero point."""
    return bool(abs(number - np.rint(number)) < _WHOLE)


@dataclass(frozen=True)
class ActivationGrid:
    """The grid of a quantized activation: offset + step * c with c = clip(round((x + shift) / step), 0, top).

    One-sided PACT has no shift and no offset; two-sided PACT has shift = A and offset = -A, so that zero is no level,
    save on the grid "symmetric".

    Attributes:
        step: distance of neighbouring levels, in units of the activation.
        shift: what is added before rounding.
        offset: the value of code 0.
        top: largest code, 2^bits - 1.
    """

    step: float
    shift: float
    offset: float
    top: int

    @property
    def zero(self) -> int | None:
        """The code of the value 0, if values are just rounded to multiples of the step: then it is a zero point."""
        code = -self.offset / self.step
        return int(np.rint(code)) if is_whole(code) and self.shift == -self.offset else None

    def code(self, value: float) -> int:
        """The code of one value, infinities included."""
        return int(np.clip(np.rint((value + self.shift) / self.step), 0, self.top))


@dataclass(frozen=True)
class Storage:
    """Codes in the smallest ONNX type that holds them: code = factor * (stored - middle).

    Attributes:
        stored: an array of a 2-, 4- or 8-bit integer type.
        middle: 0, or the half-integer zero point of a grid without zero.
        factor: 1, or 2 where `middle` is a half-integer.
        bits: width of the type.
    """

    stored: NDArray[Any]
    middle: float
    factor: int
    bits: int


def store(codes: NDArray[np.int16]) -> Storage:
    """Find the smallest type for integer codes.

    Odd codes 2c - (2^b - 1) become the b-bit codes c with the zero point (2^b - 1) / 2, where that is smaller.

    Example:
        >>> store(np.array([-7, 7, 5], np.int16)).stored.dtype.name
        'int4'
        >>> odd = store(np.array([-15, 15, 1], np.int16))
        >>> odd.stored.dtype.name, odd.middle, odd.stored.astype(int).tolist()
        ('uint4', 7.5, [0, 15, 8])
    """
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    peak = max(-low, high)
    odd = bool(np.all(codes & 1))
    for bits in (2, 4, 8):
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return Storage(codes.astype(_SIGNED[bits]), 0.0, 1, bits)
        if odd and peak < 2**bits:
            top = 2**bits - 1
            return Storage(((codes + top) // 2).astype(UNSIGNED[bits]), top / 2, 2, bits)
    raise ValueError(f"codes from {low} to {high} fit no integer type of 8 bits")


@dataclass(frozen=True)
class GroupedStorage:
    """The kernels of a weight by their bits, each group in the smallest ONNX type that holds it.

    Attributes:
        groups: what is stored; the rows of all groups are numbered through.
        rows: for each kernel the number of its row, (C_out,); 0 for kernels of 0 bits, which are not stored.
        factor: what each kernel's codes are multiplied by, (C_out,); 0 for kernels of 0 bits.
    """

    groups: list[Storage]
    rows: NDArray[Any]
    factor: NDArray[np.float64]

    @property
    def size_bytes(self) -> int:
        """What codes and numbers of rows take in a file."""
        return sum(-(-group.stored.size * group.bits // 8) for group in self.groups) + self.rows.nbytes


def store_by_kernel(codes: NDArray[np.int16], bits: Sequence[int]) -> GroupedStorage:
    """Store each kernel of a weight in a type of its own size.

    Args:
        codes: (C_out, …).
        bits: of each kernel, 0 to 8; the codes of a kernel of 0 bits are 0.

    Example:
        >>> found = store_by_kernel(np.array([[7, -8], [0, 0], [90, -3], [1, 3]], np.int16), (4, 0, 8, 3))
        >>> [group.stored.astype(int).tolist() for group in found.groups]
        [[[7, -8], [1, 3]], [[90, -3]]]
        >>> found.rows.tolist(), found.factor.tolist()
        ([0, 0, 2, 1], [1.0, 0.0, 1.0, 1.0])
    """
    widths = np.array([0, *_SIGNED])[np.searchsorted([0, *_SIGNED], bits)]
    rows, factor, groups, count = np.zeros(len(codes), np.int64), np.zeros(len(codes)), [], 0
    for width in sorted(set(widths) - {0}):
        members = np.flatnonzero(widths == width)
        groups.append(store(codes[members]))
        rows[members], factor[members] = count + np.arange(len(members)), groups[-1].factor
        count += len(members)
    return GroupedStorage(groups, rows.astype(np.min_scalar_type(max(count - 1, 0))), factor)


@dataclass(frozen=True)
class KernelWeight:
    """A weight for 8-bit kernels: int8, one scale per output channel.

    Attributes:
        codes: int8, shape of the weight.
        scale: float32 (C_out,), above 0.
        exact: bool (C_out,); False where the codes had to be rounded to fit.
        saturates: whether kernels without VNNI may saturate.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    exact: NDArray[np.bool_]
    saturates: bool


def kernel_weight(
    codes: NDArray[np.int16],
    scale: NDArray[np.float64],
    *,
    input_top: int,
    input_step: float,
    bias: NDArray[np.float64],
    any_cpu: bool,
    pairs: bool = True,
) -> KernelWeight:
    """Bring a weight into the form that the 8-bit kernels of runtimes want.

    The codes of each channel are multiplied by the largest integer that keeps them in int8 (its scale is divided by
    it): the same values, but the step of the int32 bias, which is weight step times input step, becomes finer. Where
    even the codes themselves do not fit, they are rounded to a coarser grid of that channel.

    Args:
        codes: zero point 0, (C_out, …).
        scale: units of the codes, (C_out,); may be negative or 0, because a batch-norm factor is part of it.
        input_top: largest value of the unsigned 8-bit input.
        input_step: its scale.
        bias: (C_out,), real numbers; a channel's step is kept large enough for its bias to fit into int32.
        any_cpu: keep the sum of two products within 16 bits, so that CPUs without VNNI compute the same.
        pairs: whether kernels add products in pairs; those for depthwise convolutions do not.
    """
    rows = codes.reshape(len(codes), -1).astype(np.int64) * np.where(scale < 0, -1, 1)[:, None]
    # A negative factor turns a -128 into a 128. One weight less by one step is better than a whole channel rounded.
    overflows = rows.max(axis=1) == INT8_TOP + 1
    rows = np.minimum(rows, np.where(overflows, INT8_TOP, np.iinfo(np.int64).max)[:, None])
    scale = np.abs(scale)
    room = np.minimum(INT8_TOP / np.maximum(rows.max(axis=1), 1), (INT8_TOP + 1) / np.maximum(-rows.min(axis=1), 1))
    if pairs:
        pair = np.maximum(np.maximum(_largest_pair(rows), _largest_pair(-rows)), 1)
        # Staying within 16 bits costs nothing while it takes no more than a smaller multiplier. Else weights must be
        # rounded, which may make each one larger by one.
        exact_room, rounded_room = INT16_TOP / (pair * input_top), (INT16_TOP // input_top - 2) / pair
        safe = np.where(exact_room >= 1, exact_room, rounded_room)
        room = np.where(any_cpu | (exact_room >= 1), np.minimum(room, safe), room)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        room = np.minimum(room, np.where(bias == 0, np.inf, BIAS_TOP * input_step * scale / np.abs(bias)))
    multiplier = np.where(room >= 1, np.floor(room), room)
    dead = (scale < np.finfo(np.float32).tiny) | (multiplier < np.finfo(np.float32).tiny)
    multiplier = np.where(dead, 0, multiplier)
    exact = np.asarray(multiplier == np.floor(multiplier)) & ~overflows & ~dead
    integers = _round_keeping_sums(rows * multiplier[:, None])
    # A channel that is all bias: any step will do that its bias fits.
    step_for_bias = np.maximum(np.abs(bias) / (BIAS_TOP * input_step), np.finfo(np.float32).tiny * 2**20)
    unit = np.where(dead, step_for_bias, scale / np.where(dead, 1, multiplier))
    largest = np.maximum(_largest_pair(integers), _largest_pair(-integers)) * input_top
    return KernelWeight(
        codes=integers.astype(np.int8).reshape(codes.shape),
        scale=unit.astype(np.float32),
        exact=exact | dead,
        saturates=bool(pairs and (largest > INT16_TOP).any()),
    )


def _largest_pair(rows: NDArray[Any]) -> NDArray[Any]:
    """The largest sum of two positive entries of each row: kernels pair them in an order we need not know."""
    positive = np.maximum(rows, 0)
    if positive.shape[1] < 2:
        return positive[:, 0]
    return np.partition(positive, -2, axis=1)[:, -2:].sum(axis=1)


def _round_keeping_sums(rows: NDArray[Any]) -> NDArray[Any]:
    """Round to integers so that the sum of each row stays, to within one half.

    Activations after a ReLU have a large mean, so what the sum of a kernel loses comes out as a constant error.
    The few entries that are rounded the other way are those nearest to the middle.
    """
    rounded = np.rint(rows)
    missing = np.rint((rows - rounded).sum(axis=1)).astype(int)
    for row in np.flatnonzero(missing):
        sign = np.sign(missing[row])
        gain = (rows[row] - rounded[row]) * sign
        gain[np.argsort(np.abs(rows[row]))[-2:]] = -1  # the largest stay, so that the bounds hold
        rounded[row, np.argsort(gain)[-abs(missing[row]) :]] += sign
    return rounded
