"""How quantities are spelled for a reader: three digits and a unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tenfold.cost import format_amount

UNKNOWN = "\N{EN DASH}"
"""What stands in the place of a number that is not known."""

_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def count(value: float) -> str:
    """A count with a decimal prefix.

    Example:
        >>> count(300_774_272), count(950)
        ('301 M', '950')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return format_amount(value)


def size(value: float) -> str:
    """A number of bytes; 1 kB is 1000 bytes, as on every data sheet.

    Example:
        >>> size(272_474), size(12)
        ('272 kB', '12 B')
    """
    return format_amount(value, "B") if math.isfinite(value) else UNKNOWN


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction from 0 to 1 as a percentage.

    Example:
        >>> percent(0.9132)
        '91.3 %'
    """
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else UNKNOWN


def score(metric: str, value: float) -> str:
    """A metric as it is told: decibels for PSNR, else a percentage.

    Example:
        >>> score("top1", 0.9132), score("psnr_filled", 23.456)
        ('91.3 %', '23.46 dB')
    """
    if not metric.startswith("psnr"):
        return percent(value)
    return f"{value:.2f} dB" if math.isfinite(value) else UNKNOWN


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign.

    Example:
        >>> points(0.0042), points(0.0)
        ('+0.4', '±0.0')
    """
    if not math.isfinite(difference):
        return UNKNOWN
    value = round(100 * difference, 1)
    return f"{'+' if value > 0 else _MINUS if value < 0 else '±'}{abs(value):.1f}"


def times(before: float, after: float) -> str:
    r"""How many times smaller.

    Example:
        >>> times(300, 40) == "7.5\N{MULTIPLICATION SIGN}"
        True
    """
    if not after or not math.isfinite(before / after):
        return UNKNOWN
    return f"{_three_digits(before / after)}{_TIMES}"


def duration(seconds: float) -> str:
    """A time a person reads.

    Example:
        >>> duration(4.21), duration(75), duration(7384)
        ('4.2 s', '1 min 15 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 60:
        return f"{_three_digits(seconds) if seconds < 1 else f'{seconds:.1f}'} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def milliseconds(value: float, digits: int = 3) -> str:
    """A latency in milliseconds.

    Example:
        >>> milliseconds(2.0412)
        '2.04 ms'
    """
    return f"{format_amount(value, digits=digits)} ms" if math.isfinite(value) else UNKNOWN


def spelling(quantity: str) -> Callable[[float], str]:
    """How values of a quantity are written."""
    return {"bytes": size, "latency_ms": milliseconds}.get(quantity, count)


def side(kernel: float) -> str:
    r"""A kernel size as people write it.

    Example:
        >>> side(3) == "3\N{MULTIPLICATION SIGN}3"
        True
    """
    return f"{kernel:g}{_TIMES}{kernel:g}"


def bit_word(value: float) -> str:
    """A bit-width: whole, a mean of several, or float.

    Example:
        >>> bit_word(4.0), bit_word(3.471), bit_word(32)
        ('4', '3.47', 'float')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return "float" if value >= 32 else f"{value:g}" if value == int(value) else f"{value:.2f}"


def bit_range(values: Sequence[float], form: str = "{:g}") -> str:
    r"""The least and the most of several bit-widths, one number if they are the same.

    Example:
        >>> bit_range([3.0, 2.0, 8.0]) == "2\N{EN DASH}8", bit_range([2.714, 2.714], "{:.2f}")
        (True, '2.71')
    """
    if not values:
        return UNKNOWN
    ends = ["float" if value >= 32 else form.format(value) for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else "\N{EN DASH}".join(ends)


def bits_text(values: Sequence[float]) -> str:
    """A range of bit-widths with its unit.

    Example:
        >>> bits_text([4.0, 4.0]), bits_text([32.0])
        ('4 bits', 'float')
    """
    text = bit_range(values)
    return text if text in ("float", UNKNOWN) else f"{text} bits"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    text = f"{value:.{min(decimals, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
