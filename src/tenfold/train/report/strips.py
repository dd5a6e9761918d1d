"""Rows of discs along a common line at zero, as inline SVG: how far each of many values is from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.train.report.markup import Html, tag

# As large as the line charts, which it stands beside.
_WIDTH, _HEIGHT = 520.0, 264.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 126.0, 62.0, 14.0, 36.0
_RADIUS = 6.0


@dataclass(frozen=True)
class Strip:
    """One row: its name, its style class (`line-a` ...), and (hint, value, whether it is filled) of each disc."""

    label: str
    style: str
    discs: Sequence[tuple[str, float, bool]]


def strip_chart(strips: Sequence[Strip], *, title: str, low: str, high: str) -> Html:
    """A row of discs for each strip, each row at its own scale, with zero at the same place in all.

    Behind a row stands its largest value.

    Args:
        strips: the rows; values that are not finite are left out.
        title: read aloud by screen readers.
        low: what it means to be on the left of zero.
        high: what it means to be on the right.
    """
    known = [
        (strip, [(hint, value, filled) for hint, value, filled in strip.discs if math.isfinite(value)])
        for strip in strips
    ]
    known = [(strip, discs) for strip, discs in known if discs]
    if not known:
        return tag("p", "No finite value was recorded.", class_="quiet")
    furthest = [max(abs(value) for _, value, _ in discs) or 1.0 for _, discs in known]
    # Zero stands where the row that reaches furthest to the left still has room.
    reach = max(
        0.0, *(-value / most for (_, discs), most in zip(known, furthest, strict=True) for _, value, _ in discs)
    )
    zero = _LEFT + _RADIUS + (_WIDTH - _RIGHT - _LEFT - 2 * _RADIUS) * reach / (1 + reach)
    unit = (_WIDTH - _RIGHT - _LEFT - 2 * _RADIUS) / (1 + reach)
    height = (_HEIGHT - _TOP - _BOTTOM) / len(known)
    parts = [tag("title", title)]
    for at, ((strip, discs), most) in enumerate(zip(known, furthest, strict=True)):
        y = _TOP + (at + 0.5) * height
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", strip.label, x=_LEFT - 8, y=y + 5, class_="tick", text_anchor="end"))
        parts.extend(
            tag(
                "circle",
                tag("title", f"{hint}: {value:.3g}"),
                cx=zero + unit * value / most,
                cy=y,
                r=_RADIUS,
                class_=f"disc {strip.style}" + ("" if filled else " hollow"),
            )
            for hint, value, filled in sorted(discs, key=lambda disc: not disc[2])
        )
        largest = f"{max(value for _, value, _ in discs):.3g}".replace("-", "\N{MINUS SIGN}")
        parts.append(tag("text", largest, x=_WIDTH - _RIGHT + 8, y=y + 5, class_="tick"))
    parts.append(tag("line", x1=zero, x2=zero, y1=_TOP, y2=_HEIGHT - _BOTTOM + 4, class_="level"))
    below = _HEIGHT - _BOTTOM + 20
    parts.append(tag("text", "0", x=zero, y=below, class_="tick", text_anchor="middle"))
    parts.append(tag("text", low, x=zero - 16, y=below, class_="tick axis-name", text_anchor="end"))
    parts.append(tag("text", high, x=zero + 16, y=below, class_="tick axis-name"))
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", class_="chart")
