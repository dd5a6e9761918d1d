"""The section on a network of cells that was searched: its cells drawn, the learned space, and the way there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.errors import UsageError
from tenfold.layers.cell_gene import Gene
from tenfold.train.report import facts, numbers
from tenfold.train.report.cell_drawing import cell_drawing
from tenfold.train.report.charts import Line, line_chart
from tenfold.train.report.facts import Report
from tenfold.train.report.markup import Html, join, tag
from tenfold.train.report.parts import details, figure, section, table, table_row

_KEY = (
    "Green edges are depthwise kernels, the thicker the larger; dashed ones pass the map on, brown ones average 3x3. "
    'A node with "+" adds up; one with "*" scales its chain by a gate that the others make.'
)


def cells_found(report: Report) -> Html | None:
    """What AutoSpace found out; None if it took no part, or left nothing that could be read."""
    found = facts.table(facts.table(report.get("found")).get("autospace"))
    chosen = facts.table(found.get("chosen"))
    genes = [str(gene) for gene in chosen.get("genes") or ()]
    if not genes:
        return None
    return section(
        "Cells found",
        tag("p", _words(found, genes), class_="quiet"),
        _network(chosen, genes),
        _way(found),
        _space(found),
    )


def _words(found: Mapping[str, Any], genes: list[str]) -> str:
    words = f"{len(genes)} blocks were searched; {genes.count('skip')} of them are left out"
    evolved = {str(cell.get("gene")) for layer in facts.rows(found.get("space")) for cell in _cells(layer)}
    evolved |= {str(one) for gene in evolved for one in _merged(gene)}
    evolved -= {str(gene) for gene in found.get("always") or ()}
    count = sum(gene in evolved for gene in genes)
    return f"{words}, {count} have evolved cells. {_KEY}" if evolved else f"{words}. {_KEY}"


def _cells(layer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return facts.rows(layer.get("evolved"))


def _merged(gene: str) -> list[Gene]:
    parsed = _parsed(gene)
    return [] if parsed is None else parsed.merged()


def _parsed(gene: str) -> Gene | None:
    try:
        return Gene.parse(gene)
    except UsageError:
        return None


def _network(chosen: Mapping[str, Any], genes: list[str]) -> Html:
    shares = list(chosen.get("probabilities") or ())
    drawings = []
    for at, text in enumerate(genes):
        gene = _parsed(text)
        share = facts.number(shares[at]) if at < len(shares) else math.nan
        sure = f", {numbers.percent(share)} likely" if math.isfinite(share) else ""
        drawing = tag("p", "left out", class_="quiet") if gene is None else cell_drawing(gene)
        drawings.append(figure(f"Block {at + 1}: {text}{sure}", drawing))
    return tag("div", *drawings, class_="cells")


def _way(found: Mapping[str, Any]) -> Html | None:
    rows = facts.rows(found.get("trajectory"))
    if len(rows) < 2:
        return None
    steps = [facts.number(row.get("step")) for row in rows]

    def path(key: str) -> list[tuple[float, float]]:
        return [(step, facts.number(row.get(key))) for step, row in zip(steps, rows, strict=True)]

    fitness = line_chart(
        [Line("best", "line-b", path("best")), Line("mean", "line-a", path("fitness"))],
        title="Fitness of the best cells over the rounds of the evolution",
        x_label="step",
        spell=lambda value: f"{value:+.2f}",
        level=("reference", 0.0),
    )
    limit = facts.number(facts.table(found.get("limits")).get("macs"))
    cost = line_chart(
        [Line("expected", "line-a", path("macs"))],
        title="Expected multiply-adds over the rounds of the evolution",
        x_label="step",
        spell=numbers.count,
        level=("limit", limit) if math.isfinite(limit) else None,
    )
    note = "Score above that of the ordinary inverted residual of the same width, in the softmax's unit."
    return tag(
        "div", figure("Fitness of the learned space", fitness, note), figure("Expected MACs", cost), class_="charts"
    )


def _space(found: Mapping[str, Any]) -> Html | None:
    layers = facts.rows(found.get("space"))
    if not layers:
        return None
    body, drawings = [], []
    for number, layer in enumerate(layers):
        for cell in _cells(layer):
            text, fitness, trials = str(cell.get("gene")), facts.number(cell.get("fitness")), cell.get("trials")
            spelt = f"{fitness:+.3f}" if math.isfinite(fitness) else ""
            body.append(table_row([(str(number), ""), (text, ""), (spelt, "num"), (str(trials or ""), "num")]))
            if (gene := _parsed(text)) is not None:
                drawings.append(figure(f"Layer {number}: {text}", cell_drawing(gene)))
    head = [("Layer", ""), ("Cell", ""), ("Fitness", "num"), ("Rounds tried", "num")]
    return details("The learned space", join(tag("div", *drawings, class_="cells"), table(head, body)))
