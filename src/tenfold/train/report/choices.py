"""The section on a network that chose its parts: cost and open choices over the search, and the network it became."""

from __future__ import annotations

import math
from collections.abc import Callable

from tenfold.train.report import numbers
from tenfold.train.report.charts import Line, line_chart
from tenfold.train.report.facts import Report
from tenfold.train.report.found_choices import KINDS, Choice, Decided, Place, Site, decided
from tenfold.train.report.layer_rows import lattice_row, layer_rows, marks_row, stacks_row
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
)
from tenfold.train.report.parts import details, figure, section, swatch, table, table_row, whole
from tenfold.train.report.strips import Strip, strip_chart

_TITLES = dict(zip(KINDS, ("Blocks", "Expansions", "Kernel sizes", "LightNL", "Ratios", "Strides"), strict=True))
_CROSS = tag("span", "\N{MULTIPLICATION SIGN}", class_="cross")


def choices_made(report: Report) -> Html | None:
    """What AutoNL found out."""
    outcome = decided(report)
    if outcome is None:
        return None
    paths = [_cost_path(outcome), _open_path(outcome), _margins(outcome)]
    what = f"{len(outcome.places)} {'blocks' if outcome.blocks else 'places'}"
    return section(
        join("Choices made ", kept_badge(outcome.used)),
        beside_paths(limit_bars(outcome.limits, outcome.used), _words(outcome), paths),
        _network(outcome),
        details(f"Choices of all {what} in numbers", join(_table_note(outcome), _table(outcome))),
    )


def _words(outcome: Decided) -> Html:
    """The outcome in a few words."""
    pairs: list[tuple[str, str | Html]] = [("Choices open", part_of(outcome.opened, len(outcome.choices)))]
    if outcome.limits:
        pairs.append(("Closed for the limit", str(outcome.forced)))
    if outcome.lights:
        pairs.append(("LightNL placed", f"{outcome.placed} of {len(outcome.lights)}"))
    if outcome.blocks:
        pairs.append(("Blocks vanished", f"{outcome.vanished} of {len(outcome.blocks)}"))
    if math.isfinite(outcome.after):
        of_start = f"{numbers.count(outcome.after)} of {numbers.count(outcome.before)} "
        pairs.append(("MACs", _with_share(of_start, outcome.after, outcome.before)))
        light = sum(place.light.after for place in outcome.lights if place.light is not None)
        if math.isfinite(light):
            pairs.append(("MACs of LightNL", _with_share(f"{numbers.count(light)} ", light, outcome.after)))
    return in_words(pairs)


def _with_share(text: str, part: float, total: float) -> Html:
    return join(text, whole(f"({numbers.percent(part / total)})") if total > 0 else None)


def _cost_path(outcome: Decided) -> Html | None:
    """Multiply-adds over the steps, against the limit."""
    lines = [Line("MACs", "line-a", [(moment.step, moment.macs) for moment in outcome.moments])]
    if not is_drawable(lines):
        return None
    limit = outcome.limits.get("macs")
    return figure(
        "MACs against the limit" if limit else "MACs",
        line_chart(
            lines,
            title="Multiply-adds over the steps of the training",
            x_label="step",
            spell=numbers.count,
            level=("limit", limit) if limit else None,
            covers=(0.0,),
        ),
    )


def _open_path(outcome: Decided) -> Html | None:
    """How many choices were open, and how many LightNL blocks there were."""
    lines = [
        Line("choices", "line-a", [(moment.step, moment.opened) for moment in outcome.moments]),
        Line("LightNL", "line-b", [(moment.step, moment.lights) for moment in outcome.moments]),
    ]
    if not is_drawable(lines):
        return None
    drawing = line_chart(
        lines,
        title="Open choices, and LightNL blocks in the network, over the steps of the training",
        x_label="step",
        spell=numbers.count,
        covers=(0.0,),
    )
    return figure("Choices open and LightNL in the network", drawing)


def _margins(outcome: Decided) -> Html | None:
    """How clear each decision was."""
    found = outcome.choices
    strips = [
        Strip(
            _TITLES[kind],
            "line-a" if kind in ("keep", "wide", "kernel") else "line-b",
            [(_said(site, choice), choice.margin, choice.is_open) for site, choice in found if choice.kind == kind],
        )
        for kind in KINDS
    ]
    if not any(math.isfinite(choice.margin) for _, choice in found):
        return None
    note = "A disc for each choice, filled where it is open; each row at its own scale, its largest margin behind it."
    if outcome.forced:
        note += " Rings on the right of zero: closed for the limit."
    drawing = strip_chart(strips, title="Margins of the choices at the decision", low="closed", high="open")
    return figure("Margins at the decision: norm less threshold", drawing, note)


def _said(site: Site, choice: Choice) -> str:
    return f"{site.name}, {'open' if choice.is_open else 'closed for the limit' if choice.is_forced else 'closed'}"


def _network(outcome: Decided) -> Html:
    """The network, a column for each place: its cost before the ghost of the start, and what its settings became."""
    places = outcome.places
    hints = [_hint(number, place) for number, place in enumerate(places, 1)]
    gone = [place.has_vanished for place in places]
    light = ["" if place.light is None else "disc" if place.has_light else "ring" for place in places]

    def lattice(title: str, setting: str, spell: Callable[[float], str], style: str) -> Html | None:
        sites = [place.has(setting) for place in places]
        offered = [[] if site is None else site.candidates.get(setting, []) for site in sites]
        taken = [math.nan if site is None else site.chosen.get(setting, math.nan) for site in sites]
        return lattice_row(title, offered, taken, hints, spell, style, falls=setting == "stride")

    drawing = layer_rows(
        _cost_row(outcome, hints, gone),
        lattice("Expansion", "expansion", _number, "fill-after"),
        lattice("Kernel size", "kernel", numbers.side, "fill-after"),
        marks_row("LightNL", light) if outcome.lights else None,
        lattice("Ratio", "ratio", _fraction, "fill-b"),
        lattice("Stride", "stride", _number, "fill-b"),
        count=len(places),
        title="Block" if outcome.blocks else "Place",
    )
    key = tag(
        "p",
        key_entry(swatch("fill-after"), "block") if outcome.blocks else None,
        key_entry(swatch("fill-b"), "LightNL") if outcome.lights else None,
        key_entry(swatch("ghost"), "at the start"),
        key_entry(swatch("offered"), "possible, not chosen"),
        key_entry(swatch("ring"), "no LightNL") if "ring" in light else None,
        key_entry(_CROSS, "vanished") if any(gone) else None,
        class_="quiet key entries",
    )
    return join(key, drawing)


def _cost_row(outcome: Decided, hints: list[str], gone: list[bool]) -> Html | None:
    parts = [
        [(style, site.after) for style, site in (("fill-after", place.block), ("fill-b", place.light)) if site]
        for place in outcome.places
    ]
    parts = [[(style, macs) for style, macs in one if macs > 0] for one in parts]
    ghosts = [place.before if math.isfinite(place.before) else 0.0 for place in outcome.places]
    most = max(*ghosts, *(sum(macs for _, macs in one) for one in parts), 0.0)
    if not most:
        return None
    return stacks_row(
        "MACs",
        [[(style, macs / most) for style, macs in one] for one in parts],
        [ghost / most for ghost in ghosts],
        hints,
        gone,
        {1.0: numbers.count(most), 0.5: numbers.count(most / 2)},
    )


def _hint(number: int, place: Place) -> str:
    if place.has_vanished:
        return f"{number} {place.name}: vanished"
    said = []
    if block := place.block:
        said += [f"expansion {_number(value)}" for value in _setting(block, "expansion")]
        said += [numbers.side(value) for value in _setting(block, "kernel")]
    if place.light is not None:
        said.append("LightNL" if place.has_light else "no LightNL")
    if place.has_light and place.light is not None:
        said += [f"ratio {_fraction(value)}" for value in _setting(place.light, "ratio")]
        said += [f"stride {_number(value)}" for value in _setting(place.light, "stride")]
    return f"{number} {place.name}: {', '.join(said)}"


def _setting(site: Site, name: str) -> list[float]:
    """A setting as a list of one; empty if it is not known."""
    value = site.chosen.get(name, math.nan)
    return [value] if math.isfinite(value) else []


def _table(outcome: Decided) -> Html:
    titles = [("Block", "Expansion", "Kernel")] if outcome.blocks else []
    titles += [("LightNL", "Ratio", "Stride")] if outcome.lights else []
    head = [("#", "num"), ("Name", ""), ("Map", "num")]
    head += [(title, "num") for title in (*(one for group in titles for one in group), "MACs")]
    body = []
    for number, place in enumerate(outcome.places, 1):
        cells: list[tuple[str | Html, str]] = [(str(number), "num"), (place.name, "mono"), (_map(place), "num")]
        if outcome.blocks:
            cells.append((_cell(place.block, "keep", "vanished" if place.has_vanished else "kept"), "num"))
            cells.append((_cell(place.block, "wide", _text(place, "expansion", _number)), "num"))
            cells.append((_cell(place.block, "kernel", _text(place, "kernel", numbers.side)), "num"))
        if outcome.lights:
            cells.append((_cell(place.light, "place", "placed" if place.has_light else "none"), "num"))
            cells.append((_cell(place.light, "ratio", _text(place, "ratio", _fraction)), "num"))
            cells.append((_cell(place.light, "stride", _text(place, "stride", _number)), "num"))
        after = sum(site.after for site in place.sites)
        cells.append((pair(numbers.count(after), numbers.count(place.before)), "num"))
        body.append(table_row(cells))
    return table(head, body)


def _table_note(outcome: Decided) -> Html:
    forced = " A star: closed for the limit, against its margin." if outcome.forced else ""
    return tag("p", f"In grey: the margin of the choice, its norm less its threshold.{forced}", class_="quiet")


def _map(place: Place) -> str:
    site = place.sites[0]
    known = math.isfinite(site.height) and math.isfinite(site.width)
    return f"{site.height:g}\N{MULTIPLICATION SIGN}{site.width:g}" if known else numbers.UNKNOWN


def _text(place: Place, setting: str, spell: Callable[[float], str]) -> str:
    site = place.has(setting)
    return next((spell(value) for value in _setting(site, setting)), numbers.UNKNOWN) if site else numbers.UNKNOWN


def _cell(site: Site | None, kind: str, text: str) -> str | Html:
    """What became of a setting, and in grey how clear it was."""
    if site is None:
        return ""
    margins = [_margin(choice) for choice in site.of_kind(kind)]
    return join(tag("b", text), *(tag("span", f" {margin}", class_="quiet") for margin in margins))


def _margin(choice: Choice) -> str:
    if not math.isfinite(choice.margin):
        return numbers.UNKNOWN
    written = f"{round(choice.margin, 2) + 0.0:.2f}"  # the sum has no minus zero
    return written.replace("-", "\N{MINUS SIGN}") + ("*" if choice.is_forced else "")


def _number(value: float) -> str:
    return f"{value:.3g}"


def _fraction(value: float) -> str:
    """A part of the channels.

    Example:
        >>> _fraction(0.125), _fraction(0.3), _fraction(1.0)
        ('1/8', '0.3', '1')
    """
    parts = round(1 / value) if value > 1e-4 else 0
    return f"1/{parts}" if parts > 1 and abs(value * parts - 1) < 1e-6 else f"{value:.3g}"
