"""The ways to put a real number in [0, 1] on a grid of 2^b levels.

Source: SAT (arXiv 1912.10207), AdaBits (arXiv 1912.09666) and their public code; `sat.md` section 2.

    original   round((2^b - 1) u) / (2^b - 1)                  DoReFa: both ends are levels
    modified   min(floor(2^b u), 2^b - 1) / 2^b                codes nest: dropping low bits gives the lower precision
    centered   (min(floor(2^b u), 2^b - 1) + 1/2) / 2^b        as modified, with zero mean
    symmetric  round((2^b - 2) u) / (2^b - 2)                  ours: original with one level less, so that zero is a
                                                               level and weight codes fit b signed bits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from tenfold.errors import UnknownNameError, UsageError

Scheme = Literal["original", "modified", "centered", "symmetric"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
FLOAT_BITS = 32
"""The bit-width that stands for "not quantized"."""
Bits: TypeAlias = int | tuple[int, ...]
"""Bits of a tensor: one integer, or one for each of its channels (kernels of a weight, channels of an input)."""


@dataclass(frozen=True)
class Grid:
    """The levels of a quantizer: `unit * k` for k in `range(low, high + 1, step)`, with zero point 0.

    Attributes:
        unit: distance between neighbouring integers k, as a share of the full range [-1, 1] or [0, 1].
        low: smallest integer.
        high: largest integer.
        step: 2 where only every second integer is a level (grids that do not contain zero), else 1.
    """

    unit: float
    low: int
    high: int
    step: int


def widest(bits: Bits) -> int:
    """The largest of the bits."""
    return bits if isinstance(bits, int) else max(bits)


def narrowest(bits: Bits) -> int:
    """The smallest of the bits."""
    return bits if isinstance(bits, int) else min(bits)


def check_bits(bits: Bits, what: str) -> Bits:
    """Return `bits` if it is 1 to 8, or 32 for "not quantized"; or a tuple with 0 to 8 for each channel.

    Raises:
        UsageError: for any other value.
    """
    if isinstance(bits, tuple) and bits and all(type(one) is int and 0 <= one <= 8 for one in bits):
        return bits
    if isinstance(bits, bool) or not isinstance(bits, int) or not (1 <= bits <= 8 or bits == FLOAT_BITS):
        raise UsageError(f"{what} must be 1 to 8 bits, or {FLOAT_BITS} for no quantization; got {bits!r}.")
    return bits


def check_scheme(scheme: str, bits: int = FLOAT_BITS) -> Scheme:
    """Return `scheme` if it is known, and has levels at this many bits.

    Args:
        scheme: its name.
        bits: the fewest that it shall have, 0 included.

    Raises:
        UnknownNameError: if it is not known.
        UsageError: for one bit with "symmetric", which would have zero as its only level.
    """
    if scheme not in SCHEMES:
        raise UnknownNameError("quantization scheme", scheme, SCHEMES)
    if scheme == "symmetric" and bits < 2:
        raise UsageError('the scheme "symmetric" needs at least 2 bits; take "original" or "centered" for 1 bit.')
    return scheme


def num_steps(bits: int, scheme: Scheme) -> int:
    """The denominator of a scheme: 2^b - 1 for original, 2^b - 2 for symmetric, 2^b for the other two."""
    return 2**bits - {"original": 1, "symmetric": 2}.get(scheme, 0)


def round_to_levels_(scaled: Tensor, bits: int, scheme: Scheme) -> Tensor:
    """Round a tensor in place to the levels of a scheme, in units of 1 / `num_steps`.

    Args:
        scaled: u * num_steps(bits, scheme), any shape; u lies in [0, 1] up to float error.
        bits: 1 to 8.
        scheme: one of SCHEMES.

    Returns:
        `scaled`, holding 0 … 2^b - 1, plus 1/2 for centered.
    """
    if scheme in ("original", "symmetric"):
        return scaled.round_()
    scaled.floor_().clamp_(0, 2**bits - 1)
    return scaled.add_(0.5) if scheme == "centered" else scaled


def quantize_unit(unit: Tensor, bits: int, scheme: Scheme) -> Tensor:
    """q_b(u): the plain forward formula, for values in [0, 1] (no gradient of its own).

    Example:
        >>> import torch
        >>> quantize_unit(torch.tensor([0.0, 0.3, 1.0]), 2, "modified").tolist()
        [0.0, 0.25, 0.75]
    """
    steps = num_steps(bits, scheme)
    return round_to_levels_(unit * steps, bits, scheme) / steps


def signed_grid(bits: int, scheme: Scheme) -> Grid:
    """The levels of 2 q_b - 1 on [-1, 1] as integers with zero point 0 (`sat.md` section 8).

    Original and centered grids do not contain zero: their levels are the odd integers of a grid twice as fine.

    Example:
        >>> signed_grid(4, "modified")
        Grid(unit=0.125, low=-8, high=7, step=1)
    """
    if scheme == "symmetric":
        highest = 2 ** (bits - 1) - 1
        return Grid(1 / highest, -highest, highest, 1)
    if scheme == "modified":
        return Grid(2 / 2**bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 1)
    return Grid(1 / num_steps(bits, scheme), 1 - 2**bits, 2**bits - 1, 2)


def unsigned_grid(bits: int, scheme: Scheme) -> Grid:
    """The levels of q_b on [0, 1] as integers with zero point 0.

    Example:
        >>> unsigned_grid(2, "original").high
        3
    """
    if scheme == "centered":
        return Grid(0.5 / 2**bits, 1, 2 ** (bits + 1) - 1, 2)
    return Grid(1 / num_steps(bits, scheme), 0, min(num_steps(bits, scheme), 2**bits - 1), 1)
