"""What methods found out: the bit-widths of a switchable network (AdaBits), and bits that were learned (FracBits).

Read with the same care as all of a report: what is missing or not a number becomes NaN or an empty list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.train.report import facts
from tenfold.train.report.facts import Report

_FLOAT_BITS = 32


@dataclass(frozen=True)
class Setting:
    """One bit-width of a switchable network: its name, its main metric, its costs by quantity (NaN if unknown)."""

    name: str
    metric: float
    costs: Mapping[str, float]

    @property
    def label(self) -> str:
        """The width as words."""
        return width_label(self.name)


def settings(report: Report) -> list[Setting]:
    """The bit-widths in the order of the report; empty if there are not several."""
    name = facts.main_metric(report)
    listed = [
        Setting(
            facts.name_of(row.get("name")) or str(at),
            facts.number(facts.table(row.get("metrics")).get(name)),
            {key: facts.number(facts.table(row.get("cost")).get(key)) for key, _ in facts.COSTS},
        )
        for at, row in enumerate(facts.rows(report.get("settings")))
    ]
    return listed if len(listed) > 1 else []


def width_label(name: str) -> str:
    """The name of a setting as words.

    Example:
        >>> width_label("4"), width_label("4/8"), width_label("1")
        ('4 bits', '4/8 bits', '1 bit')
    """
    return f"{name} {'bit' if name == '1' else 'bits'}" if name[:1].isdigit() else name


def widths_of(epochs: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """The bit-widths at which a metric was measured in each epoch, in the order of the rows.

    Example:
        >>> widths_of([{"top1": 0.5, "top1/8": 0.6, "top1/4": 0.4}], "top1")
        ['8', '4']
    """
    start = f"{metric}/"
    keys = (key for row in epochs for key in row if isinstance(key, str) and key.startswith(start))
    return list(dict.fromkeys(key.removeprefix(start) for key in keys))


def widest(listed: Sequence[Setting]) -> Setting:
    """The setting that costs the most BitOPs, with which the others are compared."""
    return max(listed, key=lambda one: one.costs["bitops"] if math.isfinite(one.costs["bitops"]) else -1.0)


def counted(report: Report) -> Setting | None:
    """The setting whose costs the report gives as those of the whole network; None if there are no several."""
    after = facts.cost(report, "after", "bitops")
    return next((one for one in settings(report) if one.costs["bitops"] == after), None)


@dataclass(frozen=True)
class LearnedLayer:
    """One layer: its bits as they were learned and as they were rounded; several where kernels have their own."""

    name: str
    macs: float
    weights: float
    w_learned: Sequence[float]
    a_learned: Sequence[float]
    w_bits: Sequence[float]
    a_bits: Sequence[float]

    @property
    def bitops(self) -> float:
        """Multiply-adds times bits of weights times bits of inputs."""
        return self.macs * mean(self.w_bits) * mean(self.a_bits)

    @property
    def size(self) -> float:
        """Bytes of the weights."""
        return self.weights * mean(self.w_bits) / 8

    @property
    def kernels(self) -> Counter[int]:
        """How many kernels have so many bits; of a layer whose kernels all have the same, it counts one."""
        return Counter(round(bits) for bits in self.w_bits if bits < _FLOAT_BITS)


@dataclass(frozen=True)
class Moment:
    """One point of the search: its costs by quantity, and the bits of each layer in order (NaN if unknown)."""

    step: float
    costs: Mapping[str, float]
    w_bits: Sequence[float]
    a_bits: Sequence[float]


@dataclass(frozen=True)
class Learned:
    """What FracBits found: its limits by quantity, what is used of them, the layers, and the way there."""

    limits: Mapping[str, float]
    used: Mapping[str, float]
    offset: float
    layers: Sequence[LearnedLayer]
    moments: Sequence[Moment]

    @property
    def by_kernel(self) -> bool:
        """Whether kernels of a layer have bits of their own."""
        return any(len(layer.w_bits) > 1 for layer in self.layers)


def learned(report: Report) -> Learned | None:
    """What FracBits found; None if it took no part, or left nothing that could be read."""
    found = facts.table(facts.table(report.get("found")).get("fracbits"))
    layers = [_layer(row) for row in facts.rows(found.get("layers"))]
    limits = {
        quantity: limit
        for quantity in ("bitops", "bytes")
        if (limit := facts.number(facts.table(found.get("limits")).get(quantity))) > 0
    }
    if not layers and not limits:
        return None
    moments = [_moment(row, len(layers)) for row in facts.rows(found.get("trajectory"))]
    return Learned(
        limits=limits,
        used={quantity: _used(report, found, quantity, limit) for quantity, limit in limits.items()},
        offset=facts.number(found.get("offset")),
        layers=layers,
        moments=[moment for moment in moments if math.isfinite(moment.step)],
    )


@dataclass(frozen=True)
class Mixed:
    """Bits that AdaBits learned, at each of some widths.

    Attributes:
        widths: their names.
        layers: the name of each layer, and its (weight bits, input bits) at each width.
        steps: of the search.
        w_bits: at each step the mean weight bits of each width.
        used: at each step the cost of each width, as a share of its limit.
    """

    widths: Sequence[str]
    layers: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    steps: Sequence[float]
    w_bits: Sequence[Sequence[float]]
    used: Sequence[Sequence[float]]


def mixed(report: Report) -> Mixed | None:
    """The bits of each layer at each width, where AdaBits learned them."""
    told = facts.table(facts.table(report.get("found")).get("adabits"))
    at_width = facts.rows(told.get("widths"))
    layers = [
        (
            facts.name_of(rows[0].get("name")),
            [(facts.number(row.get("w_bits")), facts.number(row.get("a_bits"))) for row in rows],
        )
        for rows in zip(*(facts.rows(one.get("layers")) for one in at_width), strict=False)
    ]
    if not layers:
        return None
    moments = [row for row in facts.rows(told.get("trajectory")) if math.isfinite(facts.number(row.get("step")))]
    return Mixed(
        widths=[facts.name_of(one.get("width")) for one in at_width],
        layers=layers,
        steps=[facts.number(row.get("step")) for row in moments],
        w_bits=[_of_length(facts.numbers(row.get("w_bits")), len(at_width)) for row in moments],
        used=[_of_length(facts.numbers(row.get("used")), len(at_width)) for row in moments],
    )


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def _layer(row: Mapping[str, Any]) -> LearnedLayer:
    return LearnedLayer(
        name=facts.name_of(row.get("name")),
        macs=facts.amount(row.get("macs")),
        weights=facts.amount(row.get("weights")),
        w_learned=_known_bits(row.get("w_learned")),
        a_learned=_known_bits(row.get("a_learned")),
        w_bits=_known_bits(row.get("w_bits")),
        a_bits=_known_bits(row.get("a_bits")),
    )


def _moment(row: Mapping[str, Any], count: int) -> Moment:
    return Moment(
        step=facts.number(row.get("step")),
        costs={key: facts.number(row.get(key)) for key, _ in facts.COSTS},
        w_bits=_of_length(facts.numbers(row.get("w_bits")), count),
        a_bits=_of_length(facts.numbers(row.get("a_bits")), count),
    )


def _used(report: Report, found: Mapping[str, Any], quantity: str, limit: float) -> float:
    # What the finished network costs was counted for each quantity by itself; the method knows the tightest limit only.
    counted = facts.cost(report, "after", quantity) / limit
    return counted if math.isfinite(counted) else facts.number(facts.table(found.get("used")).get(quantity))


def _known_bits(value: Any) -> list[float]:
    return [bits for bits in facts.numbers(value) if 0 <= bits <= _FLOAT_BITS]


def _of_length(values: list[float], count: int) -> list[float]:
    return (values + [math.nan] * count)[:count]
