"""Which atoms go so that a limit is kept: the least important ones, but never all that a block needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tenfold.methods.atoms import AtomGroup


def least_important(
    groups: Sequence[AtomGroup],
    scores: Mapping[str, Tensor],
    shares: Mapping[str, Mapping[str, float]],
    start: Mapping[str, float],
    multiple: int,
) -> dict[str, Tensor]:
    """Mark atoms, the smallest scores first, until no limit is exceeded.

    Args:
        groups: of the network.
        scores: importance of each atom, (atoms,), by the group's producer.
        shares: what one atom of a group costs, as a share of each limit.
        start: what the network costs, as shares of the limits; kept are limits with 1 or less.
        multiple: leave a multiple of so many atoms in each group that has more, the strongest.

    Returns:
        Masks of the atoms to remove, (atoms,), by the group's producer.
    """
    by_producer = {group.producer: group for group in groups}
    dead = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    alive = {name: len(score) for name, score in scores.items()}
    in_block = {block: sum(alive[one.producer] for one in found) for block, found in by_block(groups).items()}
    costs = dict(start)
    ranking = sorted(
        (score, index, name) for name, values in scores.items() for index, score in enumerate(values.tolist())
    )
    for _, index, name in ranking:
        if max(costs.values()) <= 1:
            break
        group = by_producer[name]
        is_last_of_block = in_block[group.block] == 1 and not group.is_residual
        if is_last_of_block or (alive[name] == 1 and group.branch is None):
            continue
        dead[name][index] = True
        alive[name] -= 1
        in_block[group.block] -= 1
        for limit, share in shares[name].items():
            costs[limit] -= share
    for name, score in scores.items():
        surplus = alive[name] % multiple if alive[name] > multiple else 0
        order = torch.where(dead[name], torch.inf, score).argsort()
        dead[name][order[:surplus]] = True
    return dead


def by_block(groups: Sequence[AtomGroup]) -> dict[str, list[AtomGroup]]:
    """The groups of each block, in order."""
    blocks: dict[str, list[AtomGroup]] = {}
    for group in groups:
        blocks.setdefault(group.block, []).append(group)
    return blocks
