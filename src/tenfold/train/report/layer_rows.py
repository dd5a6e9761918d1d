"""Drawings with a column for each layer, from the first (left) to the last, one below the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tenfold.train.report import numbers
from tenfold.train.report.markup import Html, tag

DENSE = 60
"""With more layers than this, columns touch: on a phone the gaps alone would be wider than the page."""

_MOST_NUMBERED = 16
_MOST_VALUES = 8


def layer_rows(*rows: Html | None, count: int, title: str = "Layer") -> Html:
    """Rows of a column for each of `count` layers, above the layers' numbers."""
    style = "layer-rows dense" if count > DENSE else "layer-rows"
    return tag("div", *rows, _row(title, Html(""), _numbers(count), "axis"), class_=style)


def bits_row(
    title: str, chosen: Sequence[float], learned: Sequence[float], names: Sequence[str], style: str
) -> Html | None:
    """Bars for the bits in use, with a mark at those that were learned; float is a grey bar of full height.

    None if all of them are float or unknown.
    """
    if not any(value < 32 for value in chosen):
        return None
    top = max(8.0, *(value for value in chosen if value < 32), 0.0)
    slots = []
    for bits, wish, name in zip(chosen, learned, names, strict=True):
        bar = _column(bits / top, "fill-before" if bits >= 32 else style) if math.isfinite(bits) else None
        shown = math.isfinite(wish) and wish < 32
        mark = tag("div", class_="mark", style=f"bottom:{_percent(wish / top)}") if shown else None
        hint = f"{name}: {numbers.bit_word(bits)} bits" + (f", learned {wish:.2f}" if shown else "")
        slots.append(tag("div", bar, mark, class_="slot", title=hint))
    return _row(title, _scale({1.0: f"{top:g}", 0.5: f"{top / 2:g}"}), slots, "halved")


def shares_row(title: str, values: Sequence[float], names: Sequence[str]) -> Html | None:
    """Bars for each layer's part of a total; None if the total is not known."""
    known = [value if math.isfinite(value) else 0.0 for value in values]
    total = sum(known)
    if not total > 0:
        return None
    shares = [value / total for value in known]
    slots = [
        tag(
            "div",
            _column(share / max(shares), "fill-c"),
            class_="slot",
            title=f"{name}: {numbers.percent(share)}",
        )
        for share, name in zip(shares, names, strict=True)
    ]
    return _row(title, _scale({1.0: numbers.percent(max(shares), 0)}), slots)


def counts_row(title: str, counts: Sequence[Mapping[int, int]], names: Sequence[str]) -> Html | None:
    """A strip for each layer: the fuller the colour at a number of bits, the more kernels have so many."""
    used = [bits for layer in counts for bits in layer]
    if not used:
        return None
    low, high = min(used), max(used)
    step = 1 / (high - low + 1)
    slots = []
    for layer, name in zip(counts, names, strict=True):
        total = sum(layer.values())
        cells = [
            tag(
                "div",
                class_="cell",
                # The root keeps a single kernel of many visible.
                style=f"bottom:{_percent((bits - low) * step)};opacity:{0.1 + 0.9 * math.sqrt(number / total):.2f}",
            )
            for bits, number in sorted(layer.items())
        ]
        slots.append(tag("div", *cells, class_="slot", title=f"{name}: {counts_text(layer)}"))
    labels = {(bits - low + 0.5) * step: str(bits) for bits in range(low, high + 1)}
    return _row(title, _scale(labels), slots, "heat", style=f"--rows:{high - low + 1}")


def stacks_row(
    title: str,
    stacks: Sequence[Sequence[tuple[str, float]]],
    ghosts: Sequence[float],
    hints: Sequence[str],
    gone: Sequence[bool],
    labels: Mapping[float, str],
) -> Html:
    """Stacked bars, each before the ghost of what it was.

    Args:
        title: of the row.
        stacks: for each column, from below, styles and heights as parts of the row's height.
        ghosts: heights of the ghosts, likewise.
        hints: what a column says when it is pointed at.
        gone: columns of which nothing is left, which are crossed out.
        labels: of the scale, by their height.
    """
    slots = []
    for stack, ghost, hint, is_gone in zip(stacks, ghosts, hints, gone, strict=True):
        parts, bottom = [], 0.0
        for style, height in stack:
            if height > 0:
                drawn = max(0.015, height)  # a single atom of many stays visible
                parts.append(
                    tag("div", class_=f"part {style}", style=f"bottom:{_percent(bottom)};height:{_percent(drawn)}")
                )
                bottom += drawn
        behind = tag("div", class_="ghost", style=f"height:{_percent(ghost)}") if ghost > 0 else None
        cross = tag("span", "\N{MULTIPLICATION SIGN}", class_="cross") if is_gone else None
        slots.append(tag("div", behind, *parts, cross, class_="slot", title=hint))
    return _row(title, _scale(labels), slots, "halved tall")


def marks_row(title: str, styles: Sequence[str]) -> Html:
    """A mark of some style at some of the columns; none where the style is empty."""
    slots = [tag("div", tag("span", class_=style) if style else None, class_="slot") for style in styles]
    return _row(title, Html(""), slots, "marks")


def lattice_row(
    title: str,
    offered: Sequence[Sequence[float]],
    taken: Sequence[float],
    hints: Sequence[str],
    spell: Callable[[float], str],
    style: str,
    *,
    falls: bool = False,
) -> Html | None:
    """Cells for the values that a setting could have, the one it has in colour.

    None if no column has any, or all together have more than can be told apart.

    Args:
        title: of the row.
        offered: for each column the values that were possible.
        taken: for each column the one that was taken, or NaN.
        hints: what a column says when it is pointed at.
        spell: how a value is written.
        style: of the values that were taken.
        falls: the lowest cell is the largest value.
    """
    values = sorted({value for column in (*offered, taken) for value in column if math.isfinite(value)}, reverse=falls)
    if not 0 < len(values) <= _MOST_VALUES:
        return None
    slots = []
    for possible, one, hint in zip(offered, taken, hints, strict=True):
        cells = [
            tag(
                "div",
                class_=f"option {style if value == one else 'offered'}",
                style=f"bottom:{_percent(at / len(values))}",
            )
            for at, value in enumerate(values)
            if value == one or value in possible
        ]
        slots.append(tag("div", *cells, class_="slot", title=hint))
    labels = {(at + 0.5) / len(values): spell(value) for at, value in enumerate(values)}
    return _row(title, _scale(labels), slots, "lattice", style=f"--rows:{len(values)}")


def counts_text(counts: Mapping[int, int]) -> str:
    """How many kernels have how many bits.

    Example:
        >>> counts_text({2: 40, 3: 24}), counts_text({8: 1})
        ('40 at 2, 24 at 3', 'all at 8')
    """
    if len(counts) == 1:
        return f"all at {next(iter(counts))}"
    return ", ".join(f"{number} at {bits}" for bits, number in sorted(counts.items()))


def _row(title: str, scale: Html, slots: Sequence[Html], kind: str = "", style: str | None = None) -> Html:
    plane = tag("div", *slots, class_=f"plane {kind}".strip(), style=style)
    return tag("div", tag("span", title, class_="row-name"), scale or tag("div"), plane, class_="layer-row")


def _column(share: float, style: str) -> Html:
    return tag("div", class_=f"column {style}", style=f"height:{_percent(max(0.015, min(1.0, share)))}")


def _scale(labels: Mapping[float, str]) -> Html:
    return tag(
        "div",
        *(tag("span", label, style=f"bottom:{_percent(at)}") for at, label in labels.items()),
        class_="scale",
    )


def _numbers(count: int) -> list[Html]:
    # Where there is no room for all numbers, every tenth: the first always, and the last tells how many there are.
    stride = 1 if count <= _MOST_NUMBERED else 10 if count <= 100 else 50
    shown = {1, count, *(number for number in range(stride, count - stride // 2, stride))}
    return [
        tag("div", tag("span", str(number)) if number in shown else None, class_="slot")
        for number in range(1, count + 1)
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
