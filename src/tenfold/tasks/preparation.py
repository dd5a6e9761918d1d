"""How labelled images are brought to a network, where the user does not say: as suits the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tenfold.data import Augmentation, Dataset, Preprocess
from tenfold.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, check_side
from tenfold.errors import UnknownNameError

Augment = Literal["auto", "none", "pad", "resized"]

_CROP_FRACTION = 224 / 256  # of the short side, as in the usual ImageNet evaluation


def check_choices(image_size: int | None, augment: str) -> None:
    """Refuse what needs no data to be seen wrong.

    Raises:
        ShapeError: if the size is out of range.
        UnknownNameError: if there is no such augmentation.
    """
    if image_size is not None:
        check_side("image_size", image_size)
    if augment not in get_args(Augment):
        raise UnknownNameError("augment", str(augment), get_args(Augment))


def prepare(
    dataset: Dataset,
    *,
    file_size: int,
    image_size: int | None,
    resize: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    interpolation: Literal["bicubic", "bilinear"],
    channels: Literal[1, 3] | None,
    pixels: bool,
    augment: Augment,
    flip: bool | None,
    rand_augment: float = 0.0,
    erasing: float = 0.0,
) -> tuple[Preprocess, Augmentation]:
    """The preprocessing and the augmentation of a data set: what the user said, else what suits it.

    Args:
        dataset: the images.
        file_size: side of the network's input for images of several sizes, in pixels.
        image_size: as of `classify`, and so are all that follow.
        resize: short side before the centre crop of evaluation.
        mean: per channel, in 0..1.
        std: per channel.
        interpolation: filter of every resize.
        channels: 3 for RGB, 1 for grey.
        pixels: feed raw pixels 0..255.
        augment: which crops.
        flip: mirror half of the training images.
        rand_augment: mean magnitude of RandAugment.
        erasing: probability of random erasing.

    Raises:
        UsageError: if an option has a value that is not allowed.
    """
    size = image_size or dataset.size or file_size
    if resize is None:
        resize = size if dataset.size else round(size / _CROP_FRACTION)
    if channels is None:
        channels = 1 if dataset.channels == 1 else 3
    usual_mean, usual_std = _usual_statistics(dataset, channels)
    preprocess = Preprocess(
        size=size,
        resize=resize,
        mean=tuple(mean) if mean is not None else usual_mean,
        std=tuple(std) if std is not None else usual_std,
        interpolation=interpolation,
        channels=channels,
        pixels=pixels,
    )
    crop = ("pad" if dataset.size else "resized") if augment == "auto" else augment
    augmentation = Augmentation(
        crop=crop,
        padding=(dataset.size or size) // 8,
        flip=flip if flip is not None else dataset.flip and crop != "none",
        rand_augment=rand_augment,
        fill=(0,) * channels if pixels else tuple(round(255 * value) for value in preprocess.mean),
        erasing=erasing,
    )
    return preprocess, augmentation


def _usual_statistics(dataset: Dataset, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of the data, else of ImageNet, brought to the number of channels."""
    mean, std = dataset.mean or IMAGENET_MEAN, dataset.std or IMAGENET_STD
    if len(mean) == channels:
        return mean, std
    if channels == 3:
        return mean * 3, std * 3
    return (sum(mean) / len(mean),), (sum(std) / len(std),)
