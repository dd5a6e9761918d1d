"""How a search came out: whether its limits are kept, the facts in a few words, and how drawings stand beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from tenfold.train.report import facts, numbers
from tenfold.train.report.charts import Line, line_chart
from tenfold.train.report.markup import Html, join, tag
from tenfold.train.report.parts import badge, figure, limit_row, whole


def kept_badge(used: Mapping[str, float]) -> Html | None:
    """The verdict on the limits, from the parts of them that are used; None if none is known."""
    known = [share for share in used.values() if math.isfinite(share)]
    return badge(max(known) <= 1, "limit kept", "limit exceeded") if known else None


def limit_bars(limits: Mapping[str, float], used: Mapping[str, float]) -> Html | None:
    """A bar for each limit, and how much of it is used."""
    if not limits:
        return None
    rows = [
        limit_row(facts.LABELS[quantity], used[quantity] * limit, limit, numbers.spelling(quantity), digits=2)
        for quantity, limit in limits.items()
    ]
    return tag("div", *rows, class_="bars narrow")


def in_words(pairs: Iterable[tuple[str, str | Html]]) -> Html:
    """Facts with their names."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", said)) for name, said in pairs))


def beside_paths(bars: Html | None, words: Html, paths: Sequence[Html | None]) -> Html:
    """The outcome, and behind it the drawings of the way there."""
    # Two drawings stand in a row: the outcome takes a row of its own where the others fill theirs.
    pairs = sum(path is not None for path in paths) % 2 == 0
    first = figure("Outcome", tag("div", bars, words), style="wide" if pairs else None)
    return tag("div", first, *paths, class_="charts")


def part_of(left: int, first: int) -> str | Html:
    """How many are left of how many, and the share."""
    counted = f"{left} of {first}"
    return join(f"{counted} ", whole(f"({numbers.percent(left / first, 0)})")) if first else counted


def pair(left: int | str, first: int | str) -> Html:
    """What is left, and in grey what there was."""
    return join(tag("b", str(left)), tag("span", f" / {first}", class_="quiet"))


def key_entry(sample: Html, meaning: str) -> Html:
    """A sample and what it stands for, never parted at the end of a line."""
    return tag("span", sample, meaning, class_="whole")


def shares_chart(lines: Sequence[Line], title: str, level: str) -> Html:
    """Costs over the steps as shares of their limits, with a level at 1 under the name that it has."""
    return line_chart(
        lines,
        title=title,
        x_label="step",
        spell=lambda value: f"{100 * value:.4g} %",
        level=(level, 1.0),
        covers=(0.98, 1.02),
    )


def is_drawable(lines: Iterable[Line]) -> bool:
    """Whether any point of some curves is known."""
    return any(math.isfinite(y) for line in lines for _, y in line.points)
