"""One hole with a smooth random outline, at rest or drifting: the "stationary" masks of video inpainting.

Source: the mask generator of STTN (arXiv 2007.10247), in distribution; the outline is drawn by Pillow.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tenfold.errors import UsageError

_AXES = 0.77
"""Part of the canvas that the authors' plot gives to its axes; the rest is margin, which is cut away."""
_LIMITS = 1.1
"""Their axes reach this much farther than the control points."""
_CURVE_POINTS = 24


def shape_masks(
    frames: int, height: int, width: int, rng: np.random.Generator, *, drifting: bool | None = None
) -> NDArray[np.bool_]:
    """A hole with a random outline of 6 to 8 Bezier curves, in every frame.

    Args:
        frames: number of frames.
        height: of a frame in pixels.
        width: of a frame in pixels.
        rng: source of all choices; the same state gives the same masks.
        drifting: whether it moves; None chooses with even chances, as training does (tests keep it at rest).

    Returns:
        True = hole, bool (T, H, W).

    Raises:
        UsageError: if a size is not allowed.
    """
    if frames < 1 or min(height, width) < 8:
        raise UsageError(f"{frames} frames of {height} x {width} are not allowed: at least 1 frame of 8 x 8.")
    shape = _shape(int(rng.integers(height // 3, height)), int(rng.integers(width // 3, width)), rng)
    room = (height - shape.shape[0], width - shape.shape[1])
    place = [int(rng.integers(free + 1)) for free in room]
    if drifting is None:
        drifting = bool(rng.random() < 0.5)
    # U(1, 3) is what the authors' call draws, though U(0, 3) was meant.
    speed, direction = rng.uniform(1, 3), rng.uniform(0, 2 * math.pi)
    holes = np.zeros((frames, height, width), np.bool_)
    for frame in range(frames):
        if frame and drifting:
            wanted = [place[0] + int(speed * math.cos(direction)), place[1] + int(speed * math.sin(direction))]
            place = [min(max(at, 0), free) for at, free in zip(wanted, room, strict=True)]
            speed, direction = speed + rng.normal(0, 1.5), direction + rng.normal(0, 0.25)
            if place != wanted:
                speed, direction = abs(rng.normal(0, 1.5)), rng.uniform(0, 2 * math.pi)
        holes[frame, place[0] : place[0] + shape.shape[0], place[1] : place[1] + shape.shape[1]] = shape
    return holes


def _shape(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A closed chain of cubic curves on a canvas of this size, cropped to its box, bool (h, w)."""
    curves = int(rng.integers(6, 9))
    ratio = float(rng.choice((0.6, 0.7, 0.8)))
    angles = np.linspace(0, 2 * math.pi, 3 * curves + 1)
    radii = rng.uniform(1 - ratio, 1 + ratio, len(angles))
    control = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    control[-1] = control[0]
    outline = np.concatenate([_bezier(control[3 * at : 3 * at + 4]) for at in range(curves)])
    low, high = control.min() * _LIMITS, control.max() * _LIMITS
    size = np.array([width, height])
    points = (outline - low) / (high - low) * (_AXES * size) + (1 - _AXES) / 2 * size
    picture = Image.new("1", (width, height), 0)
    ImageDraw.Draw(picture).polygon(
        [tuple(point) for point in points.tolist()], fill=1, outline=0
    )  # only pixels wholly inside
    shape: NDArray[np.bool_] = np.asarray(picture)
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    return shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _bezier(control: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points along a cubic Bezier curve with four control points (4, 2)."""
    t = np.linspace(0, 1, _CURVE_POINTS)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    points: NDArray[np.float64] = weights @ control
    return points
