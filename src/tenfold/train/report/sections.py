"""The parts of the page, one function each; a part whose numbers are absent is left out."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable

from tenfold.train.report import facts, found, numbers
from tenfold.train.report.charts import Line, line_chart, ramp
from tenfold.train.report.facts import Report
from tenfold.train.report.layer_rows import DENSE
from tenfold.train.report.markup import Html, join, tag
from tenfold.train.report.parts import (
    badge,
    bar,
    bar_row,
    details,
    figure,
    limit_row,
    section,
    swatch,
    table,
    verdict,
    whole,
)


def header(report: Report) -> Html:
    """What was trained, how, and for how long."""
    methods = facts.method_names(report)
    chips = [tag("span", name, class_="chip") for name in (facts.task_name(report), *methods) if name]
    seconds = facts.number(report.get("seconds"))
    small = [f"trained in {numbers.duration(seconds)}"] if math.isfinite(seconds) else []
    if report.get("seed") is not None:
        small.append(f"seed {report['seed']}")
    return tag(
        "header",
        tag("p", tag("span", "Tenfold", class_="brand"), " training report", class_="over"),
        tag("h1", facts.model_name(report)),
        tag("p", *chips, tag("span", " · ".join(small), class_="quiet"), class_="chips"),
    )


def headline(report: Report) -> Html:
    """The four numbers that a reader came for: accuracy, size, BitOPs, MACs."""
    cards, main = [], facts.main_metric(report)
    final, start = facts.metric(report, "final"), facts.metric(report, "float")
    widths, width = found.settings(report), found.counted(report)
    if math.isfinite(final):
        note = (
            tag("span", f"{numbers.points(final - start)} points", class_=verdict(final >= start - 0.01))
            if math.isfinite(start)
            else None
        )
        versus = (
            join(" against ", whole(numbers.score(main, start)), " in float")
            if math.isfinite(start)
            else Html("on the evaluation images")
        )
        label = facts.metric_label(main) + (f", mean of {len(widths)} widths" if widths else "")
        cards.append(_card(label, numbers.score(main, final), note, versus))
    for quantity, label in facts.COSTS[:3]:
        before, after = facts.cost(report, "before", quantity), facts.cost(report, "after", quantity)
        if not math.isfinite(after):
            continue
        spelled = numbers.spelling(quantity)
        smaller = math.isfinite(before) and before > after
        note = tag("span", f"{numbers.times(before, after)} less", class_="good") if smaller else None
        versus = (
            join(" than ", whole(spelled(before))) if smaller else Html("unchanged" if math.isfinite(before) else "")
        )
        at_width = f" at {width.label}" if width and quantity != "macs" else ""
        cards.append(_card(label + at_width, spelled(after), note, versus))
    return tag("section", *cards, class_="cards")


def budget(report: Report) -> Html | None:
    """Each limit as a bar: how much of it the network uses."""
    asked = facts.budget_asked(report)
    if not asked:
        return None
    lines, kept = [], True
    for quantity, limit in asked.items():
        measured = quantity == "latency_ms"  # not counted, and so not among the costs
        got = facts.number(report.get(quantity)) if measured else facts.cost(report, "after", quantity)
        spelled = numbers.spelling(quantity)
        label = facts.LABELS.get(quantity, facts.metric_label(quantity))
        kept = kept and not got > limit  # what was not measured exceeds nothing
        lines.append(limit_row(label, got, limit, spelled))
    return section(join("Budget ", badge(kept, "kept", "exceeded")), tag("div", *lines, class_="bars"))


def cost(report: Report) -> Html | None:
    """Before and after, each quantity on its own scale."""
    lines: list[Html] = []
    for quantity, label in facts.COSTS:
        before, after = facts.cost(report, "before", quantity), facts.cost(report, "after", quantity)
        if not (math.isfinite(before) and math.isfinite(after)):
            continue
        spelled, largest = numbers.spelling(quantity), max(before, after) or 1.0
        lines.append(
            tag(
                "div",
                tag("span", label, class_="bar-name"),
                tag(
                    "div",
                    bar(before / largest, "fill-before", f"before: {spelled(before)}"),
                    bar(after / largest, "fill-after", f"after: {spelled(after)}"),
                    class_="pair",
                ),
                tag("span", tag("span", spelled(before), class_="quiet"), tag("b", spelled(after)), class_="bar-value"),
                tag("span", _change(before, after), class_="bar-share"),
                class_="bar-row",
            )
        )
    if not lines:
        return None
    width = found.counted(report)
    after_what = f"after, for one {facts.counted_for(report)}{f' at {width.label}' if width else ''}"
    key = tag("p", swatch("fill-before"), "before ", swatch("fill-after"), after_what, class_="quiet key")
    return section("Cost before and after", key, tag("div", *lines, class_="bars"))


def curves(report: Report) -> Html | None:
    """Loss and accuracy over the epochs, and how long the processor waited for data."""
    epochs = facts.rows(report.get("curves"))
    if not epochs:
        return None
    name = facts.main_metric(report)

    def line(key: str, label: str, style: str) -> Line:
        points = [
            (facts.number(row.get("epoch", at + 1)), facts.number(row[key]))
            for at, row in enumerate(epochs)
            if key in row  # not every epoch need be evaluated
        ]
        return Line(label, style, [(x, y) for x, y in points if math.isfinite(x)])

    widths = found.widths_of(epochs, name)
    # A training at several widths adds up their losses.
    trained = "train, sum" if len(widths) > 1 else "train"
    losses = [line("train_loss", trained, "line-b"), line("eval_loss", "eval", "line-a")]
    metrics = [
        line(f"{name}/{width}", found.width_label(width), ramp(at, len(widths))) for at, width in enumerate(widths)
    ] or [line(name, facts.metric_label(name), "line-a")]
    start = facts.metric(report, "float")
    charts = [
        figure(
            "Loss",
            line_chart(
                [one for one in losses if any(math.isfinite(y) for _, y in one.points)],
                title="Loss over the epochs",
                x_label="epoch",
                spell=lambda value: f"{value:.3g}",
            ),
        ),
        figure(
            f"{facts.metric_label(name)} at each bit-width" if widths else facts.metric_label(name),
            line_chart(
                metrics,
                title=f"{facts.metric_label(name)} over the epochs",
                x_label="epoch",
                spell=lambda value: f"{100 * value:.3g} %",
                level=("float", start) if math.isfinite(start) else None,
            ),
        ),
    ]
    spent = sum(value for value in (facts.number(row.get("seconds")) for row in epochs) if math.isfinite(value))
    waited = sum(value for value in (facts.number(row.get("data_seconds")) for row in epochs) if math.isfinite(value))
    note = None
    if spent > 0:
        note = tag(
            "p",
            f"{len(epochs)} epochs, {numbers.duration(spent / len(epochs))} each; "
            f"{numbers.percent(waited / spent)} of the time was spent waiting for data.",
            class_="quiet",
        )
    return section("Learning curves", tag("div", *charts, class_="charts"), note)


def layers(report: Report) -> Html | None:
    """Bit-widths and share of the cost, layer by layer: a drawing, and the numbers behind it."""
    listed = facts.rows(report.get("layers"))
    # What multiplies nothing, such as a norm that will be folded away, has no bits worth drawing.
    listed = [row for row in listed if facts.number(row.get("macs")) > 0] or listed
    if not listed:
        return None
    quantity = "bitops" if any(facts.number(row.get("bitops")) > 0 for row in listed) else "macs"
    work = [max(0.0, _zero(facts.number(row.get(quantity)))) for row in listed]
    weight = [max(0.0, _zero(facts.number(row.get("bytes")))) for row in listed]
    drawing = tag(
        "div",
        _skyline(
            "Weight bits", [facts.bits(row.get("w_bits")) for row in listed], listed, "fill-after", numbers.bit_word
        ),
        _skyline("Input bits", [facts.bits(row.get("a_bits")) for row in listed], listed, "fill-b", numbers.bit_word),
        _skyline(f"{'BitOPs' if quantity == 'bitops' else 'MACs'}", work, listed, "fill-c", numbers.count),
        _skyline("Size", weight, listed, "fill-c", numbers.size),
        class_="skylines dense" if len(listed) > DENSE else "skylines",
    )
    note = tag(
        "p", "From the first layer (left) to the last. Float layers reach the top of the bit scale.", class_="quiet"
    )
    head = [("Layer", ""), ("Kind", ""), *((title, "num") for title in ("W", "A", "MACs", "BitOPs", "Size"))]
    body = [
        tag(
            "tr",
            tag("td", str(row.get("name", "")), class_="mono"),
            tag("td", str(row.get("kind", ""))),
            tag("td", numbers.bit_word(facts.bits(row.get("w_bits"))), class_="num"),
            tag("td", numbers.bit_word(facts.bits(row.get("a_bits"))), class_="num"),
            *(
                tag("td", numbers.spelling(key)(facts.number(row.get(key))), class_="num")
                for key in ("macs", "bitops", "bytes")
            ),
        )
        for row in listed
    ]
    return section("Layers", note, drawing, details(f"All {len(listed)} layers in numbers", table(head, body)))


def exports(report: Report) -> Html | None:
    """The exported files and how faithful they are."""
    listed = facts.rows(report.get("exports"))
    if not listed:
        return None
    columns: dict[str, tuple[str, Callable[[object], str]]] = {
        "file": ("File", str),
        "profile": ("Profile", str),
        "bytes": ("Size", lambda value: numbers.size(facts.number(value))),
        "predicted_bytes": ("Predicted", lambda value: numbers.size(facts.number(value))),
        "worst_steps": ("Worst error, steps", lambda value: f"{facts.number(value):.2f}"),
        "top1_agreement": ("Same answer", lambda value: numbers.percent(facts.number(value))),
        "top1": ("Top-1", lambda value: numbers.percent(facts.number(value))),
    }
    return section("Exported files", _plain_table(listed, columns))


def bench(report: Report) -> Html | None:
    """Latency of the exported files, side by side."""
    listed = [row for row in facts.rows(report.get("bench")) if math.isfinite(facts.number(row.get("median_ms")))]
    if not listed:
        return None
    times = [facts.number(row["median_ms"]) for row in listed]
    lines = [
        bar_row(
            facts.name_of(row.get("file")) + (f" · {row['engine']}" if row.get("engine") else ""),
            f"{numbers.milliseconds(time)}{_spread(row)}",
            numbers.times(times[0], time),
            time / (max(times) or 1.0),
            "fill-after" if idx else "fill-before",
        )
        for idx, (row, time) in enumerate(zip(listed, times, strict=True))
    ]
    note = tag(
        "p",
        "Median of interleaved runs; shorter is faster. The first is what the others are compared with.",
        class_="quiet",
    )
    return section("Speed in the runtime", note, tag("div", *lines, class_="bars wide-names"))


def repeat(report: Report) -> Html | None:
    """The exact command."""
    command = report.get("command")
    if not command:
        return None
    text = command if isinstance(command, str) else shlex.join(str(word) for word in command)
    return section("Repeat it", tag("pre", tag("code", text)))


def environment(report: Report) -> Html | None:
    """Machine, versions, and by what quantized layers were computed."""
    pairs = [
        (str(key).replace("_", " "), _sentence(value))
        for part in ("machine", "versions")
        for key, value in facts.table(report.get(part)).items()
        if value not in (None, "", [], {})
    ]
    if engine := facts.engine(report):
        pairs.append(("quantized layers", engine))
    if not pairs:
        return None
    entries = [tag("div", tag("dt", key), tag("dd", value)) for key, value in pairs]
    return section("Made with", tag("dl", *entries))


def _change(before: float, after: float) -> str:
    # Quantizers bring a clipping level a layer, which is no change worth a number.
    return "same" if abs(before - after) <= 0.002 * before else numbers.times(before, after)


def _card(label: str, value: str, note: Html | None, versus: Html) -> Html:
    return tag(
        "div",
        tag("span", label, class_="card-label"),
        tag("span", value, class_="card-value"),
        tag("span", note, versus, class_="card-note"),
        class_="card",
    )


def _skyline(
    title: str, values: list[float], listed: Iterable[facts.Report], style: str, spell: Callable[[float], str]
) -> Html:
    in_bits = spell is numbers.bit_word
    top = max((value for value in values if value < 32), default=8.0) if in_bits else max(values, default=1)
    top = max(top, 8.0) if in_bits else top or 1.0
    columns = [
        tag(
            "div",
            class_=f"column {'fill-before' if in_bits and value >= 32 else style}",
            style=f"height:{max(1.5, 100 * min(1.0, value / top)):.1f}%",
            title=f"{row.get('name', '')}: {spell(value)}{' bits' if in_bits and value < 32 else ''}",
        )
        for value, row in zip(values, listed, strict=True)
    ]
    return tag(
        "div",
        tag("span", title, class_="sky-name"),
        tag("span", "8" if in_bits and top == 8 else spell(top), class_="sky-top"),
        tag("div", *columns, class_="sky"),
        class_="sky-row",
    )


def _plain_table(listed: Iterable[facts.Report], columns: dict[str, tuple[str, Callable[[object], str]]]) -> Html:
    listed = list(listed)
    used = {key: column for key, column in columns.items() if any(row.get(key) is not None for row in listed)}
    body = [
        tag(
            "tr",
            *(
                tag(
                    "td",
                    spell(row[key]) if row.get(key) is not None else numbers.UNKNOWN,
                    class_="mono" if key == "file" else "" if spell is str else "num",
                )
                for key, (_, spell) in used.items()
            ),
        )
        for row in listed
    ]
    return table([(title, "" if spell is str else "num") for title, spell in used.values()], body)


def _spread(row: facts.Report) -> str:
    spread = facts.number(row.get("spread_ms"))
    return f" ± {numbers.milliseconds(spread, digits=2)}" if math.isfinite(spread) else ""


def _sentence(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)


def _zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
