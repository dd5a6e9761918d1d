"""Augmentation of an image together with its mask: zoom, crop and flip, each choice drawn by `Draws`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.data import Draws
from tenfold.data.label_sets import IGNORE
from tenfold.errors import ShapeError, UsageError

# Each decision has a number of its own, so that a new decision changes none of the others.
_FLIP, _TOP, _LEFT, _ZOOM = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class ScaleCrop:
    """Random zoom, crop and flip.

    Args:
        height: of the crop, in pixels.
        width: likewise.
        scale: zoom factor, from and to, drawn evenly on a logarithmic scale. Where the zoomed image is smaller than the
            crop, a border of mean colour and ignored pixels fills it.
        flip: mirror half of the pairs left to right.

    Raises:
        UsageError: if `scale` is not two positive numbers.
    """

    height: int
    width: int
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise UsageError(f"scale is {self.scale}; allowed are two numbers, 0.1 <= from <= to <= 10.")

    def check(self, height: int, width: int, name: str) -> None:
        """Refuse an image that is smaller than the crop before any zoom.

        Raises:
            ShapeError: naming it.
        """
        if height < self.height or width < self.width:
            raise ShapeError(
                f"the image {name} has {width} x {height} pixels, less than the crop of {self.width} x {self.height}. "
                "Take a smaller crop (--set task.crop=[HEIGHT,WIDTH]), or enlarge the images (image_size)."
            )

    def __call__(self, image: Tensor, mask: Tensor, fill: list[float], draws: Draws) -> tuple[Tensor, Tensor]:
        """Vary one pair.

        Args:
            image: uint8 (C, H, W), at least as large as the crop.
            mask: uint8 (H, W).
            fill: colour of the border, a number 0..255 for each channel.
            draws: of this one image.

        Returns:
            uint8 (C, height, width) and uint8 (height, width).
        """
        from torchvision import tv_tensors  # importing torchvision takes a second, and only training needs it
        from torchvision.transforms import InterpolationMode, v2

        low, high = self.scale
        zoom = low * (high / low) ** float(draws.uniform(_ZOOM)[0])
        # The box of the image that becomes the crop; for a zoom below 1 it may reach over the edges.
        box_height, box_width = max(1, round(self.height / zoom)), max(1, round(self.width / zoom))
        pair = tv_tensors.Image(image), tv_tensors.Mask(mask)
        height, width = mask.shape
        down, across = max(0, box_height - height), max(0, box_width - width)
        if down or across:
            border = [across // 2, down // 2, across - across // 2, down - down // 2]
            pair = v2.functional.pad(pair[0], border, fill), v2.functional.pad(pair[1], border, float(IGNORE))
        top = int(draws.integers(_TOP, height + down - box_height + 1)[0])
        left = int(draws.integers(_LEFT, width + across - box_width + 1)[0])
        is_flipped = self.flip and draws.uniform(_FLIP)[0] < 0.5
        varied = []
        for one in pair:
            # torchvision takes the nearest pixel for masks, whatever is asked.
            one = v2.functional.resized_crop(
                one,
                top,
                left,
                box_height,
                box_width,
                [self.height, self.width],
                InterpolationMode.BILINEAR,
                antialias=True,
            )
            varied.append(v2.functional.horizontal_flip(one) if is_flipped else one)
        return varied[0].as_subclass(torch.Tensor), varied[1].as_subclass(torch.Tensor)
