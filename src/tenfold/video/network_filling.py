"""A network behind the copying: it fills what no frame shows, in the box of what is left, window by window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.holes import dilated
from tenfold.errors import ShapeError, UsageError
from tenfold.video.filling import Filled, Window
from tenfold.video.harmonic import filled_smoothly

if TYPE_CHECKING:
    from tenfold.video.engine_choice import EngineReport


class NetworkInputs(NamedTuple):
    """What a network sees of a window; B = 1, H and W are multiples of the network's.

    Args:
        frames: float32 (B, T, 3, H, W) in 0..1, 0 where not known.
        known: float32 (B, T, 1, H, W), 1 = known or copied, 0 = to be filled.
        copied: float32 (B, T, 1, H, W), 1 = copied from another frame.
        flow_fwd: float32 (B, T-1, 2, H, W): pixel p of frame t is seen at p + flow in frame t+1; x, y in pixels.
        flow_bwd: float32 (B, T-1, 2, H, W): pixel p of frame t+1 is seen at p + flow in frame t.
        invalid_fwd: float32 (B, T-1, 1, H, W), 1 = do not use the flow there.
        invalid_bwd: float32 (B, T-1, 1, H, W), likewise.
    """

    frames: NDArray[np.float32]
    known: NDArray[np.float32]
    copied: NDArray[np.float32]
    flow_fwd: NDArray[np.float32]
    flow_bwd: NDArray[np.float32]
    invalid_fwd: NDArray[np.float32]
    invalid_bwd: NDArray[np.float32]


RunNetwork = Callable[[NetworkInputs], NDArray[np.float32]]
"""A network, in whichever runtime: gives frames (B, T, 3, H, W), nominally in 0..1."""


def over_smooth(run: RunNetwork) -> RunNetwork:
    """A network that was trained to say what is to be added to the smooth filling, as one that gives colours.

    Args:
        run: gives differences; see the option `base` of the task "inpaint".
    """

    def added(inputs: NetworkInputs) -> NDArray[np.float32]:
        frames, holes = inputs.frames[0], inputs.known[0, :, 0] < 0.5
        pictures = np.rint(np.moveaxis(frames, 1, -1) * 255).astype(np.uint8)
        smooth = np.stack([filled_smoothly(one, hole) for one, hole in zip(pictures, holes, strict=True)])
        return np.float32(1 / 255) * np.moveaxis(smooth, -1, 1)[None].astype(np.float32) + run(inputs)

    return added


class NetworkFilling:
    """Fills the rest of a window by a network; see `tenfold.video.filling.Filling`.

    The work is proportional to what is left: only its box and a margin are seen. Frames at the seam of two windows are
    faded from one to the other. Copied pixels stay as they are, save a seam around what was filled, if one is asked
    for, so that no pixel that was found can become worse.

    Args:
        run: the network.
        context: frames before and after the wanted ones.
        multiple: of which sides have to be, 8 for TSAM.
        margin: pixels around what is left that the network sees, at working size.
        seam: width in pixels of the rim of copied pixels that the network may repair.

    Raises:
        UsageError: if a number is not allowed.
    """

    needs_flow = True

    def __init__(
        self, run: RunNetwork, *, context: int = 3, multiple: int = 8, margin: int = 48, seam: int = 0
    ) -> None:
        if context < 0 or multiple < 1 or margin < 0 or seam < 0:
            raise UsageError(
                f"context {context}, multiple {multiple}, margin {margin}, seam {seam} are not allowed; the multiple "
                "is at least 1, the others at least 0."
            )
        self.context = context
        self._run, self._multiple, self._margin, self._seam = run, multiple, margin, seam
        self._ahead: list[NDArray[np.float32]] = []

    @property
    def engine(self) -> EngineReport | None:
        """Which runtime runs the network; None as long as none did, or where there is no choice."""
        return getattr(self._run, "report", None)

    def fill(self, window: Window) -> Filled:
        """See Filling; the windows of a scene must come in order, the first one without context before it.

        Raises:
            ShapeError: if the network gives another shape than it was given.
        """
        if window.wanted.start == 0:
            self._ahead = []  # a new scene
        box = self._box(window.rest)
        inputs = network_inputs(window, box, self._multiple)
        made = np.asarray(self._run(inputs), np.float32)
        if made.shape != inputs.frames.shape:
            raise ShapeError(
                f"the network gave {made.shape} for frames of {inputs.frames.shape}; they must be the same."
            )
        height, width = (side.stop - side.start for side in box)
        whole = np.full((*window.rest.shape, 3), np.nan, np.float32)
        whole[:, box[0], box[1]] = np.moveaxis(made[0, :, :, :height, :width], 1, -1)
        before, self._ahead = self._ahead, list(whole[window.wanted.stop :])
        faded = [self._faded(before, row, whole[at], len(before)) for row, at in enumerate(window.wanted)]
        frames = window.frames[window.wanted.start : window.wanted.stop].copy()
        repaired = np.zeros_like(window.rest[: len(frames)])
        for row, (at, colours) in enumerate(zip(window.wanted, faded, strict=True)):
            rest = window.rest[at]
            if not rest.any():
                continue
            sound = np.isfinite(colours).all(-1)
            if (rest & ~sound).any():
                frames[row][rest] = filled_smoothly(frames[row], rest)[rest]
            repaired[row] = dilated(rest, self._seam) & window.copied[at] & sound
            changed = (rest & sound) | repaired[row]
            frames[row][changed] = np.rint(np.clip(colours[changed], 0, 1) * 255)
        return Filled(frames, repaired)

    def _box(self, rest: NDArray[np.bool_]) -> tuple[slice, slice]:
        """Rows and columns that the network sees."""
        sides = []
        for axis in (2, 1):
            used = np.flatnonzero(rest.any((0, axis)))
            low, high = max(0, int(used[0]) - self._margin), int(used[-1]) + 1 + self._margin
            sides.append(slice(low, min(high, rest.shape[3 - axis])))
        return sides[0], sides[1]

    @staticmethod
    def _faded(
        before: list[NDArray[np.float32]], row: int, colours: NDArray[np.float32], count: int
    ) -> NDArray[np.float32]:
        """A frame that the window before has filled as well: from that one to this one, linearly."""
        if row >= count:
            return colours
        part = np.float32((row + 1) / (count + 1))
        both = (1 - part) * before[row] + part * colours
        return np.where(np.isfinite(both), both, colours)


def network_inputs(window: Window, box: tuple[slice, slice], multiple: int = 1) -> NetworkInputs:
    """A part of a window as a network takes it, its last rows and columns repeated up to a multiple.

    Args:
        window: frames of one scene.
        box: rows and columns.
        multiple: of which the sides must be.
    """
    count = len(window.frames)
    size = tuple(side.stop - side.start for side in box)
    spare = [(0, -side % multiple) for side in size]
    known = np.pad(~window.rest[:, box[0], box[1]], ((0, 0), *spare), "edge").astype(np.float32)[None, :, None]
    copied = np.pad(window.copied[:, box[0], box[1]], ((0, 0), *spare), "edge").astype(np.float32)[None, :, None]
    frames = np.pad(window.frames[:, box[0], box[1]], ((0, 0), *spare, (0, 0)), "edge")
    colours = np.moveaxis(frames, -1, 1)[None].astype(np.float32) * (known / np.float32(255))
    flows = np.zeros((2, 1, count - 1, 2, *known.shape[3:]), np.float32)
    invalid = np.ones((2, 1, count - 1, 1, *known.shape[3:]), np.float32)
    for at, pair in enumerate(window.flows):
        if pair is None:
            continue
        both = ((pair.forward, pair.valid_forward), (pair.backward, pair.valid_backward))
        for direction, (flow, valid) in enumerate(both):
            flows[direction, 0, at] = np.pad(flow[:, box[0], box[1]], ((0, 0), *spare), "edge")
            # What was added at the border is no part of the scene.
            invalid[direction, 0, at, 0] = np.pad(~valid[box], spare, constant_values=True)
    return NetworkInputs(colours, known, copied, flows[0], flows[1], invalid[0], invalid[1])
