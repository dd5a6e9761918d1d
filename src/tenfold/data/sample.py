"""A short sample clip that is rendered here, with its truth: a ball of petals that drifts through a photograph.

The photographs are those that scikit-learn brings along (`china.jpg`, `flower.jpg`, CC BY 2.0). A camera pans and zooms
over the first, and a disc cut from the second, shaded as a ball, crosses it. What is behind the ball is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.simulated import similarity, warped
from tenfold.data.video import VideoInfo
from tenfold.data.video_writing import VideoWriter
from tenfold.errors import UsageError, require

SAMPLE_FRAMES, SAMPLE_SIZE = 72, (360, 640)
SAMPLE_RATE = Fraction(24)
_BALL_CENTRE, _BALL_RADIUS = (308.0, 221.0), 124.0
"""Where the blossom is in flower.jpg, x and y, and how much of it is taken, in pixels."""
_HUE_TURN = 180
"""Of the blossom's colour, in 256ths of the circle: orange becomes violet."""


@dataclass(frozen=True, eq=False)
class SampleFrame:
    """One frame of the sample.

    Args:
        shown: uint8 (H, W, 3), with the ball.
        truth: uint8 (H, W, 3), the same without it.
        mask: where the ball is, bool (H, W).
    """

    shown: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def sample_frames(
    frames: int = SAMPLE_FRAMES, height: int = SAMPLE_SIZE[0], width: int = SAMPLE_SIZE[1]
) -> Iterator[SampleFrame]:
    """The frames of the sample, one by one; always the same.

    Args:
        frames: how many; the ball takes all of them to cross.
        height: of a frame in pixels, at least 64.
        width: of a frame in pixels, at least 64.

    Raises:
        UsageError: if a number is not allowed.
        MissingExtraError: if scikit-learn is not installed.
    """
    if frames < 2 or min(height, width) < 64:
        raise UsageError(f"a sample of {frames} frames of {width} x {height} is not allowed: at least 2 of 64 x 64.")
    scene, flower = _photographs()
    # The photograph has 640 x 427 pixels; frames of that width show three quarters of it.
    part = 0.74 * min(scene.width / width, scene.height / height)
    ball, cover = _ball(flower, 2 * round(0.17 * height))
    for number in range(frames):
        time = number / (frames - 1)
        ease = (1 - math.cos(math.pi * time)) / 2
        centre = np.array([[scene.width * (0.43 + 0.13 * ease), scene.height * (0.515 - 0.03 * ease)]])
        zoom, turn = math.log(part) - 0.04 * ease, math.radians(0.6 - 1.2 * ease)
        view = similarity(centre, np.array([zoom]), np.array([turn]), ((width - 1) / 2, (height - 1) / 2))
        truth = warped(scene, view, (height, width))[0]
        x = width * (0.11 + 0.78 * time)
        y = height * (0.66 - 0.22 * abs(math.sin(2.5 * math.pi * time)))
        rolled = similarity(
            np.array([[(ball.width - 1) / 2, (ball.height - 1) / 2]]),
            np.zeros(1),
            np.array([-2 * math.pi * 0.3 * time]),
            (x, y),
        )
        picture = warped(ball, rolled, (height, width))[0].astype(np.float32)
        part_of_ball = warped(cover, rolled, (height, width))[0].astype(np.float32)[..., None] / 255
        picture *= _light(height, width, x, y, ball.width / 2)
        shown = np.rint(truth + part_of_ball * (np.clip(picture, 0, 255) - truth)).astype(np.uint8)
        yield SampleFrame(shown, truth, part_of_ball[..., 0] > 0)


def write_sample(path: str | Path, frames: Iterable[SampleFrame] | None = None, *, lossless: bool = False) -> Path:
    """Write the sample as a video file.

    Args:
        path: the file; its ending is one that VideoWriter takes.
        frames: what to write; all of `sample_frames` by default.
        lossless: whether to keep every pixel.

    Raises:
        UsageError: if there is no frame.
        StorageError: if it cannot be written.
        MissingExtraError: if scikit-learn is not installed.
    """
    coming = iter(sample_frames() if frames is None else frames)
    first = next(coming, None)
    if first is None:
        raise UsageError("a sample of no frames is not written; give one at least.")
    info = VideoInfo(
        height=first.shown.shape[0],
        width=first.shown.shape[1],
        rate=SAMPLE_RATE,
        frames=None,
        time_base=1 / SAMPLE_RATE,
        pixel_aspect=Fraction(1),
        codec="rgb",
        has_sound=False,
    )
    with VideoWriter(path, info, lossless=lossless, quality=16) as writer:
        for number, frame in enumerate(chain([first], coming)):
            writer.write_image(frame.shown, number, 1)
    return Path(path)


def _photographs() -> tuple[Image.Image, Image.Image]:
    images = require("sklearn.datasets", "demo")
    return tuple(Image.fromarray(images.load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))  # type: ignore[return-value]


def _ball(flower: Image.Image, side: int) -> tuple[Image.Image, Image.Image]:
    """The blossom as a square of `side` pixels, and how much of each pixel the disc covers."""
    x, y = _BALL_CENTRE
    box = (x - _BALL_RADIUS, y - _BALL_RADIUS, x + _BALL_RADIUS, y + _BALL_RADIUS)
    hue, saturation, value = flower.resize((side, side), Image.Resampling.LANCZOS, box=box).convert("HSV").split()
    # As violet as the scene nowhere is: what is seen is whether erasing works, and not whether red is told from red.
    picture = Image.merge("HSV", (hue.point(lambda turn: (turn + _HUE_TURN) % 256), saturation, value)).convert("RGB")
    across = np.arange(side) - (side - 1) / 2
    distance = np.hypot(*np.meshgrid(across, across))
    cover = np.clip(side / 2 - 1.5 - distance, 0, 1)
    return picture, Image.fromarray(np.rint(cover * 255).astype(np.uint8))


def _light(height: int, width: int, x: float, y: float, radius: float) -> NDArray[np.float32]:
    """Brightness of a ball that is lit from the upper left, float32 (H, W, 1)."""
    down, right = np.mgrid[:height, :width].astype(np.float32)
    right, down = (right - np.float32(x)) / np.float32(radius), (down - np.float32(y)) / np.float32(radius)
    front = np.sqrt(np.clip(1 - right**2 - down**2, 0, 1))
    light = 0.42 + 0.75 * np.clip(-0.45 * right - 0.55 * down + 0.7 * front, 0, None)
    return np.asarray(light[..., None], np.float32)
