"""From an image to the numbers a network takes; the same code in training, evaluation and the exported file's run.

This module needs numpy and Pillow only, so that an ONNX file runs without torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.images import MAX_PIXELS
from tenfold.errors import DataError, ShapeError, UnknownNameError, UsageError

MAX_SIZE = 4096
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """From pixels to x = (pixel / 255 - mean) / std; how the picture gets its size is for subclasses to say.

    Args:
        mean: per channel, in 0..1.
        std: per channel, above 0.
        interpolation: filter of every resize, antialiased as Pillow does it.
        channels: 3 for RGB, 1 for grey.
        pixels: give the raw pixels 0..255 as floats and ignore mean and std (the convention of SAT, sat.md 2.4).

    Raises:
        UsageError: if a field has a value that is not allowed.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    channels: int = 3
    pixels: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UsageError(f"channels is {self.channels!r}; allowed are 1 (grey) and 3 (RGB).")
        if self.interpolation not in _RESAMPLE:
            raise UnknownNameError("interpolation", str(self.interpolation), _RESAMPLE)
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != self.channels or not all(np.isfinite(values)):
                raise UsageError(f"{name} is {values}; it needs {self.channels} finite numbers, one per channel.")
        if min(self.std) <= 0:
            raise UsageError(f"std is {self.std}; each number must be above 0.")

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From one image, uint8 (H, W, 3) or grey (H, W) or (H, W, 1), to float32 (C, height, width).

        Raises:
            ShapeError: if the array is not an image of eight bits.
        """
        return self.normalize(self.frame(self._as_pillow(image)))

    def frame(self, image: Image.Image) -> NDArray[np.uint8]:
        """Bring an image of mode RGB or L to its size: uint8 (C, height, width)."""
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        raise NotImplementedError

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From uint8 (..., C, H, W) to the float32 numbers the network takes, of the same shape."""
        numbers = pixels.astype(np.float32)
        if not self.pixels:
            scale, shift = self._affine
            numbers *= scale
            numbers += shift
        return numbers

    @property
    def resample(self) -> Image.Resampling:
        """Pillow's name of the interpolation."""
        return _RESAMPLE[self.interpolation]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object that `from_dict` reads back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            UnknownNameError: if a key is not a field.
            UsageError: if a field is missing or has a value that is not allowed.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise UnknownNameError("field of a preprocess description", name, known)
        try:
            values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"this preprocess description does not fit: {fields} ({error}).") from error

    @cached_property
    def _affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean, std = np.array(self.mean)[:, None, None], np.array(self.std)[:, None, None]
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def _in_mode(self, image: Image.Image) -> Image.Image:
        mode = "L" if self.channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)

    def _as_pillow(self, image: NDArray[np.uint8]) -> Image.Image:
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
            raise ShapeError(
                f"an image of type {image.dtype} and shape {image.shape} was given; needed is uint8 of shape "
                "(H, W, 3) or (H, W). Use tenfold.data.read_image to read files."
            )
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[:, :, 0]
        return Image.fromarray(np.ascontiguousarray(image))


@dataclass(frozen=True, kw_only=True)
class Preprocess(Normalization):
    """Short side to `resize`, centre crop of `size`: how a classifier gets its image.

    The geometry equals torchvision's `Resize(resize)` and `CenterCrop(size)` on Pillow images, bit for bit.

    Args:
        size: side of the square that the network sees, in pixels.
        resize: length of the short side before the crop, in pixels, at least `size`.

    Raises:
        ShapeError: if a size is not a whole number of pixels in 1..4096, or the crop is larger than the image.
        UsageError: if another field has a value that is not allowed.
    """

    size: int
    resize: int

    def __post_init__(self) -> None:
        check_side("size", self.size)
        check_side("resize", self.resize)
        if self.resize < self.size:
            raise ShapeError(f"resize is {self.resize}, but a crop of {self.size} needs at least {self.size}.")
        super().__post_init__()

    def frame(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an image of mode RGB or L: uint8 (C, size, size).

        Raises:
            DataError: if the image is so narrow that it cannot be resized.
        """
        image = self._in_mode(image)
        width, height = image.size
        if min(width, height) != self.resize:
            longer = int(self.resize * max(width, height) / min(width, height))
            if longer * self.resize > MAX_PIXELS:
                raise DataError(
                    f"an image of {width} x {height} pixels is too narrow: with a short side of {self.resize} it would "
                    f"have more than {MAX_PIXELS:,} pixels. Crop it first, or remove it from the data."
                )
            width, height = (self.resize, longer) if width <= height else (longer, self.resize)
            image = image.resize((width, height), self.resample)
        # round() is half-to-even here, as in torchvision: the crop must fall on the very same pixel.
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        if (width, height) != (self.size, self.size):
            image = image.crop((left, top, left + self.size, top + self.size))
        return channels_first(image)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what comes out."""
        return (self.channels, self.size, self.size)


@dataclass(frozen=True, kw_only=True)
class WholeImage(Normalization):
    """The whole image, for answers that belong to its places: resized to one size, or covered by windows.

    Args:
        height: of what the network sees, in pixels.
        width: likewise.
        windows: leave the image its size (but enlarge one that is smaller than a window, in proportion), for a network
            that is run on overlapping windows of height x width.

    Raises:
        ShapeError: if a side is not a whole number of pixels in 1..4096.
        UsageError: if another field has a value that is not allowed.
    """

    height: int
    width: int
    windows: bool = False

    def __post_init__(self) -> None:
        check_side("height", self.height)
        check_side("width", self.width)
        super().__post_init__()

    def frame(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an image of mode RGB or L: uint8 (C, H, W), the size of the network's input unless for windows.

        Raises:
            DataError: if an image is so narrow that it cannot be enlarged to a window.
        """
        size = self.frame_size(image.width, image.height)
        image = self._in_mode(image)
        return channels_first(image if image.size == size else image.resize(size, self.resample))

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to which an image of some size is brought.

        Raises:
            DataError: as `frame`.
        """
        if not self.windows:
            return self.width, self.height
        factor = max(1.0, self.width / width, self.height / height)
        across, down = max(self.width, round(width * factor)), max(self.height, round(height * factor))
        if across * down > MAX_PIXELS:
            raise DataError(
                f"an image of {width} x {height} pixels is too narrow: enlarged to a window of {self.width} x "
                f"{self.height} it would have more than {MAX_PIXELS:,} pixels. Crop it first."
            )
        return across, down

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return (self.channels, self.height, self.width)


def read_preprocess(fields: dict[str, Any]) -> Preprocess | WholeImage:
    """Rebuild either kind from its `to_dict`.

    Raises:
        UsageError: as `Normalization.from_dict` raises.
    """
    return WholeImage.from_dict(fields) if "height" in fields else Preprocess.from_dict(fields)


def channels_first(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an RGB or L image as uint8 (C, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def as_pillow(pixels: NDArray[np.uint8]) -> Image.Image:
    """The inverse of `channels_first`."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def check_side(name: str, value: object) -> None:
    """Refuse a side length that is not a whole number of pixels in 1..4096.

    Raises:
        ShapeError: with the value got and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
        raise ShapeError(f"{name} is {value!r}; allowed is a whole number of pixels from 1 to {MAX_SIZE}.")
