"""How learned bits moved during the search: a line for each layer, or where most layers are if they are many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from tenfold.train.report.charts import Band, Line, line_chart, ramp
from tenfold.train.report.found import Learned, Moment
from tenfold.train.report.markup import Html
from tenfold.train.report.parts import figure

_MOST_LINES = 10
_MOST_POINTS = 60
_EDGES = (10, 25, 50, 75, 90)


def bit_paths(outcome: Learned, title: str, bits: Callable[[Moment], Sequence[float]], colour: str) -> Html | None:
    """The bits of all layers over the steps; None if there are none, or all of them are float."""
    moments = _thinned(outcome.moments)
    if not any(value < 32 for moment in moments for value in bits(moment)):
        return None
    few = len(outcome.layers) <= _MOST_LINES
    lines, bands = (_each(outcome, moments, bits), []) if few else _fan(moments, bits, colour)
    drawing = line_chart(
        lines,
        title=f"{title} over the steps of the search",
        x_label="step",
        spell=lambda value: f"{value:.3g}",
        bands=bands,
        covers=(2.0, 8.0),
    )
    return figure(
        f"{title} of {'each layer' if few else f'{len(outcome.layers)} layers'}",
        drawing,
        "At the right: the numbers of the layers."
        if few
        else "Shaded: the middle half of the layers, and four fifths.",
    )


def _each(outcome: Learned, moments: Sequence[Moment], bits: Callable[[Moment], Sequence[float]]) -> list[Line]:
    """A line for each layer; those that end together share a label with their numbers."""
    paths = [[(moment.step, bits(moment)[at]) for moment in moments] for at in range(len(outcome.layers))]
    together: dict[float, list[int]] = {}
    for number, path in enumerate(paths, 1):
        last = next((y for _, y in reversed(path) if math.isfinite(y)), math.nan)
        if math.isfinite(last):
            together.setdefault(round(last, 1), []).append(number)
    ends = {numbers[0]: _spans(numbers) for numbers in together.values()}
    return [
        Line(f"{number} {layer.name}", f"{ramp(number - 1, len(paths))} layer", path, end=ends.get(number, ""))
        for number, (layer, path) in enumerate(zip(outcome.layers, paths, strict=True), 1)
    ]


def _fan(
    moments: Sequence[Moment], bits: Callable[[Moment], Sequence[float]], colour: str
) -> tuple[list[Line], list[Band]]:
    """The median, and the areas that hold the middle half and the middle four fifths of the layers."""
    edges = [(moment.step, _quantiles(bits(moment))) for moment in moments]
    outer = Band(f"band-{colour} outer", [(step, at[0], at[4]) for step, at in edges])
    inner = Band(f"band-{colour} inner", [(step, at[1], at[3]) for step, at in edges])
    return [Line("median", f"line-{colour}", [(step, at[2]) for step, at in edges])], [outer, inner]


def _quantiles(values: Sequence[float]) -> list[float]:
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return (known or [math.nan]) * len(_EDGES)
    hundredths = statistics.quantiles(known, n=100, method="inclusive")
    return [hundredths[edge - 1] for edge in _EDGES]


def _thinned(moments: Sequence[Moment]) -> list[Moment]:
    # Hundreds of epochs draw the same picture as sixty; the end, where bits are rounded, is kept whole.
    stride = math.ceil(len(moments) / _MOST_POINTS)
    return [*moments[:-2:stride], *moments[-2:]] if stride else []


def _spans(numbers: Sequence[int]) -> str:
    r"""Ascending numbers in few words.

    Example:
        >>> _spans([1, 2, 3, 6]) == "1\N{EN DASH}3, 6"
        True
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}\N{EN DASH}{run[-1]}" for run in runs)
