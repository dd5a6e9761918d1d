"""Flow-guided propagation: what a hole hides in one frame is copied from the nearest frames that show it.

For each pixel in a hole the flow leads to the next frame, from there on to the one behind it, and so on, until the path
leaves all holes; only links that pass the forward-backward check are taken. What is carried along a path is not a
colour, which every step would blur a little, but *where the colour comes from*: the frame, and the position in it.
Colours are read once, at the end, from that frame, at full size if it is larger than the flow. The same numbers are
the provenance of every copied pixel. The work is proportional to the pixels in holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.kernels.copying import Points, add_colours
from tenfold.kernels.library import native
from tenfold.video.flow import Flow, returns

NOT_FOUND = -1
"""Stands for "no frame"."""

Pictures = Mapping[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""Frames with their holes, by number."""


@dataclass(frozen=True, eq=False)
class Hole:
    """The pixels of one frame's hole, numbered.

    Args:
        mask: bool (H, W), True = hole.
        rows: row of each, (N,).
        columns: column of each, (N,).
        number: number of each pixel, NOT_FOUND outside the hole, int32 (H, W).
    """

    mask: NDArray[np.bool_]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    number: NDArray[np.int32]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Hole:
        """Number the pixels of a mask, row by row."""
        rows, columns = np.nonzero(mask)
        number = np.full(mask.shape, NOT_FOUND, np.int32)
        number[rows, columns] = np.arange(len(rows), dtype=np.int32)
        return cls(mask, rows, columns, number)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Link:
    """Where the pixels of a hole are seen in a neighbouring frame.

    Args:
        place: position (x, y) of each, float32 (2, N).
        valid: whether to trust it, bool (N,).
    """

    place: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sources:
    """Where the colours of a hole's pixels come from.

    Args:
        frame: number of the frame, NOT_FOUND where no path leads out of the holes, int64 (N,).
        place: position (x, y) in it, float32 (2, N).
    """

    frame: NDArray[np.int64]
    place: NDArray[np.float32]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether there is a source, bool (N,)."""
        return self.frame != NOT_FOUND

    @classmethod
    def none(cls, count: int) -> Sources:
        """No source for any of so many pixels."""
        return cls(np.full(count, NOT_FOUND, np.int64), np.zeros((2, count), np.float32))


def link(hole: Hole, flow: Flow, reverse: Flow, corner: tuple[int, int] = (0, 0)) -> Link:
    """Where a hole's pixels are seen in a neighbouring frame, checked forward and backward.

    Args:
        hole: of the frame that the flow starts from.
        flow: to the neighbour, (2, h, w), of a part of the frame that holds the whole hole.
        reverse: from the neighbour, (2, h, w), of the same part.
        corner: row and column of that part's first pixel.

    Returns:
        Positions in the whole frame.
    """
    rows, columns = hole.rows - corner[0], hole.columns - corner[1]
    step = flow[:, rows, columns]
    place = np.stack([columns, rows]).astype(np.float32) + step
    valid = returns(step, place, reverse)
    return Link(place + np.array([[corner[1]], [corner[0]]], np.float32), valid)


def follow(link: Link, neighbour: Hole, sources: Sources, number: int) -> Sources:
    """One step of the recursion: sources of a hole's pixels from those of its neighbour's.

    Args:
        link: from the hole to the neighbouring frame.
        neighbour: that frame's hole.
        sources: of its pixels.
        number: that frame's own number.
    """
    height, width = neighbour.mask.shape
    x = np.clip(np.rint(link.place[0]), 0, width - 1).astype(np.int64)
    y = np.clip(np.rint(link.place[1]), 0, height - 1).astype(np.int64)
    frame = np.where(link.valid, number, NOT_FOUND)
    place = link.place.copy()
    again = np.flatnonzero(link.valid & neighbour.mask[y, x])
    at = neighbour.number[y[again], x[again]]
    frame[again] = sources.frame[at]
    # Between pixels the surface moves along with the nearest one that has a source.
    place[:, again] += sources.place[:, at] - np.stack([x[again], y[again]]).astype(np.float32)
    return Sources(frame, place)


def read_colours(
    frame: NDArray[np.uint8], hole: NDArray[np.bool_], place: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Colours between the pixels of a frame, bilinearly among the known ones.

    Args:
        frame: uint8 (H, W, 3).
        hole: its hole, bool (H, W).
        place: positions (x, y), float32 (2, N); outside they are moved to the border.

    Returns:
        Colours float32 (N, 3) in 0..255, and whether any known pixel was there, bool (N,).
    """
    height, width = hole.shape
    x, y = np.clip(place[0], 0, width - 1), np.clip(place[1], 0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left).astype(np.float32), (y - top).astype(np.float32)
    colours, total = np.zeros((len(x), 3), np.float32), np.zeros(len(x), np.float32)
    for row, column, weight in (
        (top, left, (1 - across) * (1 - down)),
        (top, left + 1, across * (1 - down)),
        (top + 1, left, (1 - across) * down),
        (top + 1, left + 1, across * down),
    ):
        row, column = np.minimum(row, height - 1), np.minimum(column, width - 1)
        weight = weight * ~hole[row, column]
        colours += weight[:, None] * frame[row, column]
        total += weight
    shown = (colours / np.maximum(total, 1e-6)[:, None]).astype(np.float32)
    return shown, total > 1e-6


def mix(number: int, before: Sources, after: Sources) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of the two directions for each pixel: the nearer in time a source, the larger.

    Args:
        number: of the frame.
        before: sources among earlier frames.
        after: sources among later frames.

    Returns:
        Two weights (N,) that sum to 1 where a source was found, else to 0.
    """
    weights = [
        np.where(sources.found, 1 / np.maximum(np.abs(number - sources.frame), 1), 0).astype(np.float32)
        for sources in (before, after)
    ]
    total = np.maximum(weights[0] + weights[1], 1e-9)
    return weights[0] / total, weights[1] / total


def copied_colours(
    number: int, before: Sources, after: Sources, pictures: Pictures
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours of a hole's pixels from both directions.

    Args:
        number: of the frame.
        before: sources among earlier frames.
        after: sources among later frames.
        pictures: all frames that sources name.

    Returns:
        uint8 (N, 3), and where there are any, bool (N,).
    """
    total, weight = np.zeros((len(before.frame), 3), np.float32), np.zeros(len(before.frame), np.float32)
    shares = mix(number, before, after)
    directions = [(one.frame, one.place, share) for one, share in zip((before, after), shares, strict=True)]
    (add_colours if native() else _add_colours)(directions, pictures, total, weight)
    got = weight > 0
    return np.rint(total / np.where(got, weight, 1)[:, None]).astype(np.uint8), got


def _add_colours(
    directions: Sequence[Points], pictures: Pictures, total: NDArray[np.float32], weight: NDArray[np.float32]
) -> None:
    """The twin of `tenfold.kernels.copying.add_colours`."""
    for frames, place, share in directions:
        for source in np.unique(frames[frames != NOT_FOUND]).tolist():
            at = np.flatnonzero(frames == source)
            colours, seen = read_colours(*pictures[source], place[:, at])
            part = share[at] * seen
            total[at] += colours * part[:, None]
            weight[at] += part
