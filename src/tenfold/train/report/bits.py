"""The section on learned bits: how the limit was kept, which bits each layer ended with, and the way there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tenfold.train.report import facts, found, numbers
from tenfold.train.report.bit_paths import bit_paths
from tenfold.train.report.charts import Line
from tenfold.train.report.facts import Report
from tenfold.train.report.found import Learned, mean
from tenfold.train.report.layer_rows import bits_row, counts_row, counts_text, layer_rows, shares_row
from tenfold.train.report.markup import Html, join, tag
from tenfold.train.report.outcome import beside_paths, in_words, is_drawable, kept_badge, limit_bars, shares_chart
from tenfold.train.report.parts import details, figure, section, swatch, table, table_row


def learned_bits(report: Report) -> Html | None:
    """What FracBits found out."""
    outcome = found.learned(report)
    if outcome is None:
        return None
    heading = join("Learned bits ", kept_badge(outcome.used)) if outcome.limits else "Learned bits"
    if not outcome.layers:
        return section(heading, limit_bars(outcome.limits, outcome.used))
    paths = [
        _cost_path(outcome),
        bit_paths(outcome, "Weight bits", lambda moment: moment.w_bits, "a"),
        bit_paths(outcome, "Input bits", lambda moment: moment.a_bits, "b"),
    ]
    return section(
        heading,
        beside_paths(limit_bars(outcome.limits, outcome.used), _words(outcome), paths),
        _rows(outcome),
        details(f"Learned and rounded bits of all {len(outcome.layers)} layers", _table(outcome)),
    )


def _words(outcome: Learned) -> Html:
    """The outcome in a few words."""
    pairs = [
        ("Weights", _summary([(layer.w_bits, layer.weights) for layer in outcome.layers], "weight")),
        ("Inputs", _summary([(layer.a_bits, layer.macs) for layer in outcome.layers], "MAC")),
    ]
    kernels = [bits for layer in outcome.layers if len(layer.w_bits) > 1 for bits in layer.w_bits]
    pruned = kernels.count(0)
    if pruned:
        pairs.append(("Kernels pruned (0 bits)", f"{pruned} of {len(kernels)}"))
    if math.isfinite(outcome.offset):
        # Lower learned bits by this much, then round: what the bisection for the limit ended with.
        pairs.append(("Offset before rounding", f"{outcome.offset:.3g}".replace("-", "\N{MINUS SIGN}")))
    return in_words((name, said) for name, said in pairs if said)


def _summary(bits: Sequence[tuple[Sequence[float], float]], unit: str) -> str:
    """The range of bits, and their mean over what they are spent on."""
    known = [(mean(layer), weight, layer) for layer, weight in bits if layer]
    if not known:
        return ""
    text = numbers.bits_text([one for _, _, layer in known for one in layer])
    total = sum(weight for _, weight, _ in known if math.isfinite(weight))
    if not total > 0 or "\N{EN DASH}" not in text:
        return text
    average = sum(middle * weight for middle, weight, _ in known if math.isfinite(weight)) / total
    return f"{text}; {average:.2f} for the average {unit}"


def _cost_path(outcome: Learned) -> Html | None:
    """The cost during the search as a share of each limit."""
    styles = {"bitops": "line-a", "bytes": "line-b"}
    lines = [
        Line(
            facts.LABELS[quantity],
            styles.get(quantity, "line-c"),
            [(moment.step, moment.costs[quantity] / limit) for moment in outcome.moments],
        )
        for quantity, limit in outcome.limits.items()
    ]
    if not is_drawable(lines):
        return None
    return figure(
        "Cost during the search",
        shares_chart(lines, "Cost over the steps of the search, as a share of the limit", "limit"),
        "The limit is 100 %. The last point is after rounding.",
    )


def _rows(outcome: Learned) -> Html:
    """Layer by layer: bits of weights and inputs, and what they cost."""
    layers = outcome.layers
    names = [f"{number} {layer.name}" for number, layer in enumerate(layers, 1)]
    weights = [mean(layer.w_bits) for layer in layers], [mean(layer.w_learned) for layer in layers]
    inputs = [mean(layer.a_bits) for layer in layers], [mean(layer.a_learned) for layer in layers]
    kernels = counts_row("Kernels at so many bits", [layer.kernels for layer in layers], names)
    limited_by = set(outcome.limits) or {"bitops"}
    bitops = shares_row("Share of BitOPs", [layer.bitops for layer in layers], names)
    size = shares_row("Share of size", [layer.size for layer in layers], names)
    input_row = bits_row("Input bits", *inputs, names, "fill-b")
    drawing = layer_rows(
        bits_row("Weight bits", *weights, names, "fill-after"),
        kernels if outcome.by_kernel else None,
        input_row,
        bitops if "bitops" in limited_by else None,
        size if "bytes" in limited_by else None,
        count=len(layers),
    )
    of_kernels = ", means over the kernels" if outcome.by_kernel else ""
    key = tag(
        "p",
        swatch("fill-after"),
        swatch("fill-b beside") if input_row else None,
        "rounded ",
        swatch("mark"),
        f"learned{of_kernels}; one column for each layer",
        class_="quiet key",
    )
    return join(key, drawing)


def _table(outcome: Learned) -> Html:
    titles = ("W learned", "W", "A learned", "A", "MACs", "Weights", "BitOPs")
    head = [("#", "num"), ("Layer", ""), *((title, "num") for title in titles)]
    if outcome.by_kernel:
        head.append(("Kernels at bits", ""))
    total = sum(layer.bitops for layer in outcome.layers if math.isfinite(layer.bitops))
    body = [
        table_row(
            [
                (str(number), "num"),
                (layer.name, "mono"),
                (numbers.bit_range(layer.w_learned, "{:.2f}"), "num"),
                (numbers.bit_range(layer.w_bits), "num"),
                (numbers.bit_range(layer.a_learned, "{:.2f}"), "num"),
                (numbers.bit_range(layer.a_bits), "num"),
                (numbers.count(layer.macs), "num"),
                (numbers.count(layer.weights), "num"),
                (numbers.percent(layer.bitops / total) if total > 0 else numbers.UNKNOWN, "num"),
                *([(counts_text(layer.kernels) if layer.kernels else "", "wrap")] if outcome.by_kernel else []),
            ]
        )
        for number, layer in enumerate(outcome.layers, 1)
    ]
    return table(head, body)
