"""Line charts as inline SVG: no script, no request, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenfold.train.report.markup import Html, join, tag

# The drawing is scaled to its column; at 520 units the text stays readable on a phone.
_WIDTH, _HEIGHT = 520.0, 264.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 78.0, 14.0, 36.0


_RAMP = 6


def ramp(at: int, count: int) -> str:
    """The style of one of several lines that have an order, such as bit-widths: from the first to the last colour.

    Example:
        >>> [ramp(at, 3) for at in range(3)]
        ['line-r0', 'line-r2', 'line-r5']
    """
    return f"line-r{round(at * (_RAMP - 1) / max(1, count - 1))}"


@dataclass(frozen=True)
class Line:
    """One curve: its label, a style class (`line-a` ...), and its points.

    The label names the curve in tooltips; `end` is what stands at the curve's end, None for the label itself.
    """

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    end: str | None = None


@dataclass(frozen=True)
class Band:
    """What lies between two curves, drawn behind all lines: a style class, and (x, low, high)."""

    style: str
    points: Sequence[tuple[float, float, float]]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    spell: Callable[[float], str],
    level: tuple[str, float] | None = None,
    bands: Sequence[Band] = (),
    covers: Sequence[float] = (),
) -> Html:
    """A chart of one or more curves over a common horizontal axis.

    Points that are not finite break a curve, they are never drawn as zero.

    Args:
        lines: the curves; labels are drawn at their right ends, moved apart where they would touch.
        title: read aloud by screen readers.
        x_label: what the horizontal axis counts.
        spell: how a value of the vertical axis is written.
        level: a horizontal line with a name, such as the accuracy of the float network.
        bands: areas behind the curves, such as where half of them run.
        covers: values that the vertical axis shows in any case, so that little changes do not fill the drawing.
    """
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    finite += [(x, y) for band in bands for x, *edges in band.points for y in edges if math.isfinite(y)]
    if not finite:
        return tag("p", "No finite value was recorded.", class_="quiet")
    heights = [y for _, y in finite] + ([level[1]] if level else []) + list(covers)
    plot = _Plot([x for x, _ in finite], heights)
    parts = [tag("title", title), plot.rules(spell), plot.counted(), plot.named(x_label)]
    ends: list[tuple[float, str, str]] = []
    if level:
        y = plot.down(level[1])
        parts.append(tag("line", x1=_LEFT, x2=plot.right, y1=y, y2=y, class_="level"))
        ends.append((y, level[0], "label-level"))
    parts.extend(_area(band, plot) for band in bands)
    for line in lines:
        parts.append(_curve(line, plot, x_label, spell))
        drawn = [y for _, y in line.points if math.isfinite(y)]
        label = line.label if line.end is None else line.end
        if drawn and label:
            ends.append((plot.down(drawn[-1]), label, f"label-{line.style}"))
    for y, label, style in _apart(ends):
        parts.append(tag("text", label, x=plot.right + 8, y=y + 4, class_=f"end {style}"))
    return _drawing(parts)


def trade_chart(
    points: Sequence[tuple[str, float, float]],
    *,
    title: str,
    x_label: str,
    spell_x: Callable[[float], str],
    spell: Callable[[float], str],
) -> Html:
    """What is got for what is paid: labelled points, joined in the order of their cost.

    Args:
        points: (label, cost, worth); points without a cost above zero or without a finite worth are left out.
        title: read aloud by screen readers.
        x_label: what is paid. The axis is logarithmic: half the cost is one step, wherever it begins.
        spell_x: how a cost is written.
        spell: how a worth is written.
    """
    known = sorted((x, y, label) for label, x, y in points if math.isfinite(x) and x > 0 and math.isfinite(y))
    if not known:
        return tag("p", "No finite value was recorded.", class_="quiet")
    # Labels stand at the points, not at the right end.
    plot = _Plot([math.log(x) for x, _, _ in known], [y for _, y, _ in known], inset=30.0, right=_WIDTH - 14.0)
    places = [(plot.across(math.log(x)), plot.down(y)) for x, y, _ in known]
    path = "".join(f"{'L' if idx else 'M'}{x:.1f} {y:.1f}" for idx, (x, y) in enumerate(places))
    parts = [tag("title", title), plot.rules(spell), plot.named(f"{x_label}, logarithmic")]
    parts.append(tag("path", d=path, class_="curve line-a thin"))
    free = -math.inf
    for (x, y), (cost, worth, label) in zip(places, known, strict=True):
        hint = tag("title", f"{label}: {spell(worth)} at {spell_x(cost)}")
        parts.append(tag("circle", hint, cx=x, cy=y, r=5.5, class_="dot line-a"))
        # Above the point, unless that would leave the drawing.
        above = y - 12 if y > _TOP + 20 else y + 24
        parts.append(tag("text", label, x=x, y=above, class_="end at-point label-line-a", text_anchor="middle"))
        if x - free > 66:
            parts.append(plot.below(spell_x(cost), x))
            free = x
    return _drawing(parts)


class _Plot:
    """The plane of a chart: where a value lies in the drawing."""

    def __init__(
        self, across: Sequence[float], heights: Sequence[float], inset: float = 0.0, right: float = _WIDTH - _RIGHT
    ) -> None:
        self.ticks = nice_ticks(min(heights), max(heights))
        self.low, self.high = min(self.ticks[0], *heights), max(self.ticks[-1], *heights)
        self.first, self.last = min(across), max(across)
        self.right = right
        self._left, self._right = _LEFT + inset, right - inset

    def across(self, x: float) -> float:
        return self._left + (x - self.first) / ((self.last - self.first) or 1) * (self._right - self._left)

    def down(self, y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - self.low) / ((self.high - self.low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    def rules(self, spell: Callable[[float], str]) -> Html:
        """The horizontal lines with their values."""
        parts = []
        for tick in self.ticks:
            y = self.down(tick)
            parts.append(tag("line", x1=_LEFT, x2=self.right, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", spell(tick), x=_LEFT - 8, y=y + 4, class_="tick", text_anchor="end"))
        return join(*parts)

    def counted(self) -> Html:
        """The values of the horizontal axis: the ends, and round values where they do not touch the ends."""
        longest = max(len(_plainly(end)) for end in (self.first, self.last))
        margin = max(0.08, 10 * longest / (self._right - self._left)) * (self.last - self.first)
        between = {
            tick
            for tick in nice_ticks(self.first, self.last, 5)
            if self.first + margin < tick < self.last - margin and tick == int(tick)
        }
        return join(
            *(self.below(_plainly(tick), self.across(tick)) for tick in sorted({self.first, self.last} | between))
        )

    def below(self, text: str, x: float) -> Html:
        return tag("text", text, x=x, y=_HEIGHT - _BOTTOM + 17, class_="tick", text_anchor="middle")

    def named(self, x_label: str) -> Html:
        middle = (_LEFT + self.right) / 2
        return tag("text", x_label, x=middle, y=_HEIGHT - 2, class_="tick axis-name", text_anchor="middle")


def nice_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round values that cover a range: steps of 1, 2, 2.5 or 5 times a power of ten.

    Example:
        >>> nice_ticks(0.13, 0.87)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low <= max(1e-9 * abs(high), 1e-30):  # one value, but for what rounding left of it
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / target
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(start, stop + 1)]


def _drawing(parts: Sequence[Html]) -> Html:
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", class_="chart")


def _plainly(value: float) -> str:
    # Steps are counted in hundred thousands, which "g" would write with an exponent.
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def _curve(line: Line, plot: _Plot, x_label: str, spell: Callable[[float], str]) -> Html:
    path, pen_down = "", False
    for x, y in line.points:
        if not math.isfinite(y):
            pen_down = False
            continue
        path += f"{'L' if pen_down else 'M'}{plot.across(x):.1f} {plot.down(y):.1f}"
        pen_down = True
    # Invisible discs carry the values as tooltips; on long runs they would only make the file heavy.
    stride = max(1, len(line.points) // 60)
    dots = [
        tag(
            "circle",
            tag("title", f"{line.label}, {x_label} {x:g}: {spell(y)}"),
            cx=plot.across(x),
            cy=plot.down(y),
            r=3 if len(line.points) <= 16 else 5,
            class_=f"dot {line.style}" + ("" if len(line.points) <= 16 else " unseen"),
        )
        for x, y in line.points[::stride]
        if math.isfinite(y)
    ]
    return join(tag("path", d=path, class_=f"curve {line.style}"), *dots)


def _area(band: Band, plot: _Plot) -> Html:
    known = [(x, low, high) for x, low, high in band.points if math.isfinite(low) and math.isfinite(high)]
    there = [f"{plot.across(x):.1f} {plot.down(high):.1f}" for x, _, high in known]
    back = [f"{plot.across(x):.1f} {plot.down(low):.1f}" for x, low, _ in reversed(known)]
    return tag("path", d="M" + "L".join(there + back) + "Z" if known else "", class_=f"band {band.style}")


def _apart(ends: list[tuple[float, str, str]], gap: float = 18.0) -> list[tuple[float, str, str]]:
    """Move labels down until none covers the one above, then all up if the last one fell off the page."""
    placed: list[tuple[float, str, str]] = []
    for y, label, style in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, label, style))
    excess = max(0.0, placed[-1][0] - (_HEIGHT - _BOTTOM)) if placed else 0.0
    return [(y - excess, label, style) for y, label, style in placed]
