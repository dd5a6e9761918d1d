"""Line charts as inline SVG: no script, no request, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenfold.train.report.markup import Html, join, tag

# The drawing is scaled to its column; at 520 units the text stays readable on a phone.
_WIDTH, _HEIGHT = 520.0, 264.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 78.0, 14.0, 36.0


@dataclass(frozen=True)
class Line:
    """One curve: its label (drawn at its end), a style class (`line-a` ...), and its points."""

    label: str
    style: str
    points: Sequence[tuple[float, float]]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    spell: Callable[[float], str],
    level: tuple[str, float] | None = None,
) -> Html:
    """A chart of one or more curves over a common horizontal axis.

    Points that are not finite break a curve, they are never drawn as zero.

    Args:
        lines: the curves; labels are drawn at their right ends, moved apart where they would touch.
        title: read aloud by screen readers.
        x_label: what the horizontal axis counts.
        spell: how a value of the vertical axis is written.
        level: a horizontal line with a name, such as the accuracy of the float network.
    """
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not finite:
        return tag("p", "No finite value was recorded.", class_="quiet")
    heights = [y for _, y in finite] + ([level[1]] if level else [])
    ticks = nice_ticks(min(heights), max(heights))
    low, high = min(ticks[0], min(heights)), max(ticks[-1], max(heights))
    first, last = min(x for x, _ in finite), max(x for x, _ in finite)

    def across(x: float) -> float:
        return _LEFT + (x - first) / ((last - first) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - low) / ((high - low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    right = _WIDTH - _RIGHT
    parts = [tag("title", title)]
    for tick in ticks:
        parts.append(tag("line", x1=_LEFT, x2=right, y1=down(tick), y2=down(tick), class_="grid"))
        parts.append(tag("text", spell(tick), x=_LEFT - 8, y=down(tick) + 4, class_="tick", text_anchor="end"))
    # The ends are always named; round values between them where they do not touch the ends.
    margin = 0.08 * (last - first)
    between = {t for t in nice_ticks(first, last, 5) if first + margin < t < last - margin and t == int(t)}
    for tick in sorted({first, last} | between):
        parts.append(
            tag("text", f"{tick:g}", x=across(tick), y=_HEIGHT - _BOTTOM + 17, class_="tick", text_anchor="middle")
        )
    parts.append(
        tag("text", x_label, x=(_LEFT + right) / 2, y=_HEIGHT - 2, class_="tick axis-name", text_anchor="middle")
    )
    ends: list[tuple[float, str, str]] = []
    if level:
        parts.append(tag("line", x1=_LEFT, x2=right, y1=down(level[1]), y2=down(level[1]), class_="level"))
        ends.append((down(level[1]), level[0], "label-level"))
    for line in lines:
        parts.append(_curve(line, across, down, x_label, spell))
        drawn = [(x, y) for x, y in line.points if math.isfinite(y)]
        if drawn:
            ends.append((down(drawn[-1][1]), line.label, f"label-{line.style}"))
    for y, label, style in _apart(ends):
        parts.append(tag("text", label, x=right + 8, y=y + 4, class_=f"end {style}"))
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", class_="chart")


def nice_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round values that cover a range: steps of 1, 2, 2.5 or 5 times a power of ten.

    Example:
        >>> nice_ticks(0.13, 0.87)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / target
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(start, stop + 1)]


def _curve(
    line: Line,
    across: Callable[[float], float],
    down: Callable[[float], float],
    x_label: str,
    spell: Callable[[float], str],
) -> Html:
    path, pen_down = "", False
    for x, y in line.points:
        if not math.isfinite(y):
            pen_down = False
            continue
        path += f"{'L' if pen_down else 'M'}{across(x):.1f} {down(y):.1f}"
        pen_down = True
    # Invisible discs carry the values as tooltips; on long runs they would only make the file heavy.
    stride = max(1, len(line.points) // 60)
    dots = [
        tag(
            "circle",
            tag("title", f"{line.label}, {x_label} {x:g}: {spell(y)}"),
            cx=across(x),
            cy=down(y),
            r=3 if len(line.points) <= 16 else 5,
            class_=f"dot {line.style}" + ("" if len(line.points) <= 16 else " unseen"),
        )
        for x, y in line.points[::stride]
        if math.isfinite(y)
    ]
    return join(tag("path", d=path, class_=f"curve {line.style}"), *dots)


def _apart(ends: list[tuple[float, str, str]], gap: float = 18.0) -> list[tuple[float, str, str]]:
    """Move labels down until none covers the one above, then all up if the last one fell off the page."""
    placed: list[tuple[float, str, str]] = []
    for y, label, style in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, label, style))
    excess = max(0.0, placed[-1][0] - (_HEIGHT - _BOTTOM)) if placed else 0.0
    return [(y - excess, label, style) for y, label, style in placed]
