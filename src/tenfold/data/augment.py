"""Augmentation for training: crops, flips and what comes behind them, each choice drawn by `Draws`.

Source: sat.md section 4 (RandomResizedCrop and flip for ImageNet, pad-4 crop and flip for CIFAR); deepvit.md section 5
(RandAugment, random erasing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tenfold.data.draws import Draws
from tenfold.data.images import Box
from tenfold.data.rand_augment import MAX_MAGNITUDE, erase, rand_augment
from tenfold.errors import UnknownNameError, UsageError

CropKind = Literal["none", "pad", "resized"]

_ATTEMPTS = 10
# Each decision has a number of its own, so that a new decision changes none of the others.
_FLIP, _TOP, _LEFT, _BOX = 0, 1, 2, 16


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are varied.

    Args:
        crop: "pad" adds a black border and crops at a random place; "resized" takes a random box of the image and
            resizes it; "none" leaves the image as in evaluation.
        padding: border of "pad", in pixels.
        scale: area of the box of "resized", as a fraction of the image's area, from and to.
        ratio: width over height of the box of "resized", from and to.
        flip: mirror half of the images left to right.
        rand_augment: mean magnitude of RandAugment, 0..10; 0 is off.
        fill: value of what RandAugment moves in from outside, 0..255, one for each channel.
        erasing: probability that a box of an image is filled with noise, 0..1.

    Raises:
        UsageError: if a field has a value that is not allowed.
    """

    crop: CropKind = "none"
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    rand_augment: float = 0.0
    fill: tuple[int, ...] = (0, 0, 0)
    erasing: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in get_args(CropKind):
            raise UnknownNameError("crop", str(self.crop), get_args(CropKind))
        if self.padding < 0:
            raise UsageError(f"padding is {self.padding}; allowed are 0 and more pixels.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"scale is {self.scale}; allowed are two fractions with 0 < from <= to <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"ratio is {self.ratio}; allowed are two numbers with 0 < from <= to.")
        for name, largest in (("rand_augment", MAX_MAGNITUDE), ("erasing", 1)):
            if not 0 <= getattr(self, name) <= largest:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed are numbers from 0 to {largest:g}.")

    def vary(self, images: NDArray[np.uint8], draws: Draws) -> NDArray[np.uint8]:
        """Pad-crop, flip and RandAugment a whole batch, uint8 (B, C, H, W); the shape stays."""
        if self.crop == "pad" and self.padding:
            places = 2 * self.padding + 1
            images = pad_crop(images, self.padding, draws.integers(_TOP, places), draws.integers(_LEFT, places))
        if self.flip:
            images = mirror(images, draws.uniform(_FLIP) < 0.5)
        return rand_augment(images, self.rand_augment, self.fill, draws) if self.rand_augment else images

    def erase(self, numbers: NDArray[np.float32], draws: Draws) -> NDArray[np.float32]:
        """Random erasing of a batch that is normalised already, float32 (B, C, H, W); in place."""
        return erase(numbers, self.erasing, draws) if self.erasing else numbers

    def box_chances(self, draws: Draws) -> NDArray[np.float64]:
        """The random numbers behind the boxes of a batch, for `choose_box`: (B, attempts, 4)."""
        chances = [draws.uniform(_BOX + i) for i in range(4 * _ATTEMPTS)]
        return np.stack(chances, axis=1).reshape(-1, _ATTEMPTS, 4)

    def choose_box(self, width: int, height: int, chances: NDArray[np.float64]) -> Box:
        """A random box inside an image, distributed as torchvision's RandomResizedCrop draws it.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
            chances: the image's row of `box_chances`, (attempts, 4).
        """
        low, high = (math.log(ratio) for ratio in self.ratio)
        for of_area, of_ratio, of_left, of_top in chances.tolist():
            area = width * height * (self.scale[0] + of_area * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + of_ratio * (high - low))
            box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < box_width <= width and 0 < box_height <= height:
                left, top = int(of_left * (width - box_width + 1)), int(of_top * (height - box_height + 1))
                return left, top, left + box_width, top + box_height
        # A very long or tiny image: the largest box in the middle whose ratio is allowed.
        box_width = min(width, max(1, round(height * self.ratio[1])))
        box_height = min(height, max(1, round(width / self.ratio[0])))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height


def pad_crop(
    images: NDArray[np.uint8], padding: int, tops: NDArray[np.int64], lefts: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Add a black border and cut the original size out again, at a place of each image's own.

    Args:
        images: uint8 (B, C, H, W).
        padding: width of the border, in pixels.
        tops: first row of each crop in the padded image, 0..2*padding, (B,).
        lefts: first column likewise, (B,).

    Returns:
        uint8 (B, C, H, W).
    """
    count, channels, height, width = images.shape
    padded = np.zeros((count, channels, height + 2 * padding, width + 2 * padding), np.uint8)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (height, width), axis=(2, 3)
    )  # (B, C, places, places, H, W)
    return windows[np.arange(count), :, tops, lefts]  # (B, C, H, W)


def mirror(images: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flip the chosen images of a batch (B, C, H, W) left to right."""
    mirrored = images.copy()
    mirrored[chosen] = images[chosen][..., ::-1]
    return mirrored
