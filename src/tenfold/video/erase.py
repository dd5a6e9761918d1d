"""Erasing: what masks cover is taken out of a video, frame by frame, with a soft seam and bounded memory.

The masks grow by a rim, the hole is filled by an `InpaintSession`, and within the rim (never in the object, never
outside) the filling fades into the source. All else leaves as it came, to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.data.holes import dilated
from tenfold.errors import UnknownNameError, UsageError
from tenfold.video.filling import Filling
from tenfold.video.flow import FlowEstimator
from tenfold.video.inpaint import InpaintedFrame, InpaintOptions, InpaintSession

Preset = Literal["fast", "good", "best"]

PRESETS: Mapping[str, Mapping[str, int]] = {
    "fast": {"longest_side": 288, "passes": 1, "reach": 16},
    "good": {"longest_side": 432, "passes": 2, "reach": 24},
    "best": {"longest_side": 864, "passes": 2, "reach": 40},
}
"""Working size and search of each preset; frames are filled and put together at their own size with all of them."""

_FEATHER = 3


@dataclass(frozen=True, kw_only=True)
class EraseOptions:
    """How things are erased.

    Args:
        dilate: pixels that the masks grow, so that no rim of the object stays behind.
        feather: pixels, of those grown, over which the filling fades into the source; None for 3, or all that are grown
            if they are fewer.
        preset: "fast", "good" or "best"; see PRESETS.
        cuts: whether to look for cuts.
        memory_mb: frames are held in at most about so many megabytes.

    Raises:
        UnknownNameError: if there is no such preset.
        UsageError: if a number is not allowed.
    """

    dilate: int = 6
    feather: int | None = None
    preset: Preset = "good"
    cuts: bool = True
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UnknownNameError("preset", self.preset, PRESETS)
        if not 0 <= self.dilate <= 200:
            raise UsageError(f"dilate is {self.dilate}; allowed are 0 to 200 pixels.")
        if not 0 <= self.fading <= self.dilate:
            raise UsageError(
                f"feather is {self.feather}; allowed are 0 to {self.dilate} pixels, those that the masks grow (dilate)."
            )

    @property
    def fading(self) -> int:
        """Pixels over which the filling fades."""
        return min(_FEATHER, self.dilate) if self.feather is None else self.feather

    def inpainting(self) -> InpaintOptions:
        """The options of the session; masks have grown before they come to it."""
        return InpaintOptions(cuts=self.cuts, memory_mb=self.memory_mb, **PRESETS[self.preset])


def erase_frames(
    frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    options: EraseOptions | None = None,
    *,
    filling: Filling | None = None,
    estimator: FlowEstimator | None = None,
    first: int = 0,
) -> Iterator[InpaintedFrame]:
    """Erase what masks cover, frame by frame.

    Args:
        frames: pairs of a frame, uint8 (H, W, 3), and the mask of what is to go, bool (H, W).
        options: see EraseOptions.
        filling: fills what no frame shows; smoothly by default.
        estimator: finds the optical flow; DIS by default.
        first: number of the first frame wanted. Those before are looked at no more than is needed for the same result.

    Yields:
        The frames from `first` on, in order; `provenance` is 0 outside the grown mask.

    Raises:
        ShapeError: if frames and masks are not of one size.
        UsageError: if the first frame is negative.

    Example:
        >>> frames = [(np.full((32, 48, 3), 90, np.uint8), np.zeros((32, 48), np.bool_)) for _ in range(3)]
        >>> [done.number for done in erase_frames(frames, first=1)]
        [1, 2]
    """
    if first < 0:
        raise UsageError(f"the first frame wanted is {first}; frames are counted from 0.")
    options = options or EraseOptions()
    session = InpaintSession(options.inpainting(), filling=filling, estimator=estimator)
    waiting: deque[tuple[NDArray[np.uint8], Rim | None]] = deque()
    scene, is_skipping = 0, True
    for number, (frame, mask) in enumerate(frames):
        grown, rim = grown_mask(mask, options.dilate, options.fading)
        if is_skipping:
            if session.begins_scene(frame, grown):
                scene = number
            assert session.plan is not None
            hop = session.plan.hop
            is_skipping = number <= first - session.settled_after - hop or (number - scene) % hop != 0
        if is_skipping:
            session.skip(frame, grown)
            continue
        waiting.append((frame, rim))
        for done in session.push(frame, grown):
            if done.number >= first:
                yield _faded(done, *waiting[0])
            waiting.popleft()
    for done in session.finish():
        if done.number >= first:
            yield _faded(done, *waiting[0])
        waiting.popleft()


@dataclass(frozen=True, eq=False)
class Rim:
    """Where the filling fades into the source, in the box of a grown mask.

    Args:
        box: rows and columns.
        part: of the filling, float32 (h, w): 1 in the object and near it, less towards the edge of the grown mask.
    """

    box: tuple[slice, slice]
    part: NDArray[np.float32]


def grown_mask(mask: NDArray[np.bool_], dilate: int, feather: int) -> tuple[NDArray[np.bool_], Rim | None]:
    """A mask that has grown, and how its rim fades.

    Args:
        mask: bool (H, W).
        dilate: pixels that it grows.
        feather: pixels of those that fade; the object itself never does.

    Returns:
        The grown mask, bool (H, W), and the rim; None where nothing fades.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows) or not dilate:
        return mask, None
    box = (_around(rows, dilate, mask.shape[0]), _around(columns, dilate, mask.shape[1]))
    inner = dilated(mask[box], dilate - feather)
    part = inner.astype(np.float32)
    outer = inner
    for step in range(1, feather + 1):
        before, outer = outer, dilated(outer, 1)
        part[outer & ~before] = 1 - step / (feather + 1)
    grown = np.zeros_like(mask)
    grown[box] = outer
    return grown, Rim(box, part) if feather else None


def _around(used: NDArray[np.int64], margin: int, size: int) -> slice:
    return slice(max(0, int(used[0]) - margin), min(size, int(used[-1]) + 1 + margin))


def _faded(done: InpaintedFrame, source: NDArray[np.uint8], rim: Rim | None) -> InpaintedFrame:
    """The rim of a filled frame faded into the source."""
    if rim is None:
        return done
    frame = done.frame.copy()
    fading = (rim.part > 0) & (rim.part < 1)
    part = rim.part[fading][:, None]
    mixed = part * done.frame[rim.box][fading] + (1 - part) * source[rim.box][fading]
    frame[rim.box][fading] = np.rint(mixed)
    return replace(done, frame=frame)
