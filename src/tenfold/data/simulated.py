"""Video simulated from still photographs, with its exact motion: unlimited training data for flow and inpainting.

A camera moves over one photograph (pan, zoom, rotation), and sprites, cut from other photographs with a smooth random
outline, move before it. All motions are affine maps that change smoothly with time, so that the displacement of every
pixel, and whether it is hidden in the next frame, is known exactly, also behind any hole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.shape_holes import shape_masks
from tenfold.errors import ShapeError, UsageError

_SHRINKS = 12
_LEAST_ROOM, _MOST_ROOM = 1.15, 1.9
"""The camera's room to move: the photograph's tighter side, in frames."""
_MOST_STRETCH = 1.25
"""A small photograph is enlarged by no more than this, unless it would be smaller than the frame and its least room."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How much moves in a simulated clip.

    Args:
        pan: typical speed of the camera in pixels a frame.
        zoom: typical change of size a frame, as a logarithm.
        turn: typical rotation a frame in radians.
        sprites: most sprites in a clip; their number is drawn.
        sprite_pan: typical speed of a sprite, relative to the camera's, in pixels a frame.
        light: typical change of brightness over the clip, as a part.
        noise: standard deviation of the sensor's noise, in grey levels of 255.
    """

    pan: float = 2.0
    zoom: float = 0.008
    turn: float = 0.006
    sprites: int = 2
    sprite_pan: float = 2.5
    light: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, eq=False)
class SimulatedClip:
    """Frames with their exact motion.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        flow_fwd: float32 (T-1, 2, H, W): pixel p of frame t is seen at p + flow in frame t+1; channel 0 is x (right),
            1 is y (down), in pixels.
        flow_bwd: float32 (T-1, 2, H, W): pixel p of frame t+1 is seen at p + flow in frame t.
        visible_fwd: bool (T-1, H, W): whether that point of frame t+1 lies in the frame and shows the same surface.
        visible_bwd: bool (T-1, H, W), likewise for frame t.
        layers: uint8 (T, H, W): what a pixel shows, 0 the background, 1 and up the sprites.
        background: uint8 (T, H, W, 3): the frames as they would be without sprites, the truth of object removal.
    """

    frames: NDArray[np.uint8]
    flow_fwd: NDArray[np.float32]
    flow_bwd: NDArray[np.float32]
    visible_fwd: NDArray[np.bool_]
    visible_bwd: NDArray[np.bool_]
    layers: NDArray[np.uint8]
    background: NDArray[np.uint8]


def simulate_clip(
    photographs: Sequence[Image.Image],
    frames: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    motion: Motion | None = None,
) -> SimulatedClip:
    """A clip over the first photograph, with sprites cut from the others (or from the first, if it is alone).

    Args:
        photographs: upright RGB images, at least one.
        frames: number of frames.
        height: of a frame in pixels, at least 8.
        width: of a frame in pixels, at least 8.
        rng: source of all choices; the same state and photographs give the same clip.
        motion: how much moves.

    Raises:
        UsageError: if there is no photograph, or a number is not allowed.
    """
    if not photographs or frames < 1 or min(height, width) < 8:
        raise UsageError(
            f"{frames} frames of {height} x {width} from {len(photographs)} photographs are not allowed: needed are a "
            "frame of at least 8 x 8 and a photograph."
        )
    motion = motion or Motion()
    photograph = _fitting(photographs[0].convert("RGB"), height, width, float(rng.uniform(_LEAST_ROOM, _MOST_ROOM)))
    camera = _camera_path(photograph.size, frames, (height, width), rng, motion)
    # Row t maps a pixel of frame t to a pixel of the layer's own picture, as 3 x 3 matrices.
    maps = [camera]
    pictures = [warped(photograph, camera, (height, width))]
    covers = [np.ones((frames, height, width), np.bool_)]
    for at in range(int(rng.integers(0, motion.sprites + 1))):
        source = photographs[1 + at % (len(photographs) - 1)] if len(photographs) > 1 else photographs[0]
        sprite, cover = _sprite(source.convert("RGB"), height, width, rng)
        path = _sprite_path(camera, sprite.size, (height, width), rng, motion)
        maps.append(path)
        pictures.append(warped(sprite, path, (height, width)))
        covers.append(warped(cover, path, (height, width)) >= 128)
    background = pictures[0]
    shown, layers = background.copy(), np.zeros((frames, height, width), np.uint8)
    for layer in range(1, len(maps)):
        shown[covers[layer]] = pictures[layer][covers[layer]]
        layers[covers[layer]] = layer
    flows = _flows(maps, layers)
    look = _lighting(frames, rng, motion)
    return SimulatedClip(
        _exposed(shown, look, motion, rng), *flows, layers=layers, background=_exposed(background, look, motion, None)
    )


def move_over(
    photograph: Image.Image,
    masks: Sequence[Image.Image],
    frames: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    motion: Motion | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A camera's clip of one photograph, with the objects in it.

    Args:
        photograph: upright RGB image.
        masks: where its objects are, 0 or 255, of its size.
        frames: number of frames.
        height: of a frame in pixels.
        width: of a frame in pixels.
        rng: source of all choices.
        motion: of the camera, its light and its noise.

    Returns:
        Frames uint8 (T, H, W, 3), and masks bool (T, N, H, W).
    """
    motion = motion or Motion()
    picture = _fitting(photograph, height, width, float(rng.uniform(_LEAST_ROOM, _MOST_ROOM)))
    camera = _camera_path(picture.size, frames, (height, width), rng, motion)
    seen = np.zeros((frames, len(masks), height, width), np.bool_)
    for number, mask in enumerate(masks):
        alike = mask.resize(picture.size, Image.Resampling.BILINEAR)
        seen[:, number] = warped(alike, camera, (height, width)) >= 128
    look = _lighting(frames, rng, motion)
    return _exposed(warped(picture, camera, (height, width)), look, motion, rng), seen


def _fitting(photograph: Image.Image, height: int, width: int, room: float) -> Image.Image:
    """The photograph at a size of which a frame takes 1/room, or more where that would blur a small one."""
    tight = max(height / photograph.height, width / photograph.width)
    scale = max(_LEAST_ROOM * tight, min(room * tight, _MOST_STRETCH))
    size = (math.ceil(photograph.width * scale), math.ceil(photograph.height * scale))
    return photograph.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def similarity(
    centre: NDArray[np.float64], log_scale: NDArray[np.float64], angle: NDArray[np.float64], middle: tuple[float, float]
) -> NDArray[np.float64]:
    """Matrices (T, 3, 3) that map frame pixels (x, y) so that the frame's middle falls on `centre` (T, 2)."""
    scale = np.exp(log_scale)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    maps = np.zeros((len(centre), 3, 3))
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1], maps[:, 2, 2] = cos, -sin, sin, cos, 1
    maps[:, 0, 2] = centre[:, 0] - cos * middle[0] + sin * middle[1]
    maps[:, 1, 2] = centre[:, 1] - sin * middle[0] - cos * middle[1]
    return maps


def _smooth_path(frames: int, rng: np.random.Generator, step: float) -> NDArray[np.float64]:
    """A number that changes by about `step` a frame, with a speed that drifts, zero in the middle, float64 (T,)."""
    speed = rng.normal(0, step) + np.cumsum(rng.normal(0, 0.15 * step, frames))
    path: NDArray[np.float64] = np.cumsum(speed)
    return path - path[frames // 2]


def _camera_path(
    size: tuple[int, int], frames: int, view: tuple[int, int], rng: np.random.Generator, motion: Motion
) -> NDArray[np.float64]:
    """Maps (T, 3, 3) from frames to the photograph that never leave it; a path that would is made smaller."""
    middle = ((view[1] - 1) / 2, (view[0] - 1) / 2)
    room = np.array([size[0] - view[1], size[1] - view[0]]) / 2
    start = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2]) + rng.uniform(-0.7, 0.7, 2) * room
    across, down = (_smooth_path(frames, rng, motion.pan) for _ in range(2))
    zoom, turn = _smooth_path(frames, rng, motion.zoom), _smooth_path(frames, rng, motion.turn)
    corners = np.array([[0, 0, 1], [view[1] - 1, 0, 1], [0, view[0] - 1, 1], [view[1] - 1, view[0] - 1, 1]], np.float64)
    limit = np.array([size[0] - 1, size[1] - 1])
    for shrink in range(_SHRINKS):
        part = 0.75**shrink
        centre = start + part * np.stack([across, down], 1)
        maps = similarity(centre, part * zoom, part * turn, middle)
        seen = np.einsum("tij,cj->tci", maps, corners)[..., :2]
        # The whole path moves as little as brings it inside, before its motion is made smaller.
        centre += np.maximum(0, -seen.min((0, 1))) - np.maximum(0, seen.max((0, 1)) - limit)
        maps = similarity(centre, part * zoom, part * turn, middle)
        seen = np.einsum("tij,cj->tci", maps, corners)[..., :2]
        if (seen >= -1e-9).all() and (seen <= limit + 1e-9).all():
            return maps
    return similarity(np.repeat(start[None], frames, 0), np.zeros(frames), np.zeros(frames), middle)


def _sprite(source: Image.Image, height: int, width: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """A piece of a photograph, a quarter to a half of the frame's side, and where it is solid."""
    side = max(8, int(min(height, width) * rng.uniform(0.25, 0.5)))
    cover = shape_masks(1, 2 * side, 2 * side, rng, drifting=False)[0]
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    cover = cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = max(1.2 * side / min(source.size), 1e-3)
    picture = source.resize(
        (math.ceil(source.width * scale), math.ceil(source.height * scale)), Image.Resampling.LANCZOS
    )
    left = int(rng.integers(0, picture.width - side + 1))
    top = int(rng.integers(0, picture.height - side + 1))
    solid = Image.fromarray(cover.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BILINEAR)
    return picture.crop((left, top, left + side, top + side)), solid


def _sprite_path(
    camera: NDArray[np.float64],
    size: tuple[int, int],
    view: tuple[int, int],
    rng: np.random.Generator,
    motion: Motion,
) -> NDArray[np.float64]:
    """Maps (T, 3, 3) from frames to the sprite, which moves on its own beside the camera's motion."""
    frames = len(camera)
    place = rng.uniform(0.1, 0.9, 2) * np.array([view[1], view[0]])
    across, down = (_smooth_path(frames, rng, motion.sprite_pan) for _ in range(2))
    own = similarity(
        np.stack([(size[0] - 1) / 2 - across, (size[1] - 1) / 2 - down], 1),
        _smooth_path(frames, rng, motion.zoom),
        _smooth_path(frames, rng, 2 * motion.turn),
        (float(place[0]), float(place[1])),
    )
    # Seen from the sprite, the camera's motion since the middle of the clip comes first.
    steady = np.linalg.inv(camera[frames // 2]) @ camera
    return own @ steady


def warped(picture: Image.Image, maps: NDArray[np.float64], view: tuple[int, int]) -> NDArray[np.uint8]:
    """A layer's picture as each frame sees it, zero outside, uint8 (T, H, W[, 3])."""
    seen = []
    for matrix in maps:
        a, b, c = matrix[0]
        d, e, f = matrix[1]
        # Pillow adds half a pixel before the map and takes it off behind; these constants undo that.
        data = (a, b, c + 0.5 - 0.5 * (a + b), d, e, f + 0.5 - 0.5 * (d + e))
        seen.append(
            np.asarray(
                picture.transform((view[1], view[0]), Image.Transform.AFFINE, data, resample=Image.Resampling.BICUBIC)
            )
        )
    return np.stack(seen)


def _flows(
    maps: Sequence[NDArray[np.float64]], layers: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Displacements and visibility, forward and backward."""
    frames, height, width = layers.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 0).astype(np.float64)  # (2, H, W)
    flows = np.zeros((2, max(frames - 1, 0), 2, height, width), np.float32)
    visible = np.zeros((2, max(frames - 1, 0), height, width), np.bool_)
    for first in range(frames - 1):
        for direction, (source, target) in enumerate(((first, first + 1), (first + 1, first))):
            moves = np.stack([np.linalg.solve(layer[target], layer[source]) for layer in maps])[:, :2]
            own = moves[layers[source]]  # (H, W, 2, 3)
            place = np.einsum("hwij,jhw->ihw", own[..., :2], grid) + np.moveaxis(own[..., 2], -1, 0)
            flows[direction, first] = place - grid
            x, y = np.rint(place).astype(np.int64)
            inside = (place >= 0).all(0) & (place[0] <= width - 1) & (place[1] <= height - 1)
            same = layers[target][np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] == layers[source]
            visible[direction, first] = inside & same
    return flows[0], flows[1], visible[0], visible[1]


def _lighting(frames: int, rng: np.random.Generator, motion: Motion) -> NDArray[np.float32]:
    """Brightness of each frame as a factor, float32 (T,)."""
    if not motion.light:
        return np.ones(frames, np.float32)
    return np.exp(_smooth_path(frames, rng, motion.light / frames)).astype(np.float32)


def _exposed(
    frames: NDArray[np.uint8], look: NDArray[np.float32], motion: Motion, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """Frames in their light and, where there is an `rng`, with noise."""
    if not motion.light and not (motion.noise and rng is not None):
        return frames
    values = frames * look[:, None, None, None]
    if motion.noise and rng is not None:
        values = values + rng.normal(0, motion.noise, frames.shape).astype(np.float32)
    exposed: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return exposed


def crop_clip(clip: SimulatedClip, top: int, left: int, height: int, width: int) -> SimulatedClip:
    """A window of a clip; a point whose motion leaves the window counts as not visible.

    Raises:
        ShapeError: if the window leaves the frame.
    """
    full_height, full_width = clip.layers.shape[1:]
    if min(top, left) < 0 or min(height, width) < 1 or top + height > full_height or left + width > full_width:
        raise ShapeError(
            f"a window of {height} x {width} at ({top}, {left}) does not lie in a frame of {full_height} x "
            f"{full_width}."
        )
    window = (..., slice(top, top + height), slice(left, left + width))
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 0)
    kept = []
    for flow, visible in ((clip.flow_fwd, clip.visible_fwd), (clip.flow_bwd, clip.visible_bwd)):
        place = grid + flow[window]
        inside = (place >= 0).all(1) & (place[:, 0] <= width - 1) & (place[:, 1] <= height - 1)
        kept.append(visible[window] & inside)
    colour = (slice(None), *window[1:], slice(None))
    return SimulatedClip(
        clip.frames[colour],
        clip.flow_fwd[window],
        clip.flow_bwd[window],
        kept[0],
        kept[1],
        clip.layers[window],
        clip.background[colour],
    )
