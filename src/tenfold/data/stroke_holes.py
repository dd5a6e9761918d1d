"""Holes of thick moving strokes: the free-form video masks that inpainting networks are trained and judged with.

Source: Free-Form Video Inpainting (arXiv 1904.10247), whose presets and statistics are kept. One thing there is kept on
purpose: a stroke's velocity is constant, since the acceleration that is drawn is never used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tenfold.errors import UnknownNameError, UsageError

NATIVE_AREA = 320 * 180
"""Pixels of the frame that the presets' lengths are meant for."""
COVERAGE_BINS = tuple(centre / 100 for centre in range(5, 100, 10))
"""Centres of the bins of mean coverage; each reaches 0.05 to both sides."""
_HALF_BIN = 0.05
_MAX_STROKES = 200
_MAX_RESTARTS = 30


@dataclass(frozen=True, kw_only=True)
class StrokePreset:
    """How strokes are drawn; lengths in pixels of a frame of NATIVE_AREA, ranges without their upper end.

    Args:
        vertices: range of the number of steps of the brush.
        head_speed: longest step.
        head_turn: largest change of (step length, direction in radians) from one step to the next.
        width: range of the brush's width.
        jitter: largest integer move of single vertices between frames.
        velocity: half of it is the standard deviation of the stroke's own speed, in pixels a frame.
    """

    vertices: tuple[int, int]
    head_speed: float
    head_turn: tuple[float, float]
    width: tuple[int, int]
    jitter: int
    velocity: float


STROKE_PRESETS = {
    "object_like": StrokePreset(
        vertices=(5, 30), head_speed=15, head_turn=(10, 1.5), width=(20, 50), jitter=10, velocity=10
    ),
    "object_like_middle": StrokePreset(
        vertices=(5, 15), head_speed=8, head_turn=(4, 1.5), width=(20, 50), jitter=5, velocity=10
    ),
    "object_like_small": StrokePreset(
        vertices=(5, 20), head_speed=7, head_turn=(3.5, 1.5), width=(10, 30), jitter=5, velocity=4
    ),
    "rand_curve": StrokePreset(
        vertices=(10, 30), head_speed=20, head_turn=(15, 0.5), width=(3, 10), jitter=3, velocity=6
    ),
    # The authors' bounds 2.5 to 5 and jitter 1.5 are cut to whole numbers by the generator they are given to.
    "rand_curve_small": StrokePreset(
        vertices=(6, 22), head_speed=12, head_turn=(8, 0.5), width=(2, 5), jitter=1, velocity=3
    ),
}


def stroke_masks(
    preset: str | StrokePreset,
    frames: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    strokes: int = 5,
    coverage: float | None = None,
    border: int = 0,
) -> NDArray[np.bool_]:
    """Holes made of moving strokes.

    Args:
        preset: a name in STROKE_PRESETS, or one of your own.
        frames: number of frames.
        height: of a frame in pixels.
        width: of a frame in pixels.
        rng: source of all choices; the same state gives the same masks.
        strokes: how many, where `coverage` is None.
        coverage: mean part of the frames to cover, one of COVERAGE_BINS; strokes are added until it lies in that bin.
        border: pixels at the frame's border that stay known.

    Returns:
        True = hole, bool (T, H, W).

    Raises:
        UnknownNameError: if no preset has this name.
        UsageError: if a number is not allowed, or the preset cannot reach the coverage.
    """
    if isinstance(preset, str):
        if preset not in STROKE_PRESETS:
            raise UnknownNameError("preset of strokes", preset, STROKE_PRESETS)
        preset = STROKE_PRESETS[preset]
    if min(frames, height, width, strokes) < 1 or not 0 <= border < min(height, width) / 2:
        raise UsageError(
            f"{strokes} strokes on {frames} frames of {height} x {width} with a border of {border} are not allowed: "
            "each number is at least 1, and the border narrower than half the frame."
        )
    # Drawn at the size the presets are meant for, in the frame's proportions, so that statistics do not hang on size.
    scale = math.sqrt(NATIVE_AREA / (height * width))
    canvas = (max(1, round(height * scale)), max(1, round(width * scale)))
    if coverage is None:
        holes = np.zeros((frames, *canvas), np.bool_)
        for _ in range(strokes):
            holes |= _stroke(preset, frames, canvas, rng)
    else:
        holes = _covering(preset, frames, canvas, rng, coverage)
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(np.int64)
        for n, m in zip((height, width), canvas, strict=True)
    )
    holes = holes[:, rows[:, None], columns[None, :]]
    if border:
        inner = np.zeros_like(holes)
        inner[:, border:-border, border:-border] = holes[:, border:-border, border:-border]
        return inner
    return holes


def _covering(
    preset: StrokePreset, frames: int, canvas: tuple[int, int], rng: np.random.Generator, coverage: float
) -> NDArray[np.bool_]:
    """Strokes are added up to a coverage drawn within the bin; too much begins anew."""
    if coverage not in COVERAGE_BINS:
        raise UsageError(f"the coverage is {coverage:g}; allowed are the centres of bins {COVERAGE_BINS}.")
    for _ in range(_MAX_RESTARTS):
        target = rng.uniform(coverage - _HALF_BIN, coverage + _HALF_BIN)
        holes = before = np.zeros((frames, *canvas), np.bool_)
        for _ in range(_MAX_STROKES):
            before, holes = holes, holes | _stroke(preset, frames, canvas, rng)
            if holes.mean() >= target:
                break
        nearest = min((before, holes), key=lambda one: abs(float(one.mean()) - target))
        if abs(float(nearest.mean()) - coverage) <= _HALF_BIN and nearest.any():
            return nearest
    raise UsageError(
        f"these strokes do not reach a coverage of {coverage:g}: too thick or too thin for it after {_MAX_RESTARTS} "
        "attempts. Choose another coverage or another preset."
    )


def _stroke(preset: StrokePreset, frames: int, canvas: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """One moving stroke, bool (T, h, w)."""
    height, width = canvas
    brush = int(rng.integers(*preset.width))
    points = _walk(preset, canvas, rng)
    speed, direction = abs(rng.normal(0, preset.velocity / 2)), rng.uniform(0, 2 * math.pi)
    move = np.array([int(speed * math.cos(direction)), int(speed * math.sin(direction))])
    holes = np.empty((frames, height, width), np.bool_)
    for frame in range(frames):
        if frame:
            points = points + move
            jittered = rng.random(len(points)) < 0.5
            points[jittered] += rng.integers(-preset.jitter, preset.jitter, (int(jittered.sum()), 2))
        holes[frame] = _drawn(points, brush, canvas)
    return holes


def _walk(preset: StrokePreset, canvas: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Vertices (x, y) of a brush that wanders, float64 (N, 2)."""
    steps = int(rng.integers(*preset.vertices))
    place = np.array([rng.integers(canvas[1]), rng.integers(canvas[0])], np.float64)
    speed, direction = rng.uniform(0, preset.head_speed), rng.uniform(0, 2 * math.pi)
    points = [place]
    for _ in range(steps):
        speed += rng.uniform(-preset.head_turn[0], preset.head_turn[0])
        direction += rng.uniform(-preset.head_turn[1], preset.head_turn[1])
        speed = min(max(speed, 0.0), preset.head_speed)
        place = place + speed * np.array([math.sin(direction), math.cos(direction)])
        points.append(place)
    return np.stack(points)


def _drawn(points: NDArray[np.float64], brush: int, canvas: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.new("1", (canvas[1], canvas[0]), 0)
    draw = ImageDraw.Draw(picture)
    draw.line([tuple(point) for point in points.tolist()], fill=1, width=brush)
    if brush > 2:
        radius = brush // 2 - 1
        for x, y in points.tolist():
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(picture)
