"""SpriteVIS: synthetic videos of moving sprites with exact masks, to learn and measure video instance segmentation.

Two to four sprites move along a line with a wave, turn, change size and look, hide one another and go behind bars;
they leave the picture and come back. Half of the videos hold two that look the same, so that only their places tell
them apart. Some frames are degraded (blurred along a line, noisy, pale), never more than three in a row, and in some an
object fades: what a single frame does not show, the frames around it do.

Everything follows from a seed. Masks show the visible part of the sharp object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.sprites import SILHOUETTES, SPRITE_SIDE, CutOut, Sprite, cut_out_sprite, drawn_sprite, texture
from tenfold.errors import UsageError

_MOST_DEGRADED_IN_A_ROW = 3
_LEAST_VISIBLE_PIXELS, _LEAST_VISIBLE_PART = 12, 0.1
_FADED = 0.3


@dataclass(frozen=True, kw_only=True)
class SpriteSettings:
    """What happens in a video.

    Args:
        height: of a frame in pixels.
        width: of a frame in pixels.
        frames: in a video.
        objects: least and most sprites.
        diameter: least and most, in pixels.
        speed: most, in pixels a frame.
        turn: most rotation, in degrees a frame.
        growth: most change of size a frame, as a part.
        bars: most moving bars that hide what is behind them.
        lookalikes: part of the videos with two sprites that look the same.
        degraded: chance of a frame to be degraded.
        faded: chance of an object to fade in a frame.
    """

    height: int = 128
    width: int = 128
    frames: int = 8
    objects: tuple[int, int] = (2, 4)
    diameter: tuple[int, int] = (18, 48)
    speed: float = 6.0
    turn: float = 8.0
    growth: float = 0.03
    bars: int = 2
    lookalikes: float = 0.5
    degraded: float = 0.35
    faded: float = 0.15

    def __post_init__(self) -> None:
        least, most = self.objects
        if min(self.height, self.width) < 32 or self.frames < 1 or not 1 <= least <= most <= 100:
            raise UsageError(
                f"{self.frames} frames of {self.width} x {self.height} with {least} to {most} objects are not allowed: "
                "at least 1 frame of 32 x 32 with 1 to 100 objects."
            )
        if not 4 <= self.diameter[0] <= self.diameter[1] <= min(self.height, self.width):
            raise UsageError(f"diameters {self.diameter} are not allowed: rising, from 4 pixels to the frame's side.")


@dataclass(frozen=True, eq=False)
class SpriteVideo:
    """A video with its truth.

    Args:
        frames: uint8 (T, H, W, 3), as a camera sees them.
        sharp: uint8 (T, H, W, 3), the same without degradation and fading.
        masks: bool (T, N, H, W), the visible part of each object; all False in frames where less than 12 pixels or a
            tenth of it is seen, which count as absent.
        labels: classes from 0, (N,).
        degraded: bool (T,).
        faded: bool (T, N).
        lookalikes: the two objects that look the same, or None.
    """

    frames: NDArray[np.uint8]
    sharp: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    degraded: NDArray[np.bool_]
    faded: NDArray[np.bool_]
    lookalikes: tuple[int, int] | None


def make_sprite_video(
    seed: Sequence[int],
    settings: SpriteSettings | None = None,
    *,
    photographs: Sequence[NDArray[np.uint8]] = (),
    cut_outs: Sequence[CutOut] = (),
) -> SpriteVideo:
    """One video, which follows from its seed and what it is made of.

    Args:
        seed: numbers from 0, such as (seed of the set, number of the video).
        settings: what happens.
        photographs: textures and backgrounds are pieces of these, each uint8 (H, W, 3); without any they are noise.
        cut_outs: the objects, whose number in this list is their class; without any they are SILHOUETTES.
    """
    settings = settings or SpriteSettings()
    scene, camera = (np.random.default_rng([*seed, stream]) for stream in range(2))
    sprites, looks, lookalikes = _cast(settings, scene, photographs, cut_outs)
    places = [_places(sprite, settings, scene) for sprite in sprites]
    background = _moving_background(settings, scene, photographs)
    bars = [_bar(settings, scene, photographs) for _ in range(int(scene.integers(settings.bars + 1)))]

    faded = camera.random((settings.frames, len(sprites))) < settings.faded
    frames, sharp = background.copy(), background
    masks = np.zeros((settings.frames, len(sprites), settings.height, settings.width), np.bool_)
    for time in range(settings.frames):
        areas = np.zeros(len(sprites), np.int64)
        for number, sprite in enumerate(sprites):
            picture, cover = _placed(sprite, looks[number][time], places[number][time], settings)
            solid = cover >= 0.5
            areas[number] = solid.sum()
            masks[time, :number] &= ~solid
            masks[time, number] = solid
            _lay(sharp[time], picture, cover)
            _lay(frames[time], picture, cover * (_FADED if faded[time, number] else 1))
        for bar, hidden in (one[time] for one in bars):
            masks[time] &= ~hidden
            _lay(sharp[time], bar, hidden.astype(np.float32))
            _lay(frames[time], bar, hidden.astype(np.float32))
        visible = masks[time].sum((1, 2))
        masks[time, visible < np.maximum(_LEAST_VISIBLE_PIXELS, _LEAST_VISIBLE_PART * areas)] = False
    degraded = _runs_kept_short(camera.random(settings.frames) < settings.degraded)
    for time in np.flatnonzero(degraded).tolist():
        frames[time] = degraded_frame(frames[time], camera)
    labels = np.array([sprite.label for sprite in sprites], np.int64)
    return SpriteVideo(frames, sharp, masks, labels, degraded, faded, lookalikes)


@dataclass(frozen=True)
class _Look:
    """A sprite's colours at one time: `fade` from its first texture to its second, turned by `hue`, times `gain`."""

    fade: float
    hue: float
    gain: float


def _cast(
    settings: SpriteSettings,
    rng: np.random.Generator,
    photographs: Sequence[NDArray[np.uint8]],
    cut_outs: Sequence[CutOut],
) -> tuple[list[Sprite], list[list[_Look]], tuple[int, int] | None]:
    """The sprites from back to front, with their looks over time."""
    count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
    classes = len(cut_outs) or len(SILHOUETTES)
    sprites, looks = [], []
    for _ in range(count):
        label = int(rng.integers(classes))
        sprites.append(
            cut_out_sprite(cut_outs[label], label, rng) if cut_outs else drawn_sprite(label, rng, photographs)
        )
        looks.append(_looks(settings.frames, rng))
    if count < 2 or rng.random() >= settings.lookalikes:
        return sprites, looks, None
    one, other = sorted(int(number) for number in rng.choice(count, 2, replace=False))
    sprites[other], looks[other] = sprites[one], looks[one]
    return sprites, looks, (one, other)


def _looks(frames: int, rng: np.random.Generator) -> list[_Look]:
    """A random walk of hue, gain and cross-fade."""
    fade = np.clip(0.15 + np.cumsum(rng.normal(0, 0.05, frames)), 0, 1)
    hue = np.cumsum(rng.normal(0, math.radians(4), frames))
    gain = np.exp(np.clip(np.cumsum(rng.normal(0, 0.04, frames)), -0.4, 0.4))
    return [_Look(float(f), float(h), float(g)) for f, h, g in zip(fade, hue, gain, strict=True)]


def _places(sprite: Sprite, settings: SpriteSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centre x, y in pixels, angle in radians and diameter in pixels over time, (T, 4)."""
    low, high = settings.diameter
    diameter, angle = rng.uniform(low, high), rng.uniform(0, 2 * math.pi)
    if sprite.label >= 0 and rng.random() < 0.5:
        angle = rng.uniform(-0.3, 0.3)  # often nearly upright, as things are
    centre = rng.uniform(0.15, 0.85, 2) * (settings.width, settings.height)
    # A line and a wave, whose speeds together stay below the most that is allowed.
    share = rng.uniform(0.3, 1)
    speed, heading = share * rng.uniform(0, settings.speed), rng.uniform(0, 2 * math.pi)
    period, phase = rng.uniform(8, 30), rng.uniform(0, 2 * math.pi)
    height = (1 - share) * settings.speed * period / (2 * math.pi)
    turn = math.radians(rng.uniform(-settings.turn, settings.turn))
    growth = rng.uniform(-settings.growth, settings.growth)
    times = np.arange(settings.frames)
    wave = height * np.sin(2 * math.pi * times / period + phase)
    along, across = np.array([math.cos(heading), math.sin(heading)]), np.array([-math.sin(heading), math.cos(heading)])
    centres = centre + (speed * times)[:, None] * along + wave[:, None] * across
    diameters = low + _reflected(diameter * np.exp(growth * times) - low, max(high - low, 1e-9))
    places = np.empty((settings.frames, 4))
    # Sprites turn back only when they are out of sight, so that some leave and return.
    for axis, side in enumerate((settings.width, settings.height)):
        places[:, axis] = _reflected(centres[:, axis] + 0.6 * high, side + 1.2 * high) - 0.6 * high
    places[:, 2], places[:, 3] = angle + turn * times, diameters
    return places


def _reflected(values: NDArray[np.float64], room: float) -> NDArray[np.float64]:
    """Values thrown back at 0 and at `room`."""
    around = np.mod(values, 2 * room)
    return np.minimum(around, 2 * room - around)


def _placed(
    sprite: Sprite, look: _Look, place: NDArray[np.float64], settings: SpriteSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A sprite in the frame: colours 0..255 (H, W, 3) and how solid it is 0..1 (H, W)."""
    first, second = sprite.textures.astype(np.float32)
    colours = ((1 - look.fade) * first + look.fade * second) @ _hue_turn(look.hue).T * np.float32(look.gain)
    whole = np.dstack([np.clip(colours, 0, 255), sprite.cover]).round().astype(np.uint8)
    x, y, angle, diameter = place
    step = SPRITE_SIDE / diameter
    if step > 2:  # Pillow's transform samples points; halving first keeps small sprites smooth
        half = SPRITE_SIDE // 2
        image, side = Image.fromarray(whole).resize((half, half), Image.Resampling.BOX), half
        step /= 2
    else:
        image, side = Image.fromarray(whole), SPRITE_SIDE
    cos, sin = step * math.cos(angle), step * math.sin(angle)
    middle = side / 2
    data = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    frame = (settings.width, settings.height)
    seen = np.asarray(image.transform(frame, Image.Transform.AFFINE, data, resample=Image.Resampling.BILINEAR))
    return seen[:, :, :3].astype(np.float32), seen[:, :, 3].astype(np.float32) / np.float32(255)


def _hue_turn(angle: float) -> NDArray[np.float32]:
    """Rotation of RGB about the grey axis, (3, 3)."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    third = (1 - cos) / 3
    rows = [[cos + third, third - sin, third + sin], [third + sin, cos + third, third - sin]]
    return np.array([*rows, [third - sin, third + sin, cos + third]], np.float32)


def _lay(frame: NDArray[np.uint8], picture: NDArray[np.float32], cover: NDArray[np.float32]) -> None:
    """Lay a picture over a frame, in place."""
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if not rows.size:
        return
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    part = cover[box][..., None]
    frame[box] = np.rint(part * picture[box] + (1 - part) * frame[box])


def _moving_background(
    settings: SpriteSettings, rng: np.random.Generator, photographs: Sequence[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """A picture that drifts slowly, uint8 (T, H, W, 3)."""
    drift = rng.uniform(-1, 1, 2)
    path = np.rint(drift * np.arange(settings.frames)[:, None]).astype(int)
    path -= path.min(0)
    whole = texture(settings.height + path[:, 0].max(), settings.width + path[:, 1].max(), rng, photographs)
    return np.stack([whole[y : y + settings.height, x : x + settings.width] for y, x in path])


def _bar(
    settings: SpriteSettings, rng: np.random.Generator, photographs: Sequence[NDArray[np.uint8]]
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """A textured bar across the frame, with where it is, for each time."""
    upright = rng.random() < 0.5
    side = settings.width if upright else settings.height
    breadth = int(rng.integers(max(4, side // 20), max(6, side // 8)))
    start, speed = rng.uniform(0, side), rng.uniform(-3, 3)
    picture = texture(settings.height, settings.width, rng, photographs).astype(np.float32)
    along = np.arange(side)
    shown = []
    for time in range(settings.frames):
        inside = (along - start - speed * time) % (side + breadth) < breadth
        cover = np.zeros((settings.height, settings.width), np.bool_)
        cover[(slice(None), inside) if upright else inside] = True
        shown.append((picture, cover))
    return shown


def _runs_kept_short(wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    kept = wanted.copy()
    for time in range(_MOST_DEGRADED_IN_A_ROW, len(kept)):
        if kept[time - _MOST_DEGRADED_IN_A_ROW : time + 1].all():
            kept[time] = False
    return kept


def degraded_frame(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A frame blurred along 7 to 15 pixels, noisy by 0.1 to 0.25, or with contrast times 0.3 to 0.7; or more of it."""
    chosen = rng.random(3) < 0.5
    if not chosen.any():
        chosen[rng.integers(3)] = True
    values = frame.astype(np.float32)
    length, angle = int(rng.integers(7, 16)), rng.uniform(0, math.pi)
    noise, contrast = rng.uniform(0.1, 0.25), rng.uniform(0.3, 0.7)
    if chosen[0]:
        steps = np.arange(length) - (length - 1) / 2
        moves = np.rint(np.outer(steps, [math.sin(angle), math.cos(angle)])).astype(int)
        reach = length // 2 + 1
        padded = np.pad(values, ((reach, reach), (reach, reach), (0, 0)), "edge")
        height, width = frame.shape[:2]
        values = sum(
            (padded[reach + y : reach + y + height, reach + x : reach + x + width] for y, x in moves),
            np.zeros_like(values),
        ) / np.float32(length)
    if chosen[1]:
        values += rng.standard_normal(values.shape, np.float32) * np.float32(noise * 255)
    if chosen[2]:
        middle = values.mean((0, 1))
        values = middle + np.float32(contrast) * (values - middle)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
