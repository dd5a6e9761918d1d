"""Holes for training and judging, by the names of the protocols; and masks of objects to be removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.data.shape_holes import shape_masks
from tenfold.data.stroke_holes import COVERAGE_BINS, STROKE_PRESETS, stroke_masks
from tenfold.errors import ShapeError, UnknownNameError, UsageError

TEST_COVERAGE = 0.35
"""The bin of coverage that TSAM (arXiv 2104.03507) is judged in with moving holes."""
REMOVAL_DILATION = 10
"""Steps that an annotation grows before its object is removed."""

HOLE_KINDS = {
    "object": "moving strokes as thick as objects, at TSAM's test coverage of 30 to 40 %",
    "curve": "moving thin curves, at the same coverage",
    "stationary": "one smooth shape at rest",
    "shape": "one smooth shape, at rest or drifting with even chances",
    "strokes": "moving strokes of a random preset and a random bin of coverage up to 0.65",
    "mixed": "a shape with a chance of one third, else strokes: TSAM's mix for DAVIS",
}
_STROKE_TESTS = {"object": "object_like_middle", "curve": "rand_curve"}
_MOST_TRAINING_COVERAGE = 0.65
_THIN_PRESETS = {"rand_curve": 0.35, "rand_curve_small": 0.15}
"""The largest bin for curves: more of them would take hundreds of strokes a clip."""


def hole_masks(kind: str, frames: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Holes of a kind.

    Args:
        kind: one of HOLE_KINDS.
        frames: number of frames.
        height: of a frame in pixels.
        width: of a frame in pixels.
        rng: source of all choices; the same state gives the same masks.

    Returns:
        True = hole, bool (T, H, W).

    Raises:
        UnknownNameError: if the kind is not known.
        UsageError: if a size is not allowed.
    """
    if kind not in HOLE_KINDS:
        raise UnknownNameError("kind of hole", kind, HOLE_KINDS)
    if kind == "mixed":
        kind = "shape" if rng.random() < 1 / 3 else "strokes"
    if kind in _STROKE_TESTS:
        return stroke_masks(_STROKE_TESTS[kind], frames, height, width, rng, coverage=TEST_COVERAGE)
    if kind == "strokes":
        preset = str(rng.choice(sorted(STROKE_PRESETS)))
        most = _THIN_PRESETS.get(preset, _MOST_TRAINING_COVERAGE)
        coverage = float(rng.choice([centre for centre in COVERAGE_BINS if centre <= most]))
        return stroke_masks(preset, frames, height, width, rng, coverage=coverage)
    return shape_masks(frames, height, width, rng, drifting=False if kind == "stationary" else None)


def dilated(masks: NDArray[np.bool_], steps: int = REMOVAL_DILATION) -> NDArray[np.bool_]:
    """Masks grown by a number of steps to the four neighbours, so that no rim of an object stays behind.

    Args:
        masks: bool (..., H, W).
        steps: how often.

    Raises:
        UsageError: if the number of steps is negative.
    """
    if steps < 0:
        raise UsageError(f"{steps} steps of dilation are not allowed; give 0 or more.")
    grown = masks.copy()
    for _ in range(steps):
        before = grown.copy()
        grown[..., 1:, :] |= before[..., :-1, :]
        grown[..., :-1, :] |= before[..., 1:, :]
        grown[..., :, 1:] |= before[..., :, :-1]
        grown[..., :, :-1] |= before[..., :, 1:]
    return grown


def object_masks(
    track: NDArray[np.bool_], frames: int, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Holes with the outline and the motion of a real object, from its masks in another clip.

    The track starts at a random frame, runs back and forth where it is too short, is mirrored with even chances, and is
    moved as a whole to a random place where it still lies in the frame.

    Args:
        track: masks of one object in consecutive frames, bool (N, h, w).
        frames: number of frames to make.
        height: of a frame in pixels.
        width: of a frame in pixels.
        rng: source of all choices; the same state gives the same masks.

    Returns:
        True = hole, bool (T, H, W); at least one frame has a hole.

    Raises:
        ShapeError: if the track has another number of axes.
        UsageError: if it shows no object, or a size is not allowed.
    """
    if track.ndim != 3:
        raise ShapeError(f"the track has the shape {track.shape}; needed are masks (N, h, w).")
    if min(frames, height, width) < 1 or not track.any():
        raise UsageError(f"{frames} frames of {height} x {width} of a track that shows something are needed.")
    visible = np.flatnonzero(track.any((1, 2)))
    start = int(rng.choice(visible))
    there_and_back = np.concatenate([np.arange(len(track)), np.arange(len(track) - 2, 0, -1)])
    order = there_and_back[(start + np.arange(frames)) % len(there_and_back)]
    rows = ((np.arange(height) + 0.5) * track.shape[1] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * track.shape[2] / width).astype(np.int64)
    holes = track[order][:, rows[:, None], columns[None, :]]
    if rng.random() < 0.5:
        holes = holes[:, :, ::-1]
    moves = []
    for axis in (1, 2):
        used = np.flatnonzero(holes.any(tuple({0, 1, 2} - {axis})))
        low, high = (int(used[0]), int(used[-1])) if len(used) else (0, holes.shape[axis] - 1)
        moves.append(int(rng.integers(-low, holes.shape[axis] - high)))
    return np.roll(holes, moves, (1, 2))
