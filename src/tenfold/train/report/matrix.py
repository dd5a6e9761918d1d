"""A matrix of cosines as inline SVG: a cell a pair, the deeper the colour the more alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tenfold.train.report.markup import Html, tag

_SIDE, _MARGIN = 320.0, 30.0
_MOST_LABELS = 8


def matrix_chart(values: Sequence[Sequence[float]], *, title: str, name: str) -> Html:
    """A square matrix whose entries lie between -1 and 1; negative ones have the second colour.

    Args:
        values: rows from top to bottom.
        title: read aloud by screen readers.
        name: what rows and columns are, such as "block"; they are numbered from 0.
    """
    count = len(values)
    cell = (_SIDE - _MARGIN) / max(count, 1)
    parts = [tag("title", title)]
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if not math.isfinite(value):
                continue
            hint = tag("title", f"{name} {row} and {column}: {value:.3f}")
            parts.append(
                tag(
                    "rect",
                    hint,
                    x=_MARGIN + column * cell,
                    y=row * cell,
                    width=cell,
                    height=cell,
                    class_=f"dot {'line-a' if value >= 0 else 'line-b'}",
                    fill_opacity=min(1.0, abs(value)),
                )
            )
    for at in range(0, count, max(1, -(-count // _MOST_LABELS))):
        middle = (at + 0.5) * cell
        parts.append(tag("text", str(at), x=_MARGIN - 6, y=middle + 4, class_="tick", text_anchor="end"))
        parts.append(
            tag("text", str(at), x=_MARGIN + middle, y=_SIDE - _MARGIN + 17, class_="tick", text_anchor="middle")
        )
    parts.append(tag("text", name, x=(_MARGIN + _SIDE) / 2, y=_SIDE, class_="tick axis-name", text_anchor="middle"))
    return tag("svg", *parts, viewBox=f"0 0 {_SIDE:g} {_SIDE + 4:g}", role="img", class_="chart")
