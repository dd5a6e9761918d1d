"""The section on a network that shrank: atoms and cost during the training, and what is left, block by block."""

from __future__ import annotations

import math

from tenfold.train.report import facts, numbers
from tenfold.train.report.charts import Line, line_chart, ramp
from tenfold.train.report.facts import Report
from tenfold.train.report.found_atoms import FoundBlock, Shrunk, shrunk
from tenfold.train.report.layer_rows import layer_rows, marks_row, shares_row, stacks_row
from tenfold.train.report.markup import Html, join, tag
from tenfold.train.report.outcome import (
    beside_paths,
    in_words,
    is_drawable,
    kept_badge,
    key_entry,
    limit_bars,
    pair,
    part_of,
    shares_chart,
)
from tenfold.train.report.parts import details, figure, section, swatch, table, table_row


def atoms_left(report: Report) -> Html | None:
    """What AtomNAS found out."""
    outcome = shrunk(report)
    if outcome is None:
        return None
    paths = [_atom_paths(outcome), _cost_path(outcome)]
    return section(
        join("Atoms left ", kept_badge(outcome.used)),
        beside_paths(limit_bars(outcome.limits, outcome.used), _words(outcome), paths),
        _network(outcome),
        details(f"Atoms of all {len(outcome.blocks)} blocks in numbers", _table(outcome)),
    )


def _words(outcome: Shrunk) -> Html:
    """The outcome in a few words."""
    before, after = outcome.before, outcome.after
    pairs: list[tuple[str, str | Html]] = [("Atoms", part_of(after.total(), before.total()))]
    pairs += [(numbers.side(kernel), part_of(after[kernel], before[kernel])) for kernel in outcome.kernels]
    vanished = sum(block.has_vanished for block in outcome.blocks)
    pairs.append(("Blocks vanished", f"{vanished} of {len(outcome.blocks)}"))
    return in_words(pairs)


def _atom_paths(outcome: Shrunk) -> Html | None:
    """How many atoms of each kernel size there were."""
    lines = [
        Line(
            numbers.side(kernel),
            ramp(at, len(outcome.kernels)),
            [(moment.step, float(moment.atoms.get(kernel, math.nan))) for moment in outcome.moments],
        )
        for at, kernel in enumerate(outcome.kernels)
    ]
    if not is_drawable(lines):
        return None
    return figure(
        "Atoms left by kernel size",
        line_chart(
            lines,
            title="Atoms left by kernel size over the steps of the training",
            x_label="step",
            spell=numbers.count,
            covers=(0.0,),
        ),
    )


def _cost_path(outcome: Shrunk) -> Html | None:
    """The cost during the search: as a share of each limit, or as it is where nothing is limited."""
    lines = [
        Line(
            facts.LABELS[quantity],
            f"line-{'abc'[min(at, 2)]}",
            [(moment.step, moment.costs[quantity] / outcome.limits.get(quantity, 1.0)) for moment in outcome.moments],
        )
        for at, quantity in enumerate(outcome.quantities)
    ]
    if not is_drawable(lines):
        return None
    if not outcome.limits:
        label, spell = facts.LABELS[outcome.quantity], numbers.spelling(outcome.quantity)
        title = f"{label} over the steps of the training"
        return figure("Cost", line_chart(lines, title=title, x_label="step", spell=spell, covers=(0.0,)))
    return figure(
        "Cost against the target",
        shares_chart(lines, "Cost over the steps of the training, as a share of the target", "target"),
        "The target is 100 %.",
    )


def _network(outcome: Shrunk) -> Html:
    """The network, a column for each block: what is left of each kernel size before the ghost of the start."""
    blocks = outcome.blocks
    styles = {kernel: _fill(at, len(outcome.kernels)) for at, kernel in enumerate(outcome.kernels)}
    hints = [_hint(number, block) for number, block in enumerate(blocks, 1)]
    widest = max(max(block.first, block.left) for block in blocks)

    def stacks(whole: list[int]) -> list[list[tuple[str, float]]]:
        return [
            [(styles[kernel], block.after.get(kernel, 0) / (total or 1)) for kernel in outcome.kernels]
            for block, total in zip(blocks, whole, strict=True)
        ]

    own = [max(block.first, block.left) for block in blocks]
    gone = [block.has_vanished for block in blocks]
    atoms = stacks_row(
        "Atoms",
        stacks([widest] * len(blocks)),
        [block.first / widest for block in blocks],
        hints,
        gone,
        {1.0: numbers.count(widest), 0.5: numbers.count(widest / 2)},
    )
    share = stacks_row(
        "Part left", stacks(own), [1.0 if block.first else 0.0 for block in blocks], hints, gone, {1.0: "100 %"}
    )
    mix = stacks_row(
        "Mix of sizes", stacks([block.left for block in blocks]), [0.0] * len(blocks), hints, gone, {1.0: "100 %"}
    )
    names = [f"{number} {block.name}" for number, block in enumerate(blocks, 1)]
    drawing = layer_rows(
        atoms,
        share,
        mix if len(outcome.kernels) > 1 else None,
        shares_row(f"Share of {facts.LABELS[outcome.quantity]}", [block.cost for block in blocks], names),
        marks_row("Residual", ["skip" if block.is_residual else "" for block in blocks])
        if _has_residuals(outcome)
        else None,
        count=len(blocks),
        title="Block",
    )
    key = tag(
        "p",
        *(key_entry(swatch(styles[kernel]), numbers.side(kernel)) for kernel in outcome.kernels),
        key_entry(swatch("ghost"), "at the start"),
        key_entry(swatch("skip"), "adds its input") if _has_residuals(outcome) else None,
        key_entry(tag("span", "\N{MULTIPLICATION SIGN}", class_="cross"), "vanished") if any(gone) else None,
        class_="quiet key entries",
    )
    return join(key, drawing)


def _has_residuals(outcome: Shrunk) -> bool:
    return any(block.is_residual for block in outcome.blocks)


def _fill(at: int, count: int) -> str:
    return ramp(at, count).replace("line", "fill")


def _hint(number: int, block: FoundBlock) -> str:
    sizes = ", ".join(
        f"{numbers.side(kernel)} {block.after.get(kernel, 0)} of {count}"
        for kernel, count in sorted(block.before.items())
    )
    return f"{number} {block.name}: {'vanished; ' if block.has_vanished else ''}{sizes}"


def _table(outcome: Shrunk) -> Html:
    kernels = outcome.kernels
    label = facts.LABELS[outcome.quantity]
    spell = numbers.spelling(outcome.quantity)
    head = [("#", "num"), ("Block", ""), ("", "")]
    head += [(title, "num") for title in (*(numbers.side(kernel) for kernel in kernels), "Atoms", "Left", label)]
    body = [
        table_row(
            [
                (str(number), "num"),
                (block.name, "mono"),
                ("vanished" if block.has_vanished else "residual" if block.is_residual else "", "quiet"),
                *((pair(block.after.get(kernel, 0), block.before.get(kernel, 0)), "num") for kernel in kernels),
                (pair(block.left, block.first), "num"),
                (numbers.percent(block.left / block.first, 0) if block.first else numbers.UNKNOWN, "num"),
                (spell(block.cost), "num"),
            ]
        )
        for number, block in enumerate(outcome.blocks, 1)
    ]
    return table(head, body)
