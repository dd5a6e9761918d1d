"""Which atoms go so that a limit is kept: the least important ones, but never all that a block needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tenfold.methods.atoms import AtomGroup

USUAL_MULTIPLE, LARGE_GROUP = 8, 64
"""Where nothing else is asked for, groups of at least so many atoms keep a multiple of so many."""


def least_important(
    groups: Sequence[AtomGroup],
    scores: Mapping[str, Tensor],
    shares: Mapping[str, Mapping[str, float]],
    start: Mapping[str, float],
    multiple: int | None,
) -> dict[str, Tensor]:
    """Mark atoms, the portions with the smallest mean scores first, until no limit is exceeded.

    Args:
        groups: of the network.
        scores: importance of each atom, (atoms,), by the group's producer.
        shares: what one atom of a group costs, as a share of each limit.
        start: what the network costs, as shares of the limits; kept are limits with 1 or less.
        multiple: as of `portions`.

    Returns:
        Masks of the atoms to remove, (atoms,), by the group's producer.
    """
    by_producer = {group.producer: group for group in groups}
    dead = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    alive = {name: len(score) for name, score in scores.items()}
    in_block = {block: sum(alive[one.producer] for one in found) for block, found in by_block(groups).items()}
    costs = dict(start)
    ranking = sorted(
        (float(values[portion].mean()), order, name, portion)
        for name, values in scores.items()
        for order, portion in enumerate(portions(values, multiple))
    )
    for _, _, name, portion in ranking:
        if max(costs.values()) <= 1:
            break
        group = by_producer[name]
        is_last_of_block = in_block[group.block] == len(portion) and not group.is_residual
        if is_last_of_block or (alive[name] == len(portion) and group.branch is None):
            continue
        dead[name][portion] = True
        alive[name] -= len(portion)
        in_block[group.block] -= len(portion)
        for limit, share in shares[name].items():
            costs[limit] -= share * len(portion)
    return dead


def portions(scores: Tensor, multiple: int | None) -> list[list[int]]:
    """What of a group goes at once, so that a multiple of so many atoms is left: their indices, the weakest first.

    The last few atoms, as many as the multiple, go one by one.

    Args:
        scores: importance of each atom, (atoms,).
        multiple: of what; None: of `USUAL_MULTIPLE` in groups that have `LARGE_GROUP` atoms or more.
    """
    order: list[int] = scores.argsort(stable=True).tolist()
    unit = multiple or (USUAL_MULTIPLE if len(order) >= LARGE_GROUP else 1)
    together = max(0, len(order) - unit)
    ends = sorted({0, *range(together % unit, together, unit), *range(together, len(order) + 1)})
    return [order[start:end] for start, end in pairwise(ends)]


def by_block(groups: Sequence[AtomGroup]) -> dict[str, list[AtomGroup]]:
    """The groups of each block, in order."""
    blocks: dict[str, list[AtomGroup]] = {}
    for group in groups:
        blocks.setdefault(group.block, []).append(group)
    return blocks
