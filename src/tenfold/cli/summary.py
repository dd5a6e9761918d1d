"""The end of a training on the screen: what it cost before, what it costs now, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def result_table(report: Mapping[str, Any]) -> Table:
    """Accuracy and cost, before and after, from a report's dictionary."""
    from rich.table import Table
    from rich.text import Text

    from tenfold.cost import format_amount
    from tenfold.train.report import facts, numbers

    table = Table(title=Text(facts.model_name(report), "bold"), title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for heading in ("Before", "After", ""):
        table.add_column(heading, justify="right", header_style="dim")
    start, final = facts.metric(report, "float"), facts.metric(report, "final")
    change = numbers.points(final - start)
    table.add_row(
        facts.metric_label(facts.main_metric(report)),
        numbers.percent(start),
        Text(numbers.percent(final), "bold"),
        Text("" if change == numbers.UNKNOWN else f"{change} points", "green" if final >= start - 0.01 else "yellow"),
    )
    for quantity, label in facts.COSTS:
        before, after = facts.cost(report, "before", quantity), facts.cost(report, "after", quantity)
        unit = "B" if quantity == "bytes" else ""
        smaller = Text(f"{numbers.times(before, after)} less", "green") if after < 0.998 * before else Text("")
        table.add_row(label, format_amount(before, unit), Text(format_amount(after, unit), "bold"), smaller)
    return table
