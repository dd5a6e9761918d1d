"""Images of one size held as one uint8 array, in memory or mapped from a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.data.augment import Augmentation
from tenfold.data.dataset import Dataset, split_images
from tenfold.data.draws import Draws
from tenfold.data.preprocess import Preprocess, as_pillow, channels_first
from tenfold.errors import ShapeError, require


class ArrayImages:
    """Labelled images as uint8 (N, C, H, W), in memory or a memory map.

    Args:
        pixels: uint8 (N, C, H, W), C is 1 or 3.
        targets: class of each image, (N,).

    Raises:
        ShapeError: if the two do not fit each other.
    """

    def __init__(self, pixels: NDArray[np.uint8], targets: NDArray[np.int64]) -> None:
        if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or pixels.dtype != np.uint8 or len(pixels) != len(targets):
            raise ShapeError(
                f"images of type {pixels.dtype} and shape {pixels.shape} with {len(targets)} labels; "
                "needed is uint8 of shape (N, 1 or 3, H, W) with N labels."
            )
        self.pixels = pixels
        self.targets = targets.astype(np.int64)

    def take(self, indices: NDArray[np.int64]) -> ArrayImages:
        """Only these images, in this order, copied into memory."""
        return ArrayImages(self._gather(indices), self.targets[indices])

    def framed(self, indices: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        """A batch as evaluation sees it, uint8 (B, C, size, size)."""
        return _fitted(self._gather(indices), preprocess)

    def varied(
        self, indices: NDArray[np.int64], preprocess: Preprocess, augmentation: Augmentation, draws: Draws
    ) -> NDArray[np.uint8]:
        """A batch as training sees it, uint8 (B, C, size, size)."""
        images = self._gather(indices)
        if augmentation.crop == "resized":
            height, width = images.shape[2:]
            boxes = [augmentation.choose_box(width, height, row) for row in augmentation.box_chances(draws)]
            side = (preprocess.size, preprocess.size)
            images = np.stack([
                channels_first(as_pillow(image).resize(side, preprocess.resample, box=box))
                for image, box in zip(images, boxes, strict=True)
            ])  # fmt: skip
        # Crops move in the image's own pixels, before any enlargement: 4 of 32 stays an eighth of the picture.
        return _fitted(augmentation.vary(images, draws), preprocess)

    def _gather(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        # take() is twice as fast as indexing a memory map, and gives a plain array.
        return np.asarray(self.pixels).take(indices, axis=0)


def load_digits(eval_fraction: float = 0.2, split_seed: int = 0) -> Dataset:
    """The 1797 handwritten digits of scikit-learn, 8x8 grey, split by a fixed seed.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", "demo").load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
    train, evaluation = split_images(ArrayImages(pixels, bunch.target), eval_fraction, split_seed)
    return array_dataset("digits", train, evaluation, tuple("0123456789"), flip=False, held_out=eval_fraction > 0)


def array_dataset(
    name: str,
    train: ArrayImages,
    evaluation: ArrayImages,
    labels: tuple[str, ...],
    *,
    flip: bool = True,
    held_out: bool = True,
) -> Dataset:
    """Put two arrays together, with the mean and spread of the training images."""
    mean, std = channel_statistics(train.pixels)
    _, channels, height, width = train.pixels.shape
    return Dataset(
        name=name,
        labels=labels,
        train=train,
        evaluation=evaluation,
        held_out=held_out,
        size=height if height == width else None,
        channels=channels,
        mean=mean,
        std=std,
        flip=flip,
    )


def channel_statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all images, in 0..1, to three decimals.

    Args:
        pixels: uint8 (N, C, H, W).
    """
    # Counting the 256 levels is exact, and needs no float copy; in parts, since bincount widens its input.
    parts = [np.asarray(pixels[start : start + 1000]) for start in range(0, len(pixels), 1000)]
    counts = np.stack(
        [sum(np.bincount(part[:, c].reshape(-1), minlength=256) for part in parts) for c in range(pixels.shape[1])]
    )  # (C, 256)
    levels, shares = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
    # A channel that never changes has no spread to divide by.
    return tuple(np.round(mean, 3).tolist()), tuple(np.maximum(np.round(std, 3), 0.001).tolist())


def _fitted(images: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Bring a batch to the preprocess' size and channels, by the very code that `predict` runs on a file."""
    if images.shape[1:] == preprocess.input_shape and preprocess.resize == preprocess.size:
        return images
    return np.stack([preprocess.frame(as_pillow(image)) for image in images])
