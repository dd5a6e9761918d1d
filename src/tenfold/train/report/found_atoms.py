"""What AtomNAS found, read from a report with care: atoms of each block before and after, and the way there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.train.report import facts
from tenfold.train.report.facts import Report


@dataclass(frozen=True)
class FoundBlock:
    """A block: its atoms by kernel size before and after, and what one atom of each size costs."""

    name: str
    is_residual: bool
    before: Mapping[int, int]
    after: Mapping[int, int]
    atom_costs: Mapping[int, float]

    @property
    def first(self) -> int:
        """Atoms at the start."""
        return sum(self.before.values())

    @property
    def left(self) -> int:
        """Atoms that are left."""
        return sum(self.after.values())

    @property
    def has_vanished(self) -> bool:
        """Whether it had atoms and lost all of them."""
        return self.first > 0 and self.left == 0

    @property
    def cost(self) -> float:
        """What its atoms cost together; NaN where that is not known."""
        return sum(
            (count * self.atom_costs.get(kernel, math.nan) for kernel, count in self.after.items() if count), 0.0
        )


@dataclass(frozen=True)
class AtomMoment:
    """One point of the search: costs by quantity, and atoms left by kernel size."""

    step: float
    costs: Mapping[str, float]
    atoms: Mapping[int, int]


@dataclass(frozen=True)
class Shrunk:
    """What AtomNAS found: limits by quantity and what is used of them, the blocks, and the way there."""

    quantity: str
    limits: Mapping[str, float]
    used: Mapping[str, float]
    blocks: list[FoundBlock]
    moments: list[AtomMoment]

    @property
    def kernels(self) -> list[int]:
        """All kernel sizes, ascending."""
        return sorted({kernel for block in self.blocks for kernel in (*block.before, *block.after)})

    @property
    def before(self) -> Counter[int]:
        """Atoms at the start by kernel size."""
        return sum((Counter(block.before) for block in self.blocks), Counter[int]())

    @property
    def after(self) -> Counter[int]:
        """Atoms left by kernel size; a size without any counts 0."""
        return sum((Counter(block.after) for block in self.blocks), Counter[int]())

    @property
    def quantities(self) -> list[str]:
        """The quantities worth drawing: what is limited, else what the penalty weighs."""
        return list(self.limits) or [self.quantity]


def shrunk(report: Report) -> Shrunk | None:
    """What AtomNAS found; None if it took no part, or left no block that could be read."""
    found = facts.table(facts.table(report.get("found")).get("atomnas"))
    quantity = found.get("quantity")
    quantity = quantity if isinstance(quantity, str) and quantity in facts.LABELS else "macs"
    blocks = [_block(row, quantity) for row in facts.rows(found.get("blocks"))]
    if not any(block.first or block.left for block in blocks):
        return None
    asked = facts.table(found.get("limits"))
    limits = {name: limit for name in facts.LABELS if (limit := facts.number(asked.get(name))) > 0}
    moments = [_moment(row) for row in facts.rows(found.get("trajectory"))]
    return Shrunk(
        quantity=quantity,
        limits=limits,
        used={name: _cost(report, found, name) / limit for name, limit in limits.items()},
        blocks=blocks,
        moments=_with_start(found, blocks, [moment for moment in moments if math.isfinite(moment.step)]),
    )


def _block(row: Mapping[str, Any], quantity: str) -> FoundBlock:
    costs = facts.table(row.get("costs"))
    before, after = _counts(row.get("before")), _counts(row.get("after"))
    return FoundBlock(
        name=name if isinstance(name := row.get("name"), str) else "",
        is_residual=row.get("residual") is True,
        before=before,
        after=after,
        atom_costs={
            kernel: facts.amount(facts.table(costs.get(str(kernel))).get(quantity)) for kernel in {**before, **after}
        },
    )


def _counts(value: Any) -> dict[int, int]:
    """Numbers of atoms by kernel size."""
    read = {str(kernel): facts.number(count) for kernel, count in facts.table(value).items()}
    return {
        int(kernel): round(count)
        for kernel, count in read.items()
        if kernel.isascii() and kernel.isdigit() and len(kernel) < 4 and 0 <= count < 1e9
    }


def _moment(row: Mapping[str, Any]) -> AtomMoment:
    return AtomMoment(
        step=facts.number(row.get("step")),
        costs={name: facts.amount(row.get(name)) for name in facts.LABELS},
        atoms=_counts(row.get("atoms")),
    )


def _with_start(found: Mapping[str, Any], blocks: list[FoundBlock], moments: list[AtomMoment]) -> list[AtomMoment]:
    """Put the supernet before the first recorded step: its cost is the last one and that of the atoms now gone."""
    if not moments or moments[0].step <= 0:
        return moments
    costs = {}
    for name in facts.LABELS:
        costs[name] = facts.amount(facts.table(found.get("cost")).get(name)) + sum(
            (block.before[kernel] - block.after.get(kernel, 0))
            * facts.amount(facts.table(facts.table(row.get("costs")).get(str(kernel))).get(name))
            for block, row in zip(blocks, facts.rows(found.get("blocks")), strict=True)
            for kernel in block.before
        )
    atoms = sum((Counter(block.before) for block in blocks), Counter[int]())
    return [AtomMoment(0.0, costs, atoms), *moments]


def _cost(report: Report, found: Mapping[str, Any], quantity: str) -> float:
    # What the finished network costs was counted, its latency measured; the method only adds up what atoms cost.
    measured = quantity == "latency_ms"
    counted = facts.number(report.get(quantity)) if measured else facts.cost(report, "after", quantity)
    return counted if math.isfinite(counted) else facts.amount(facts.table(found.get("cost")).get(quantity))
