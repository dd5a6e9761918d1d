"""What every source of labelled images looks like to a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from tenfold.data.augment import Augmentation
from tenfold.data.draws import Draws, stratified_order
from tenfold.data.preprocess import Preprocess
from tenfold.errors import DataError

SomeImages = TypeVar("SomeImages", bound="Images")


class Images(Protocol):
    """A fixed list of images, each with a class; batches come out as uint8 (B, C, size, size)."""

    targets: NDArray[np.int64]
    """Class of each image, (N,)."""

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Only these images, in this order."""

    def framed(self, indices: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        """A batch as evaluation sees it."""

    def varied(
        self, indices: NDArray[np.int64], preprocess: Preprocess, augmentation: Augmentation, draws: Draws
    ) -> NDArray[np.uint8]:
        """A batch as training sees it."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images in two parts, with the settings that suit them.

    Args:
        name: for people.
        labels: name of each class.
        train: images to learn from.
        evaluation: images to judge by.
        held_out: whether `evaluation` shares no image with `train`.
        size: the images' own side in pixels, None where they differ.
        channels: 3 for RGB, 1 for grey.
        mean: per channel, in 0..1.
        std: per channel.
        flip: whether a mirrored image still shows the same class (not so for digits).
        skipped: files left out on request, each with the reason.
    """

    name: str
    labels: Sequence[str]
    train: Images
    evaluation: Images
    held_out: bool = True
    size: int | None = None
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    skipped: Sequence[str] = field(default=())


def split_images(images: SomeImages, eval_fraction: float, seed: int) -> tuple[SomeImages, SomeImages]:
    """Part one list into training and evaluation, each class in proportion; a fraction of 0 uses all for both.

    Raises:
        DataError: if one of the parts would be empty.
    """
    if eval_fraction == 0:
        return images, images
    count = len(images.targets)
    cut = round(count * eval_fraction)
    if not 0 < cut < count:
        raise DataError(f"{count} images cannot be split with a fraction of {eval_fraction:g} for evaluation.")
    order = stratified_order(images.targets, seed)
    return images.take(np.sort(order[cut:])), images.take(np.sort(order[:cut]))
