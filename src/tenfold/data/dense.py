"""From a network's scores to a class for each pixel, and to pictures that people read; numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A network: inputs (B, C, H, W) to scores (B, K, h, w)."""

WINDOW_OVERLAP = 1 / 3
"""Part of a window that it shares with the next."""
_OVERLAY = 0.55


def window_starts(length: int, window: int) -> list[int]:
    """First pixels of the windows that cover a length: alike in distance, overlapping by a third or more.

    Example:
        >>> window_starts(100, 60), window_starts(60, 60)
        ([0, 40], [0])
    """
    if length <= window:
        return [0]
    count = 1 + -(-(length - window) // max(1, int(window * (1 - WINDOW_OVERLAP))))
    return [round(at * (length - window) / (count - 1)) for at in range(count)]


def window_boxes(height: int, width: int, window: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each window of (height, width) that covers an image."""
    for top in window_starts(height, window[0]):
        for left in window_starts(width, window[1]):
            yield slice(top, top + window[0]), slice(left, left + window[1])


def enlarged(scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Scores (K, h, w) at another size (height, width), bilinearly.

    Equals torch's `interpolate(mode="bilinear", align_corners=False)` up to rounding, where it enlarges.
    """
    if scores.shape[1:] == size:
        return scores
    box = (size[1], size[0])
    planes = [Image.fromarray(np.ascontiguousarray(plane)).resize(box, Image.Resampling.BILINEAR) for plane in scores]
    return np.stack([np.asarray(plane) for plane in planes])


def pixel_scores(run: Run, inputs: NDArray[np.float32], window: tuple[int, int]) -> NDArray[np.float32]:
    """Scores of every pixel of one prepared image.

    Args:
        run: the network.
        inputs: (C, H, W).
        window: (height, width) that the network sees; a larger image is covered by such windows, and where they
            overlap their scores are averaged.

    Returns:
        (K, H, W).
    """
    height, width = inputs.shape[1:]
    total: NDArray[np.float32] | None = None
    count = np.zeros((height, width), np.float32)
    for rows, columns in window_boxes(height, width, window):
        part = enlarged(run(np.ascontiguousarray(inputs[None, :, rows, columns]))[0], window)
        if total is None:
            total = np.zeros((len(part), height, width), np.float32)
        total[:, rows, columns] += part
        count[rows, columns] += 1
    assert total is not None
    return total / count


def coloured_mask(classes: NDArray[np.uint8], colours: Sequence[Sequence[int]]) -> Image.Image:
    """A palette picture whose values are the classes (H, W); values without a class are black."""
    picture = Image.fromarray(classes, mode="P")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = np.asarray(colours, np.uint8)
    picture.putpalette(palette.tobytes())
    return picture


def overlay(image: Image.Image, classes: NDArray[np.uint8], colours: Sequence[Sequence[int]]) -> Image.Image:
    """An RGB image with the colours of its classes laid over it."""
    mask = coloured_mask(classes, colours).convert("RGB")
    return Image.blend(image.convert("RGB").resize(mask.size), mask, _OVERLAY)


def side_by_side(pictures: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = pictures[0].size
    row = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for place, picture in enumerate(pictures):
        row.paste(picture, (place * (width + gap), 0))
    return row
