"""Random numbers that are a pure function of (seed, epoch, index, which choice).

A training that was killed, or that runs with another number of workers, meets exactly the same choices, because there
is no state to lose: each number is a hash of its coordinates. No global random state is read or changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class Draws:
    """The random choices for some images of one epoch.

    Args:
        seed: of the training; any whole number.
        epoch: counted from 0.
        indices: the images' positions in the data set, int64 (B,).
    """

    seed: int
    epoch: int
    indices: NDArray[np.int64]

    def uniform(self, choice: int) -> NDArray[np.float64]:
        """One number in [0, 1) for each image, float64 (B,); `choice` numbers the decision it is for."""
        return (self._bits(choice) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, choice: int, count: int) -> NDArray[np.int64]:
        """One whole number in 0..count-1 for each image, int64 (B,)."""
        return (self.uniform(choice) * count).astype(np.int64)

    def normal(self, choice: int) -> NDArray[np.float64]:
        """One standard normal number for each image, float64 (B,); uses up `choice` and the one behind it."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(choice)))
        return radius * np.cos(2 * np.pi * self.uniform(choice + 1))

    def order(self) -> NDArray[np.int64]:
        """The indices in random order, int64 (B,)."""
        return self.indices[np.argsort(self._bits(_ORDER), kind="stable")]

    def _bits(self, choice: int) -> NDArray[np.uint64]:
        state = np.zeros(1, np.uint64)
        for part in (self.seed, self.epoch, choice):
            state = _mixed(state ^ np.uint64(part & _MASK))
        return _mixed(state ^ self.indices.astype(np.uint64))


_ORDER = -1


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    z = state + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stratified_order(targets: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """A random order of all images in which every beginning holds the classes in proportion.

    The first n images are a subset of n; the first tenth is a validation split of a tenth.

    Args:
        targets: class of each image, int64 (N,).
        seed: another seed gives another order.

    Returns:
        Positions 0..N-1, int64 (N,).
    """
    shuffled = Draws(seed, 0, np.arange(len(targets))).order()
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    counts = np.bincount(targets[by_class]) if len(targets) else np.zeros(0, np.int64)
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(targets)) - starts[targets[by_class]]
    position = np.empty(len(targets))
    position[by_class] = (rank + 0.5) / counts[targets[by_class]]
    return shuffled[np.argsort(position[shuffled], kind="stable")]
