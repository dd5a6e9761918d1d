"""Numbers with a unit letter, read and written: 50M, 300k, "1.81 G"."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from tenfold.errors import UsageError

_POWERS = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12}
_AMOUNT = re.compile(r"(?P<number>[+-]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(?P<letter>[A-Za-z]*)")
_LARGEST = 10**30


def parse_amount(text: str) -> int | float:
    """Read a positive number that may end in k, M, G or T (powers of 1000), exactly.

    Args:
        text: such as "50M", "1.2e9", "300 k" or "8.5".

    Returns:
        An int where the amount is whole, else a float.

    Raises:
        UsageError: if the text is no such number, or not above zero, or beyond 1e30.

    Example:
        >>> parse_amount("1.2G"), parse_amount("8.5")
        (1200000000, 8.5)
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a number such as 50M, 300k, 1.2e9 or 8.5.")
    letter = match["letter"]
    if letter not in _POWERS:
        upper = letter.upper()
        near = f" Did you mean {match['number']}{upper}?" if upper in _POWERS else ""
        raise UsageError(f"{text!r} ends in an unknown unit {letter!r}; allowed are k, M, G and T.{near}")
    amount = Fraction(match["number"]) * 10 ** _POWERS[letter]
    if not 0 < amount <= _LARGEST:
        raise UsageError(f"{text!r} is out of range; an amount lies above 0 and is at most 1e30.")
    return int(amount) if amount.denominator == 1 else float(amount)


def write_amount(amount: int | float) -> str:
    """Write a positive number so that `parse_amount` gives it back exactly, with a letter where that is shorter.

    Example:
        >>> write_amount(50_000_000), write_amount(1_814_073_344), write_amount(1_200_000_000)
        ('50M', '1814073344', '1.2G')
    """
    if amount != int(amount):
        return repr(amount)
    amount = int(amount)
    plain = str(amount)
    forms = [plain]
    for letter in "kMGT":
        whole, rest = divmod(amount, 10 ** _POWERS[letter])
        if whole:
            forms.append(f"{whole}.{rest:0{_POWERS[letter]}d}".rstrip("0").rstrip(".") + letter)
    # `plain` wins ties, and so a digit more or less never turns an exact count into a decimal for nothing.
    return min(forms, key=lambda form: (len(form), form != plain))


def format_amount(amount: float, unit: str = "", digits: int = 3) -> str:
    """Write a number for people: few digits and a unit letter, for tables.

    Args:
        amount: any finite number.
        unit: what is counted, set after the letter, such as "B".
        digits: significant digits, at least 1; whole numbers below 1000 are written in full.

    Example:
        >>> format_amount(1_814_073_344), format_amount(46_719_648, "B"), format_amount(512)
        ('1.81 G', '46.7 MB', '512')
    """
    letter, scaled = "", float(amount)
    for next_letter in "kMGT":
        # Round first: 999 999 is 1.00 M, not 1000 k.
        if float(f"{abs(scaled):.{digits}g}") < 1000:
            break
        letter, scaled = next_letter, scaled / 1000
    if not letter and scaled == int(scaled):
        text = str(int(scaled))
    else:
        whole_digits = 1 + math.floor(math.log10(abs(float(f"{scaled:.{digits}g}")))) if scaled else 1
        text = f"{scaled:.{max(0, digits - whole_digits)}f}"
    return f"{text} {letter}{unit}".strip()
