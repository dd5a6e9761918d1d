"""Sprites: the objects of synthetic videos, as silhouettes filled with texture or as cut-outs of photographs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tenfold.data.images import read_image
from tenfold.data.run_lengths import decode_mask
from tenfold.errors import DataError, MissingDataError

SILHOUETTES = ("disc", "square", "triangle", "ring", "plus", "star", "crescent", "l")
"""The classes of drawn sprites, in the order of their labels from 0."""

SPRITE_SIDE = 96
"""Side of a sprite's own picture in pixels; videos show it smaller."""

_SUPERSAMPLED = 4
_LEAST_CUT_OUT = 1500


@dataclass(frozen=True, eq=False)
class Sprite:
    """An object before it is placed.

    Args:
        textures: two looks between which it fades, uint8 (2, S, S, 3).
        cover: how solid each pixel is, uint8 (S, S); it touches the picture's border on two sides at least.
        label: its class from 0.
    """

    textures: NDArray[np.uint8]
    cover: NDArray[np.uint8]
    label: int


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object of a photograph.

    Args:
        picture: its box, uint8 (H, W, 3).
        cover: where in it the object is, bool (H, W).
        name: of its class in the file.
        identity: its number in the file.
    """

    picture: NDArray[np.uint8]
    cover: NDArray[np.bool_]
    name: str
    identity: int


def silhouette(label: int) -> NDArray[np.uint8]:
    """How solid each pixel of one of SILHOUETTES is, uint8 (SPRITE_SIDE, SPRITE_SIDE)."""
    side = SPRITE_SIDE * _SUPERSAMPLED
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)

    def circle(x: float, y: float, radius: float, fill: int) -> None:
        box = [(x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side]
        draw.ellipse(box, fill=fill)

    def polygon(*points: tuple[float, float]) -> None:
        draw.polygon([(x * side, y * side) for x, y in points], fill=255)

    name = SILHOUETTES[label]
    if name == "disc":
        circle(0.5, 0.5, 0.5, 255)
    elif name == "square":
        polygon((0, 0), (1, 0), (1, 1), (0, 1))
    elif name == "triangle":
        polygon((0.5, 0), (1, 0.93), (0, 0.93))
    elif name == "ring":
        circle(0.5, 0.5, 0.5, 255)
        circle(0.5, 0.5, 0.26, 0)
    elif name == "plus":
        polygon((0.33, 0), (0.67, 0), (0.67, 1), (0.33, 1))
        polygon((0, 0.33), (1, 0.33), (1, 0.67), (0, 0.67))
    elif name == "star":
        turns = [math.pi * (index / 5 - 0.5) for index in range(10)]
        radii = [0.5 if index % 2 == 0 else 0.22 for index in range(10)]
        polygon(*((0.5 + r * math.cos(t), 0.5 + r * math.sin(t)) for r, t in zip(radii, turns, strict=True)))
    elif name == "crescent":
        circle(0.5, 0.5, 0.5, 255)
        circle(0.72, 0.5, 0.4, 0)
    else:
        polygon((0, 0), (0.4, 0), (0.4, 0.6), (1, 0.6), (1, 1), (0, 1))
    return np.asarray(canvas.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.BOX))


def texture(
    height: int, width: int, rng: np.random.Generator, photographs: Sequence[NDArray[np.uint8]] = ()
) -> NDArray[np.uint8]:
    """A random piece of a photograph, or, without photographs, smooth noise in a few colours with stripes.

    Args:
        height: in pixels.
        width: in pixels.
        rng: source of all choices.
        photographs: each uint8 (H, W, 3).

    Returns:
        uint8 (height, width, 3).
    """
    if photographs:
        photograph = photographs[int(rng.integers(len(photographs)))]
        tight = min(photograph.shape[0] / height, photograph.shape[1] / width)
        scale = tight * rng.uniform(0.5, 1.0)
        rows, columns = height * scale, width * scale
        top = rng.uniform(0, photograph.shape[0] - rows)
        left = rng.uniform(0, photograph.shape[1] - columns)
        box = (left, top, left + columns, top + rows)
        return np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.BILINEAR, box=box))
    level = np.zeros((height, width))
    for octave in range(4):
        coarse = rng.random((3 * 2**octave, 3 * 2**octave)).astype(np.float32)
        level += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    if rng.random() < 0.5:
        turn, period = rng.uniform(0, math.pi), rng.uniform(0.08, 0.3) * max(height, width)
        y, x = np.mgrid[0:height, 0:width]
        level += 0.6 * (np.sin((x * math.cos(turn) + y * math.sin(turn)) * 2 * math.pi / period) > 0)
    level = (level - level.min()) / np.ptp(level)
    palette = rng.uniform(10, 245, (4, 3))
    stops = np.linspace(0, 1, 4)
    colours = np.stack([np.interp(level, stops, palette[:, channel]) for channel in range(3)], axis=-1)
    return np.rint(colours).astype(np.uint8)


def drawn_sprite(label: int, rng: np.random.Generator, photographs: Sequence[NDArray[np.uint8]] = ()) -> Sprite:
    """A silhouette filled with two random textures, which stay out of view at first and fade in."""
    looks = [texture(SPRITE_SIDE, SPRITE_SIDE, rng, photographs) for _ in range(2)]
    return Sprite(np.stack(looks), silhouette(label), label)


def cut_out_sprite(cut_out: CutOut, label: int, rng: np.random.Generator) -> Sprite:
    """A cut-out as a sprite; its second look is itself in other light."""
    height, width = cut_out.cover.shape
    scale = SPRITE_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (SPRITE_SIDE - size[0]) // 2, (SPRITE_SIDE - size[1]) // 2
    picture = np.zeros((SPRITE_SIDE, SPRITE_SIDE, 3), np.uint8)
    cover = np.zeros((SPRITE_SIDE, SPRITE_SIDE), np.uint8)
    inside = (slice(top, top + size[1]), slice(left, left + size[0]))
    resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    picture[inside] = np.asarray(Image.fromarray(cut_out.picture).resize(size, resample))
    cover[inside] = np.asarray(Image.fromarray(cut_out.cover.astype(np.uint8) * 255).resize(size, resample))
    light = 255 * (picture / 255) ** rng.uniform(0.6, 1.6)
    return Sprite(np.stack([picture, np.rint(light).astype(np.uint8)]), cover, label)


def load_cut_outs(annotations: str | Path, count: int = 20, least_area: int = _LEAST_CUT_OUT) -> list[CutOut]:
    """The largest objects of a COCO file, at most one a photograph, as cut-outs.

    Args:
        annotations: a JSON file of COCO's form; the pictures lie beside it under their `file_name`.
        count: how many.
        least_area: in pixels of the photograph; smaller objects and crowds are passed over, and objects that touch the
            photograph's border, too, since their outline is not theirs.

    Returns:
        `count` cut-outs, the largest first; equal areas in the order of the file.

    Raises:
        MissingDataError: if the file or a picture is not there.
        DataError: if the file is damaged, or has too few objects.
    """
    path = Path(annotations)
    content = coco_file(path)
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    found: list[CutOut] = []
    taken: set[Any] = set()
    for entry in sorted(content["annotations"], key=lambda one: -float(one["area"])):
        image = images[entry["image_id"]]
        if entry.get("iscrowd") or float(entry["area"]) < least_area or entry["image_id"] in taken:
            continue
        mask = decode_mask(entry["segmentation"], int(image["height"]), int(image["width"]))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not rows.size or mask[[0, -1]].any() or mask[:, [0, -1]].any():
            continue
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        picture = read_image(path.parent / image["file_name"])
        if picture.shape[:2] != mask.shape:
            raise DataError(f"{image['file_name']} is of {picture.shape[:2]}, but {path} says {mask.shape}.")
        taken.add(entry["image_id"])
        found.append(CutOut(picture[box], mask[box], names[entry["category_id"]], int(entry["id"])))
        if len(found) == count:
            return found
    raise DataError(
        f"{path} has {len(found)} objects of at least {least_area} pixels that are whole, but {count} were asked."
    )


def coco_file(path: Path) -> dict[str, Any]:
    """The content of a COCO file.

    Raises:
        MissingDataError: if it is not there.
        DataError: if it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in ("images", "annotations", "categories"):
            content[key][:0]
    except FileNotFoundError as error:
        raise MissingDataError(f"there are no annotations at {path}. Check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a COCO file: a JSON object with images, annotations and categories.") from error
    return dict(content)
