"""What stands behind propagation: filling the pixels that no frame shows.

A filler gets a window of frames in which every pixel that could be copied already is. `SmoothFilling` needs nothing
else; a network takes its place behind the same interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.video.flow import PairFlow
from tenfold.video.harmonic import filled_smoothly


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive frames of one scene, at working size.

    Args:
        frames: uint8 (T, H, W, 3), copied pixels in place; what stands in `rest` does not matter.
        rest: pixels that are still to be filled, bool (T, H, W).
        copied: pixels that were copied from other frames, bool (T, H, W).
        flows: between frame t and t+1, at the size of the frames; None where neither has a hole, and for a filler that
            asks for none.
        wanted: the frames to be filled; those before and after are context.
    """

    frames: NDArray[np.uint8]
    rest: NDArray[np.bool_]
    copied: NDArray[np.bool_]
    flows: Sequence[PairFlow | None]
    wanted: range


@dataclass(frozen=True, eq=False)
class Filled:
    """What a filler made of a window.

    Args:
        frames: of the wanted frames, uint8 (N, H, W, 3); only the pixels in `rest` and `repaired` count.
        repaired: copied pixels that were changed, bool (N, H, W).
    """

    frames: NDArray[np.uint8]
    repaired: NDArray[np.bool_]


class Filling(Protocol):
    """Anything that fills what is left of the holes."""

    context: int
    """Frames before and after the wanted ones that it wants to see."""
    needs_flow: bool
    """Whether it uses the flows of a window, over the whole frame."""

    def fill(self, window: Window) -> Filled:
        """Fill the rest of the wanted frames."""


class SmoothFilling:
    """Each frame's rest filled by itself as smoothly as can be; a frame of which nothing is known, from its neighbours.

    Args:
        context: frames before and after in which a whole lost frame finds its neighbours.
    """

    needs_flow = False

    def __init__(self, context: int = 3) -> None:
        self.context = context

    def fill(self, window: Window) -> Filled:
        """See Filling."""
        frames = window.frames[window.wanted.start : window.wanted.stop].copy()
        lost = np.all(window.rest, (1, 2))
        for row, at in enumerate(window.wanted):
            if lost[at]:
                frames[row] = _between(window, lost, at)
            elif window.rest[at].any():
                frames[row] = filled_smoothly(window.frames[at], window.rest[at])
        return Filled(frames, np.zeros_like(window.rest[: len(frames)]))


def _between(window: Window, lost: NDArray[np.bool_], at: int) -> NDArray[np.uint8]:
    """A lost frame, faded from the nearest frame before to the nearest after; mid-grey where there is neither."""
    seen = np.flatnonzero(~lost)
    before, after = seen[seen < at], seen[seen > at]
    ends = [*before[-1:], *after[:1]]
    if not ends:
        return np.full(window.frames.shape[1:], 128, np.uint8)
    whole = [filled_smoothly(window.frames[end], window.rest[end]) for end in ends]
    if len(ends) == 1:
        return whole[0]
    part = (at - ends[0]) / (ends[1] - ends[0])
    return np.rint((1 - part) * whole[0] + part * whole[1]).astype(np.uint8)
