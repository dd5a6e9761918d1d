"""What AutoNL found, read from a report with care: what each block chose, how clearly, and the way there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.train.report import facts
from tenfold.train.report.facts import Report

KINDS = ("keep", "wide", "kernel", "place", "ratio", "stride")
"""What choices are about: a block, its larger expansion, its larger kernel, LightNL, and the settings of that."""


@dataclass(frozen=True)
class Choice:
    """One choice: what it is about, whether it is open, and by how much its norm exceeds its threshold (or NaN)."""

    kind: str
    is_open: bool
    margin: float

    @property
    def is_forced(self) -> bool:
        """Whether it was closed for the limit: by its margin it would be open."""
        return not self.is_open and self.margin > 0


@dataclass(frozen=True)
class Site:
    """A block or a LightNL: its choices by name, what its settings could be, what they are, and its multiply-adds."""

    name: str
    height: float
    width: float
    choices: Mapping[str, Choice]
    candidates: Mapping[str, Sequence[float]]
    chosen: Mapping[str, float]
    before: float
    after: float

    @property
    def is_light(self) -> bool:
        """Whether it is a LightNL."""
        return "place" in self.choices or "ratio" in self.candidates

    @property
    def is_open(self) -> bool:
        """Whether it chose to be there at all."""
        return all(self.choices[name].is_open for name in ("keep", "place") if name in self.choices)

    def of_kind(self, kind: str) -> list[Choice]:
        """Its choices of one kind, in their order."""
        return [choice for choice in self.choices.values() if choice.kind == kind]


@dataclass(frozen=True)
class Place:
    """A block with the LightNL behind it, as far as they have something to choose."""

    block: Site | None
    light: Site | None

    @property
    def name(self) -> str:
        """Of the block, or of the layer behind which LightNL is."""
        if self.block is not None:
            return self.block.name
        return "" if self.light is None else self.light.name.removesuffix(".attention")

    @property
    def has_vanished(self) -> bool:
        """Whether the block is gone."""
        return self.block is not None and not self.block.is_open

    @property
    def has_light(self) -> bool:
        """Whether there is a LightNL in the found network."""
        return self.light is not None and self.light.is_open and not self.has_vanished

    @property
    def sites(self) -> list[Site]:
        """The block and the LightNL."""
        return [site for site in (self.block, self.light) if site is not None]

    @property
    def before(self) -> float:
        """Multiply-adds with everything open."""
        return sum(site.before for site in self.sites)

    def has(self, setting: str) -> Site | None:
        """What has a setting in the found network."""
        site = self.block if setting in ("kernel", "expansion") else self.light if self.has_light else None
        return None if self.has_vanished else site


@dataclass(frozen=True)
class ChoiceMoment:
    """One point of the search: multiply-adds, open choices, and LightNL blocks that are in the network."""

    step: float
    macs: float
    opened: float
    lights: float


@dataclass(frozen=True)
class Decided:
    """What AutoNL found: the limit and what is used of it, multiply-adds, what each place chose, and the way there."""

    limits: Mapping[str, float]
    used: Mapping[str, float]
    before: float
    after: float
    places: list[Place]
    moments: list[ChoiceMoment]

    @property
    def choices(self) -> list[tuple[Site, Choice]]:
        """All choices, with what they are a choice of."""
        return [(site, choice) for place in self.places for site in place.sites for choice in site.choices.values()]

    @property
    def opened(self) -> int:
        """How many choices are open."""
        return sum(choice.is_open for _, choice in self.choices)

    @property
    def forced(self) -> int:
        """How many were closed for the limit alone."""
        return sum(choice.is_forced for _, choice in self.choices)

    @property
    def lights(self) -> list[Place]:
        """The places where LightNL could be."""
        return [place for place in self.places if place.light is not None]

    @property
    def placed(self) -> int:
        """How many LightNL blocks the found network has."""
        return sum(place.has_light for place in self.places)

    @property
    def vanished(self) -> int:
        """How many blocks are gone."""
        return sum(place.has_vanished for place in self.places)

    @property
    def blocks(self) -> list[Place]:
        """The places with a block that has something to choose."""
        return [place for place in self.places if place.block is not None]


def decided(report: Report) -> Decided | None:
    """What AutoNL found; None if it took no part, or left no choice that could be read."""
    found = facts.table(facts.table(report.get("found")).get("autonl"))
    places = list(_places([_site(row) for row in facts.rows(found.get("sites"))]))
    if not any(site.choices for place in places for site in place.sites):
        return None
    macs = facts.table(found.get("macs"))
    counted = facts.cost(report, "after", "macs")
    after = counted if math.isfinite(counted) else facts.amount(macs.get("after"))
    limit = facts.number(found.get("limit"))
    limits = {"macs": limit} if limit > 0 else {}
    moments = [_moment(row, places) for row in facts.rows(found.get("trajectory"))]
    moments = [moment for moment in moments if math.isfinite(moment.step)]
    before = facts.amount(macs.get("before"))
    outcome = Decided(
        limits=limits,
        used={"macs": after / limit} if limits else {},
        before=before,
        after=after,
        places=places,
        moments=moments,
    )
    if moments and moments[0].step > 0:  # all thresholds start at zero, and so everything open
        moments.insert(0, ChoiceMoment(0.0, before, len(outcome.choices), len(outcome.lights)))
    return outcome


def _site(row: Mapping[str, Any]) -> Site:
    macs = facts.table(row.get("macs"))
    return Site(
        name=name if isinstance(name := row.get("name"), str) else "",
        height=facts.amount(row.get("height")),
        width=facts.amount(row.get("width")),
        choices={
            name: Choice(kind, facts.table(one).get("open") is True, facts.number(facts.table(one).get("margin")))
            for name, one in facts.table(row.get("choices")).items()
            if isinstance(name, str) and (kind := name.rstrip("0123456789")) in KINDS
        },
        candidates={setting: _positive(values) for setting, values in facts.table(row.get("candidates")).items()},
        chosen={
            setting: values[0]
            for setting, value in facts.table(row.get("chosen")).items()
            if (values := _positive(facts.number(value)))
        },
        before=facts.amount(macs.get("before")),
        after=facts.amount(macs.get("after")),
    )


def _positive(values: Any) -> list[float]:
    return [value for value in facts.numbers(values) if value > 0]


def _places(sites: list[Site]) -> Iterator[Place]:
    """Blocks and the LightNL inside them, together; in the order of the sites."""
    inside: dict[str, Site] = {}
    blocks = {site.name for site in sites if not site.is_light}
    alone = set[int]()
    for at, site in enumerate(sites):
        if site.is_light:
            parts = site.name.split(".")
            around = next(
                (name for end in range(len(parts) - 1, 0, -1) if (name := ".".join(parts[:end])) in blocks), ""
            )
            if around and around not in inside:
                inside[around] = site
            else:
                alone.add(at)
    for at, site in enumerate(sites):
        if not site.is_light:
            yield Place(site, inside.pop(site.name, None))
        elif at in alone:
            yield Place(None, site)


def _moment(row: Mapping[str, Any], places: list[Place]) -> ChoiceMoment:
    margins = {str(name): facts.number(margin) for name, margin in facts.table(row.get("margins")).items()}

    def is_open(site: Site | None, choice: str) -> bool:
        # What is no choice any more is as it was decided.
        return site is None or margins.get(f"{site.name}:{choice}", 1.0 if margins else float(site.is_open)) > 0

    return ChoiceMoment(
        step=facts.number(row.get("step")),
        macs=facts.amount(row.get("macs")),
        opened=facts.amount(row.get("open")),
        lights=sum(
            is_open(place.block, "keep") and is_open(place.light, "place")
            for place in places
            if place.light is not None
        ),
    )
