"""Pictures of what was found: each object in a colour of its own that follows from its id, with outline and name."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tenfold.video.flow import Frame
from tenfold.video.segment import Seen

_GOLDEN = 0.618033988749895
_OPACITY = 0.45


def object_colour(name: int) -> tuple[int, int, int]:
    """The colour of an id, RGB; those of neighbouring ids are far apart.

    Args:
        name: the id, from 1.
    """
    hue = (0.95 + (name - 1) * _GOLDEN) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if name % 2 else 0.6, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn_over(frame: Frame, seen: Mapping[int, Seen], categories: Mapping[int, str]) -> Frame:
    """A frame with the objects on it marked.

    Args:
        frame: uint8 (H, W, 3), RGB; it is not changed.
        seen: objects by their ids.
        categories: names by number; not written where there is only one.

    Returns:
        uint8 (H, W, 3).
    """
    picture = frame.copy()
    for name, one in seen.items():
        colour = np.array(object_colour(name), np.float32)
        picture[one.mask] = np.rint((1 - _OPACITY) * picture[one.mask] + _OPACITY * colour).astype(np.uint8)
        picture[_outline(one.mask, max(1, round(min(frame.shape[:2]) / 240)))] = colour.astype(np.uint8)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(10, frame.shape[0] // 28))
    for name, one in seen.items():
        text = str(name) if len(categories) == 1 else f"{name} {categories.get(one.category, one.category)}"
        rows, columns = (np.flatnonzero(one.mask.any(axis)) for axis in (1, 0))
        left, top, right, bottom = draw.textbbox((0, 0), text, font)
        x = int(np.clip(columns[0], 0, max(0, frame.shape[1] - (right - left) - 4)))
        y = int(np.clip(rows[0] - (bottom - top) - 6, 0, max(0, frame.shape[0] - (bottom - top) - 6)))
        draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 5), fill=object_colour(name))
        draw.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0), font=font)
    return np.asarray(image)


def _outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask that lie within some steps of what is outside."""
    inner = mask
    for _ in range(width):
        padded = np.pad(inner, 1, "edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: NDArray[np.bool_] = mask & ~inner
    return outline
