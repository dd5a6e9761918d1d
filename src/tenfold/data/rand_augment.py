"""RandAugment and random erasing, each choice drawn by `Draws`.

The operations are those of timm's `rand-m9-mstd0.5-inc1`, as vision transformers are trained with (deepvit.md section
5); only the drawing is our own, so that it is the same in every worker and after a kill.

Source: RandAugment, arXiv 1909.13719, and random erasing, arXiv 1708.04896, in timm's settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from tenfold.data.draws import Draws
from tenfold.data.preprocess import as_pillow, channels_first

OPERATIONS_AN_IMAGE = 2
MAX_MAGNITUDE = 10.0
_CHANCE = 0.5
_SPREAD = 0.5
"""Standard deviation of the magnitude."""
# Each decision has a number of its own; augment.py uses those below 100.
_RAND, _ERASE = 100, 200
_PARTS = 6

_Color = int | tuple[int, ...]
_Filter = Image.Resampling


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: _Color, resample: _Filter) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill)


def _rotate(image: Image.Image, level: float, fill: _Color, resample: _Filter) -> Image.Image:
    return image.rotate(30 * level, resample=resample, fillcolor=fill)


def _shear_x(image: Image.Image, level: float, fill: _Color, resample: _Filter) -> Image.Image:
    return _affine(image, (1, 0.3 * level, 0, 0, 1, 0), fill, resample)


def _shear_y(image: Image.Image, level: float, fill: _Color, resample: _Filter) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * level, 1, 0), fill, resample)


def _translate_x(image: Image.Image, level: float, fill: _Color, resample: _Filter) -> Image.Image:
    return _affine(image, (1, 0, 0.45 * level * image.width, 0, 1, 0), fill, resample)


def _translate_y(image: Image.Image, level: float, fill: _Color, resample: _Filter) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 0.45 * level * image.height), fill, resample)


def _posterize(image: Image.Image, level: float, *_: Any) -> Image.Image:
    bits = 4 - int(4 * abs(level))
    # Pillow refuses to keep no bit, which is black.
    return ImageOps.posterize(image, bits) if bits else image.point(lambda _: 0)


def _solarize(image: Image.Image, level: float, *_: Any) -> Image.Image:
    return ImageOps.solarize(image, 256 - min(256, int(256 * abs(level))))


def _solarize_add(image: Image.Image, level: float, *_: Any) -> Image.Image:
    added = min(128, int(110 * abs(level)))
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * len(image.mode))


def _enhance(kind: Any) -> Callable[..., Image.Image]:
    def change(image: Image.Image, level: float, *_: Any) -> Image.Image:
        return kind(image).enhance(max(0.1, 1 + 0.9 * level))

    return change


OPERATIONS: dict[str, Callable[[Image.Image, float, _Color, _Filter], Image.Image]] = {
    "AutoContrast": lambda image, *_: ImageOps.autocontrast(image),
    "Equalize": lambda image, *_: ImageOps.equalize(image),
    "Invert": lambda image, *_: ImageOps.invert(image),
    "Rotate": _rotate,
    "PosterizeIncreasing": _posterize,
    "SolarizeIncreasing": _solarize,
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": _enhance(ImageEnhance.Color),
    "ContrastIncreasing": _enhance(ImageEnhance.Contrast),
    "BrightnessIncreasing": _enhance(ImageEnhance.Brightness),
    "SharpnessIncreasing": _enhance(ImageEnhance.Sharpness),
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateXRel": _translate_x,
    "TranslateYRel": _translate_y,
}
"""By timm's name: from an image, a signed level in -1..1, the colour of what comes from outside, and a filter."""


def rand_augment(images: NDArray[np.uint8], magnitude: float, fill: tuple[int, ...], draws: Draws) -> NDArray[np.uint8]:
    """Two operations on each image, each left out half of the time, at a strength that varies a little.

    Args:
        images: uint8 (B, C, H, W), C is 1 or 3.
        magnitude: mean strength, 0..10.
        fill: value of what moves in from outside, 0..255, for each channel; grey images take the mean.
        draws: for the images of the batch.

    Returns:
        uint8 (B, C, H, W).
    """
    rows = [as_pillow(image) for image in images]
    color: _Color = fill if images.shape[1] == len(fill) > 1 else round(sum(fill) / len(fill))
    names = list(OPERATIONS)
    for which in range(OPERATIONS_AN_IMAGE):
        first = _RAND + _PARTS * which
        kinds = draws.integers(first, len(names))
        left_out = draws.uniform(first + 1) >= _CHANCE
        levels = np.clip(magnitude + _SPREAD * draws.normal(first + 2), 0, MAX_MAGNITUDE) / MAX_MAGNITUDE
        levels *= np.where(draws.uniform(first + 4) < 0.5, 1, -1)
        bicubic = draws.uniform(first + 5) < 0.5
        for row, image in enumerate(rows):
            if not left_out[row]:
                resample = Image.Resampling.BICUBIC if bicubic[row] else Image.Resampling.BILINEAR
                rows[row] = OPERATIONS[names[kinds[row]]](image, float(levels[row]), color, resample)
    return np.stack([channels_first(image) for image in rows])


def erase(numbers: NDArray[np.float32], chance: float, draws: Draws) -> NDArray[np.float32]:
    """Fill a random box of some images with standard normal noise, after they were normalised.

    The box has 2 % to a third of the area, and sides of a ratio of 0.3 to 1/0.3.

    Args:
        numbers: float32 (B, C, H, W); changed in place.
        chance: probability of each image, 0..1.
        draws: for the images of the batch.
    """
    _, channels, height, width = numbers.shape
    chosen = draws.uniform(_ERASE) < chance
    area = height * width * (0.02 + draws.uniform(_ERASE + 1) * (1 / 3 - 0.02))
    aspect = np.exp(math.log(0.3) * (1 - 2 * draws.uniform(_ERASE + 2)))
    downs = np.minimum(height, np.rint(np.sqrt(area * aspect))).astype(int)
    acrosses = np.minimum(width, np.rint(np.sqrt(area / aspect))).astype(int)
    tops, lefts = draws.uniform(_ERASE + 3), draws.uniform(_ERASE + 4)
    seeds = draws.integers(_ERASE + 5, 2**53)
    for row in np.flatnonzero(chosen):
        down, across = downs[row], acrosses[row]
        top, left = int(tops[row] * (height - down + 1)), int(lefts[row] * (width - across + 1))
        noise = np.random.default_rng(seeds[row]).standard_normal((channels, down, across), np.float32)
        numbers[row, :, top : top + down, left : left + across] = noise
    return numbers
