"""Pairs of an image and a mask: finding them in a folder, and reading them with care.

A mask is a picture of one channel whose pixel values are classes. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.catalog import EVALUATION, find_folder
from tenfold.data.draws import Draws
from tenfold.data.images import SUFFIXES, image_size, load_image, opened, turned_upright
from tenfold.data.label_sets import LabelSet, find_labels
from tenfold.errors import DataError, MissingDataError, UsageError

SEGMENTATION_LAYOUTS = (
    "train/ and val/ with images/ and masks/ in each, images/ and masks/ alone, or leftImg8bit/ and gtFine/ as in "
    "Cityscapes"
)
_CITYSCAPES = ("leftImg8bit", "gtFine")
_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm")
"""Formats that keep every value; JPEG does not."""


@dataclass(frozen=True)
class Pair:
    """One image with its mask, and its upright size in pixels."""

    image: Path
    mask: Path
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class MaskedImages:
    """A segmentation data set.

    Args:
        name: for people.
        labels: the classes.
        train: pairs to learn from.
        evaluation: pairs to judge by.
        held_out: whether `evaluation` shares no pair with `train`.
        part: the folder that `evaluation` comes from, where the data has a split of its own.
    """

    name: str
    labels: LabelSet
    train: Sequence[Pair]
    evaluation: Sequence[Pair]
    held_out: bool = True
    part: str | None = None

    def read(self, pair: Pair, channels: int = 3) -> tuple[Image.Image, NDArray[np.uint8]]:
        """The upright image in mode RGB or L, and the class of each pixel, uint8 (H, W), IGNORE where there is none.

        Raises:
            DataError: if one of the files cannot be read, or the mask holds a value that is no label.
        """
        values, image = read_mask(pair.mask), load_image(pair.image, channels)
        _check_sizes(pair.image, image.size, pair.mask, (values.shape[1], values.shape[0]))
        unknown = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256).astype(bool) & ~self.labels.known())
        if len(unknown):
            allowed = sorted({*self.labels.values, *self.labels.void})
            raise DataError(
                f"the mask {pair.mask} holds the value {unknown[0]}, which is no label; allowed are "
                f"{_ranges(allowed)}. Name the class in labels.txt, or as 'void' to ignore it."
            )
        return image, self.labels.lookup_table()[values]


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The pixel values of a mask, uint8 (H, W); of a palette picture the numbers, not the colours.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged, too large, or no picture of one channel with values up to 255.
    """
    with opened(path, str(path)) as (image, orientation):
        image.load()
        values = np.asarray(turned_upright(image, orientation))
        if values.ndim != 2 or image.mode == "F" or int(values.min()) < 0 or int(values.max()) > 255:
            raise DataError(
                f"the mask {path} is a picture of mode {image.mode}; needed is one channel whose values 0 to 255 are "
                "classes. Colours must be turned into class numbers first."
            )
        return values.astype(np.uint8)


def open_masked_images(
    data: str | Path | None,
    *,
    labels: str | Sequence[str] | None = None,
    eval_fraction: float | None = None,
    split_seed: int = 0,
    eval_part: str | None = None,
    fallback: LabelSet | None = None,
) -> MaskedImages:
    """Open images with masks by path or name.

    Args:
        data: a folder, or the name of one inside the folder that the variable TENFOLD_DATA names. See
            SEGMENTATION_LAYOUTS.
        labels: see `find_labels`; Cityscapes' own names for its layout by default.
        eval_fraction: part kept for evaluation where the data has no split of its own, 0 up to below 1; 0 evaluates on
            the training images. Default: 0.2.
        split_seed: another seed gives another split.
        fallback: the classes where the folder does not name them.
        eval_part: the folder beside train/ to judge by; default: the first there is of val, validation, test.

    Raises:
        UsageError: if there is no `data`, or the fraction is not allowed.
        UnknownNameError: if a bare name is nowhere.
        MissingDataError: if a folder, a mask or the names of the classes are missing, or a folder is empty.
        DataError: if a mask and its image differ in size, or a file cannot be read.
    """
    if data is None:
        raise UsageError(f"segmentation needs data: --data FOLDER, laid out as {SEGMENTATION_LAYOUTS}.")
    if eval_fraction is not None and not 0 <= eval_fraction < 1:
        raise UsageError(f"eval_fraction is {eval_fraction}; allowed is 0 up to below 1.")
    folder, held_out, used = find_folder(data), True, None
    if eval_part is not None and not (folder / eval_part).is_dir():
        raise MissingDataError(f"{folder} has no part {eval_part!r} to evaluate on; leave eval_part out.")
    parts = EVALUATION if eval_part is None else (eval_part,)
    part = next((folder / name for name in parts if (folder / name).is_dir()), None)
    if all((folder / tree).is_dir() for tree in _CITYSCAPES):
        known = find_labels(folder, labels or "cityscapes")
        train, evaluation, used = _cityscapes_pairs(folder, "train"), _cityscapes_pairs(folder, "val"), "val"
    elif (folder / "train" / "images").is_dir() and part is not None:
        known = find_labels(folder, labels, fallback)
        train, evaluation, used = _folder_pairs(folder / "train"), _folder_pairs(part), part.name
    elif (folder / "images").is_dir():
        known, pairs = find_labels(folder, labels, fallback), _folder_pairs(folder)
        fraction = 0.2 if eval_fraction is None else eval_fraction
        train, evaluation, held_out = *_split(pairs, fraction, split_seed), fraction > 0
    else:
        raise MissingDataError(f"{folder} holds no images with masks. Expected is one of: {SEGMENTATION_LAYOUTS}.")
    return MaskedImages(
        name=folder.name, labels=known, train=train, evaluation=evaluation, held_out=held_out, part=used
    )


def reopen_masked_images(described: Mapping[str, Any], data: str | Path | None) -> MaskedImages:
    """The images that a network is judged by again, from the description of its task.

    Raises:
        DataError: as `open_masked_images` raises.
    """
    labels = LabelSet.from_dict(described)
    part = described.get("data", {}).get("part")
    has_part = data is not None and part is not None and (find_folder(data) / part).is_dir()
    return open_masked_images(data, fallback=labels, eval_part=part if has_part else None)


def _folder_pairs(folder: Path) -> list[Pair]:
    """The pairs of images/NAME and masks/NAME below a folder, sorted."""
    images, masks = folder / "images", folder / "masks"
    for place in (images, masks):
        if not place.is_dir():
            raise MissingDataError(f"the folder {place} is missing; needed are images/ and masks/ in {folder}.")
    found = _files_below(images, SUFFIXES)
    by_name = {path.relative_to(masks).with_suffix(""): path for path in _files_below(masks, _MASK_SUFFIXES)}
    pairs = []
    for image in found:
        name = image.relative_to(images).with_suffix("")
        if name not in by_name:
            raise MissingDataError(
                f"the image {image} has no mask: looked for {masks / name} with one of {', '.join(_MASK_SUFFIXES)}. "
                "Add the mask, or remove the image."
            )
        pairs.append(_pair(image, by_name[name]))
    return _not_empty(pairs, images)


def _cityscapes_pairs(folder: Path, part: str) -> list[Pair]:
    """The pairs of one part of Cityscapes, with fine masks of label ids."""
    images, masks = (folder / tree / part for tree in _CITYSCAPES)
    pairs = []
    for image in sorted(images.glob("*/*_leftImg8bit.png")):
        mask = masks / image.parent.name / image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
        if not mask.is_file():
            raise MissingDataError(f"the image {image} has no mask: looked for {mask}. Add it, or remove the image.")
        pairs.append(_pair(image, mask))
    return _not_empty(pairs, images)


def _files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def _not_empty(pairs: list[Pair], where: Path) -> list[Pair]:
    if not pairs:
        raise MissingDataError(
            f"the folder {where} is empty: no images ({', '.join(sorted(SUFFIXES))}). Add images, with a mask for each."
        )
    return pairs


def _pair(image: Path, mask: Path) -> Pair:
    size = image_size(image)
    _check_sizes(image, size, mask, image_size(mask))
    return Pair(image, mask, *size)


def _check_sizes(image: Path, size: tuple[int, int], mask: Path, mask_size: tuple[int, int]) -> None:
    if mask_size != size:
        raise DataError(
            f"the mask {mask} has {mask_size[0]} x {mask_size[1]} pixels, but its image {image} has {size[0]} x "
            f"{size[1]}; they must be the same. Make the mask anew at the image's size (nearest neighbour)."
        )


def _split(pairs: list[Pair], eval_fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """A random part for evaluation; the same pairs for both if the fraction is 0."""
    if eval_fraction == 0:
        return pairs, pairs
    cut = round(len(pairs) * eval_fraction)
    if not 0 < cut < len(pairs):
        raise DataError(f"{len(pairs)} images cannot be split with a fraction of {eval_fraction:g} for evaluation.")
    order = Draws(seed, 0, np.arange(len(pairs))).order()
    return [pairs[at] for at in np.sort(order[cut:])], [pairs[at] for at in np.sort(order[:cut])]


def _ranges(values: Sequence[int]) -> str:
    """Numbers as people list them.

    Example:
        >>> _ranges([0, 1, 2, 5, 255])
        '0 to 2, 5, 255'
    """
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
