"""The end of a training on the screen: what it cost before, what it costs now, how good it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text


def result_table(report: Mapping[str, Any]) -> RenderableType:
    """Accuracy and cost, before and after, and what the methods found out, from a report's dictionary."""
    from rich.console import Group

    parts: list[RenderableType] = [_before_and_after(report)]
    for part in (_widths(report), _choices_made(report), _atoms_left(report), _learned_bits(report), _engine(report)):
        if part is not None:
            parts.extend(("", part))
    return Group(*parts)


def _before_and_after(report: Mapping[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from tenfold.train.report import facts, found, numbers

    table = Table(title=Text(facts.model_name(report), "bold"), title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    width = found.counted(report)
    for heading in ("Before", f"After, {width.label}" if width else "After", ""):
        table.add_column(heading, justify="right", header_style="dim")
    main, start, final = facts.main_metric(report), facts.metric(report, "float"), facts.metric(report, "final")
    change = numbers.points(final - start)
    table.add_row(
        facts.metric_label(main) + (", mean" if found.settings(report) else ""),
        numbers.score(main, start),
        Text(numbers.score(main, final), "bold"),
        Text("" if change == numbers.UNKNOWN else f"{change} points", "green" if final >= start - 0.01 else "yellow"),
    )
    for quantity, label in facts.COSTS:
        before, after = facts.cost(report, "before", quantity), facts.cost(report, "after", quantity)
        spell = numbers.spelling(quantity)
        smaller = Text(f"{numbers.times(before, after)} less", "green") if after < 0.998 * before else Text("")
        table.add_row(label, spell(before), Text(spell(after), "bold"), smaller)
    if (counted := facts.counted_for(report)) != "image":
        table.caption, table.caption_justify = Text(f"costs of one {counted}", "dim"), "left"
    return table


def _widths(report: Mapping[str, Any]) -> Table | None:
    """Accuracy and cost at every bit-width of a switchable network."""
    from rich.table import Table
    from rich.text import Text

    from tenfold.train.report import facts, found, numbers

    settings = found.settings(report)
    if not settings:
        return None
    table = Table(box=None, pad_edge=False)
    table.add_column("Bits", header_style="dim")
    for heading in (facts.metric_label(facts.main_metric(report)), "BitOPs", "Size"):
        table.add_column(heading, justify="right", header_style="dim")
    for one in settings:
        cost = numbers.count(one.costs["bitops"]), numbers.size(one.costs["bytes"])
        table.add_row(Text(one.name, "bold"), Text(numbers.percent(one.metric), "bold"), *cost)
    return table


def _choices_made(report: Mapping[str, Any]) -> Text | None:
    """How many choices AutoNL left open, where LightNL is, and what it used of its budget."""
    from rich.text import Text

    from tenfold.train.report import facts, found_choices, numbers

    outcome = found_choices.decided(report)
    if outcome is None:
        return None
    words = [f"{outcome.opened} of {len(outcome.choices)} choices open"]
    if outcome.forced:
        words[0] += f", {outcome.forced} closed for the limit"
    if outcome.lights:
        words.append(f"LightNL at {outcome.placed} of {len(outcome.lights)} places")
    if outcome.vanished:
        words.append(f"{outcome.vanished} of {len(outcome.blocks)} blocks vanished")
    words += _limits_used(outcome.limits, outcome.used, facts.LABELS)
    if not outcome.limits and math.isfinite(outcome.after):
        words.append(f"MACs {numbers.count(outcome.after)} of {numbers.count(outcome.before)}")
    return Text.assemble(("autonl: ", "bold"), "; ".join(words))


def _limits_used(limits: Mapping[str, float], used: Mapping[str, float], labels: Mapping[str, str]) -> list[str]:
    """What was asked for, and how much of it is used."""
    from tenfold.train.report import numbers

    words = []
    for quantity, limit in limits.items():
        share = f", {numbers.percent(used[quantity], 2)} used" if math.isfinite(used[quantity]) else ""
        words.append(f"{labels[quantity]} at most {numbers.spelling(quantity)(limit)}{share}")
    return words


def _atoms_left(report: Mapping[str, Any]) -> Text | None:
    """How many atoms AtomNAS left of each kernel size, and what it used of its budget."""
    from rich.text import Text

    from tenfold.train.report import facts, found_atoms, numbers

    outcome = found_atoms.shrunk(report)
    if outcome is None:
        return None
    before, after = outcome.before, outcome.after
    words = [f"{after.total()} of {before.total()} atoms left"]
    words.append(", ".join(f"{numbers.side(kernel)} {after[kernel]}" for kernel in outcome.kernels))
    vanished = sum(block.has_vanished for block in outcome.blocks)
    if vanished:
        words.append(f"{vanished} of {len(outcome.blocks)} blocks vanished")
    words += _limits_used(outcome.limits, outcome.used, facts.LABELS)
    return Text.assemble(("atomnas: ", "bold"), "; ".join(words))


def _learned_bits(report: Mapping[str, Any]) -> Text | None:
    """What FracBits was asked for, what it used of it, and the range of its bits."""
    from rich.text import Text

    from tenfold.train.report import found, numbers

    outcome = found.learned(report)
    if outcome is None:
        return None
    labels = {"bitops": "BitOPs", "bytes": "size"}
    words = _limits_used(outcome.limits, outcome.used, labels)
    for name, layers in (
        ("weights", [layer.w_bits for layer in outcome.layers]),
        ("inputs", [layer.a_bits for layer in outcome.layers]),
    ):
        bits = [one for layer in layers for one in layer]
        if bits:
            words.append(f"{name} {numbers.bits_text(bits)}")
    return Text.assemble(("fracbits: ", "bold"), "; ".join(words)) if words else None


def _engine(report: Mapping[str, Any]) -> Text | None:
    """Which quantized layers were trained in integers."""
    from rich.text import Text

    from tenfold.train.engine import engine_text
    from tenfold.train.report import facts

    text = engine_text(facts.table(report.get("engine")))
    return Text.assemble(("engine: ", "bold"), text) if text else None
