"""Which images stand in which batch: a pure function of (seed, epoch, step, rank), the same for every task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Draws
from tenfold.errors import UsageError

Rows = NDArray[np.int64]
"""Positions of images in a data set, (B,)."""


def batches_per_epoch(count: int, batch_size: int, world_size: int = 1) -> int:
    """Training steps in one epoch: whole batches only, but one batch where there are fewer images.

    Args:
        count: training images.
        batch_size: images that one rank gets in a step.
        world_size: number of ranks.

    Raises:
        UsageError: if a number is not positive.
    """
    check_positive(batch_size=batch_size, world_size=world_size)
    return max(1, count // (batch_size * world_size))


def training_rows(
    rows: Rows, *, epoch: int, batch_size: int, seed: int, start: int, rank: int, world_size: int
) -> Iterator[Rows]:
    """This rank's images of each step, from step `start`.

    Together the ranks see in one step what a single rank with a batch `world_size` times as large would see.

    Args:
        rows: the training images.
        epoch: counted from 0; each has an order of its own.
        batch_size: images that one rank gets in a step.
        seed: of the training.
        start: first step to give; those before cost nothing.
        rank: number of this process, from 0.
        world_size: number of processes.

    Raises:
        UsageError: if an argument is out of range; at once, not at the first step.
    """
    steps = batches_per_epoch(len(rows), batch_size, world_size)
    _check_rank(rank, world_size)
    if not 0 <= start <= steps:
        raise UsageError(f"start is {start}; allowed is 0 to {steps}, the steps of an epoch.")
    share = min(batch_size, len(rows) // world_size)
    if not share:
        raise UsageError(f"{len(rows)} training images are too few for {world_size} processes.")
    order = Draws(seed, epoch, rows).order()
    firsts = [(step * world_size + rank) * share for step in range(start, steps)]
    return (order[first : first + share] for first in firsts)


def evaluation_rows(count: int, *, batch_size: int, rank: int, world_size: int) -> Iterator[Rows]:
    """This rank's evaluation images in order: every `world_size`-th, none twice, the last batch as it comes.

    Raises:
        UsageError: if an argument is out of range.
    """
    check_positive(batch_size=batch_size, world_size=world_size)
    _check_rank(rank, world_size)
    mine = np.arange(rank, count, world_size)
    return (mine[first : first + batch_size] for first in range(0, len(mine), batch_size))


def check_positive(**numbers: int) -> None:
    """Refuse numbers below 1, by their name.

    Raises:
        UsageError: naming the first.
    """
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} is {value}; allowed is a whole number from 1.")


def check_subset(subset: int | None, count: int) -> None:
    """Refuse a number of training images that there are not.

    Raises:
        UsageError: if it is out of range.
    """
    if subset is not None and not 1 <= subset <= count:
        raise UsageError(f"subset is {subset}; allowed is 1 to {count}, the number of training images.")


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise UsageError(f"rank is {rank}; allowed is 0 to {world_size - 1} with a world size of {world_size}.")
