"""The section on a network with several bit-widths: how good it is at each, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold.train.report import facts, found, numbers
from tenfold.train.report.charts import Line, line_chart, ramp, trade_chart
from tenfold.train.report.facts import Report
from tenfold.train.report.found import Mixed, Setting
from tenfold.train.report.markup import Html, tag
from tenfold.train.report.outcome import is_drawable, shares_chart
from tenfold.train.report.parts import details, figure, section, table, table_row


def widths(report: Report) -> Html | None:
    """Accuracy and cost of every bit-width, as a table and as a drawing."""
    listed = found.settings(report)
    if not listed:
        return None
    metric = facts.metric_label(facts.main_metric(report))
    reference = found.widest(listed)
    head = [("Bits", ""), *((title, "num") for title in (metric, "Change", "BitOPs", "Share", "Size"))]
    rows = table(head, [_row(one, reference) for one in listed])
    drawing = figure(
        f"{metric} against BitOPs, a point for each bit-width",
        trade_chart(
            [(one.name, one.costs["bitops"], one.metric) for one in listed],
            title=f"{metric} of each bit-width against its BitOPs",
            x_label="BitOPs",
            spell_x=numbers.count,
            spell=lambda value: f"{100 * value:.3g} %",
        ),
    )
    note = tag(
        "p",
        f"One network, switched between {len(listed)} bit-widths after training. Changes (in points) and shares "
        f"are against {reference.label}.",
        class_="quiet",
    )
    mixed = found.mixed(report)
    parts = [note, tag("div", rows, drawing, *(_way(mixed) if mixed else ()), class_="charts compact")]
    if mixed:
        parts.append(details(f"Learned bits of all {len(mixed.layers)} layers at each width", _mixed_table(mixed)))
    return section("Bit-widths", *parts)


def _way(mixed: Mixed) -> list[Html]:
    """The mean weight bits of each width over the steps of the search, and its cost as a share of its limit."""

    def lines(values: Sequence[Sequence[float]]) -> list[Line]:
        count = len(mixed.widths)
        return [
            Line(
                found.width_label(width),
                ramp(at, count),
                [(step, row[at]) for step, row in zip(mixed.steps, values, strict=True)],
            )
            for at, width in enumerate(mixed.widths)
        ]

    bits, used = lines(mixed.w_bits), lines(mixed.used)
    if not is_drawable([*bits, *used]):
        return []
    of_bits = line_chart(
        bits, title="Mean weight bits of each width over the steps", x_label="step", spell=lambda value: f"{value:.3g}"
    )
    of_costs = shares_chart(used, "BitOPs of each width over the steps, as a share of its limit", "limit")
    return [
        figure("Mean weight bits during the search", of_bits, "The last point is after rounding."),
        figure("BitOPs during the search, of each width's limit", of_costs, "The limit is 100 %."),
    ]


def _mixed_table(mixed: Mixed) -> Html:
    """A row for each layer, weights and input at each width."""
    head = [("Layer", ""), *((f"{kind} at {width}", "num") for width in mixed.widths for kind in ("Weights", "Input"))]
    return table(
        head,
        [
            table_row([(name, ""), *((numbers.bit_word(bits), "num") for pair in pairs for bits in pair)])
            for name, pairs in mixed.layers
        ],
    )


def _row(one: Setting, reference: Setting) -> Html:
    return table_row(
        [
            (tag("b", one.name), ""),
            (tag("b", numbers.percent(one.metric)), "num"),
            ("" if one is reference else numbers.points(one.metric - reference.metric), "num"),
            (numbers.count(one.costs["bitops"]), "num"),
            ("" if one is reference else _share(one.costs["bitops"], reference.costs["bitops"]), "num"),
            (numbers.size(one.costs["bytes"]), "num"),
        ]
    )


def _share(part: float, total: float) -> str:
    return numbers.percent(part / total) if total > 0 else numbers.UNKNOWN
