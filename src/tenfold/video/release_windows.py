"""TSAM as its authors run it: whole frames in windows of fifteen, no copying first, each frame from one window alone.

This is the mode to compare with, and the straightforward implementation: neighbouring windows share six frames, which
are computed twice, and the whole frame is computed however small its hole. `NetworkFilling` in an `InpaintSession` is
the mode to use.

Source: released code of TSAM (arXiv 2104.03507).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import ShapeError, UsageError
from tenfold.video.filling import Window
from tenfold.video.flow import PairFlow
from tenfold.video.network_filling import RunNetwork, network_inputs

WINDOW, CONTEXT = 15, 3
_STRIDE = WINDOW - 2 * CONTEXT


@dataclass(frozen=True)
class ReleaseWindow:
    """One call of the network.

    Args:
        read: numbers of the frames that it sees.
        keep: which of its answers count, as positions in `read`.
    """

    read: range
    keep: range

    @property
    def write(self) -> range:
        """Numbers of the frames that its answers are for."""
        return range(self.read.start + self.keep.start, self.read.start + self.keep.stop)


def release_windows(count: int) -> list[ReleaseWindow]:
    """The windows of a clip in the order in which their answers are written; of two answers the later one stays.

    Args:
        count: number of frames.

    Raises:
        UsageError: if there is no frame.

    Example:
        >>> [(one.read, one.write) for one in release_windows(16)]
        [(range(0, 15), range(0, 12)), (range(1, 16), range(4, 16))]
    """
    if count < 1:
        raise UsageError(f"a clip of {count} frames has no windows; it has at least one frame.")
    if count <= WINDOW:
        return [ReleaseWindow(range(count), range(count))]
    windows = [
        ReleaseWindow(range(WINDOW), range(WINDOW - CONTEXT)),
        ReleaseWindow(range(count - WINDOW, count), range(CONTEXT, WINDOW)),
    ]
    starts = range(_STRIDE, count - WINDOW + 1, _STRIDE)
    return windows + [ReleaseWindow(range(start, start + WINDOW), range(CONTEXT, WINDOW - CONTEXT)) for start in starts]


def fill_as_released(
    frames: NDArray[np.uint8],
    holes: NDArray[np.bool_],
    flows: Sequence[PairFlow | None],
    run: RunNetwork,
    *,
    multiple: int = 8,
) -> NDArray[np.uint8]:
    """Fill a whole clip as the authors do; pixels outside the holes stay.

    Args:
        frames: uint8 (T, H, W, 3).
        holes: bool (T, H, W).
        flows: between frames t and t+1, of whole frames; see `tenfold.video.flow.pair_flow`.
        run: the network.
        multiple: of which the sides have to be.

    Returns:
        uint8 (T, H, W, 3).

    Raises:
        ShapeError: if sizes or numbers differ.
    """
    if frames.shape[:3] != holes.shape or len(flows) != len(frames) - 1:
        raise ShapeError(
            f"{len(frames)} frames of {frames.shape[1:3]}, holes of {holes.shape} and {len(flows)} flows do not fit; "
            "needed are a hole of the same size for each frame, and a flow between each two."
        )
    made = frames.copy()
    size = (slice(0, frames.shape[1]), slice(0, frames.shape[2]))
    for one in release_windows(len(frames)):
        part = slice(one.read.start, one.read.stop)
        pairs = flows[one.read.start : one.read.stop - 1]
        window = Window(frames[part], holes[part], np.zeros_like(holes[part]), pairs, range(len(one.read)))
        answers = run(network_inputs(window, size, multiple))[0, :, :, : size[0].stop, : size[1].stop]
        for position, number in zip(one.keep, one.write, strict=True):
            colours = np.moveaxis(answers[position], 0, -1)[holes[number]]
            made[number][holes[number]] = np.rint(np.clip(colours, 0, 1) * 255)
    return made
