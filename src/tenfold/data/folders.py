"""Labelled images as files: one folder a class, or images with a labels.csv."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tenfold.data.augment import Augmentation
from tenfold.data.draws import Draws
from tenfold.data.images import SUFFIXES, check_image, load_crop, load_image
from tenfold.data.preprocess import Preprocess, channels_first
from tenfold.data.threads import Progress, prefetch
from tenfold.errors import DataError, MissingDataError

MAX_CLASSES = 100_000


class FileImages:
    """Labelled image files, decoded when a batch is asked for.

    Args:
        paths: the files.
        targets: class of each file, (N,).
    """

    def __init__(self, paths: Sequence[Path], targets: Sequence[int] | NDArray[np.int64]) -> None:
        self.paths = list(paths)
        self.targets = np.asarray(targets, np.int64)

    def take(self, indices: NDArray[np.int64]) -> FileImages:
        """Only these files, in this order."""
        return FileImages([self.paths[i] for i in indices], self.targets[indices])

    def framed(self, indices: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        """A batch as evaluation sees it, uint8 (B, C, size, size).

        Raises:
            DataError: naming the file that cannot be read.
        """
        batch = np.empty((len(indices), *preprocess.input_shape), np.uint8)
        for row, index in enumerate(indices):
            with _named(self.paths[index]) as path:
                batch[row] = preprocess.frame(load_image(path, preprocess.channels))
        return batch

    def varied(
        self, indices: NDArray[np.int64], preprocess: Preprocess, augmentation: Augmentation, draws: Draws
    ) -> NDArray[np.uint8]:
        """A batch as training sees it, uint8 (B, C, size, size).

        Raises:
            DataError: naming the file that cannot be read.
        """
        if augmentation.crop != "resized":
            return augmentation.vary(self.framed(indices, preprocess), draws)
        batch = np.empty((len(indices), *preprocess.input_shape), np.uint8)
        chances = augmentation.box_chances(draws)
        for row, index in enumerate(indices):
            choose = partial(augmentation.choose_box, chances=chances[row])
            with _named(self.paths[index]) as path:
                image = load_crop(path, choose, preprocess.size, preprocess.resample, preprocess.channels)
                batch[row] = channels_first(image)
        return augmentation.vary(batch, draws)


def scan_classes(folder: Path, labels: Sequence[str] | None = None) -> tuple[FileImages, tuple[str, ...]]:
    """Find the images of a folder with one subfolder a class.

    Classes are numbered in the sorted order of their names; images may lie in further subfolders; hidden files and
    files that are not images by their ending are passed over.

    Args:
        folder: holds the class folders.
        labels: the classes that are allowed (those of the training part), so that a validation part with fewer
            classes keeps their numbers.

    Returns:
        The files sorted by class and path, and the class names.

    Raises:
        DataError: if there are fewer than two classes, a class has no images, or a class is not among `labels`.
    """
    found = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(found) < (2 if labels is None else 1):
        raise DataError(
            f"{folder} has {len(found)} class folders {list(found)}; expected are at least two, each with the images "
            "of one class (or train/ and val/ with such folders, or images with a labels.csv)."
        )
    names = found if labels is None else tuple(labels)
    if unknown := [name for name in found if name not in set(names)]:
        raise DataError(
            f"{folder} has the class {unknown[0]!r}, which the training part does not have. "
            "Both parts must use the same folder names."
        )
    number = {name: place for place, name in enumerate(names)}
    paths: list[Path] = []
    targets: list[int] = []
    for name in found:
        images = _images_below(folder / name)
        if not images:
            raise DataError(
                f"the class {name!r} is empty: no images in {folder / name} (looked for {', '.join(sorted(SUFFIXES))})."
                " Add images, or remove the folder."
            )
        paths += images
        targets += [number[name]] * len(images)
    return FileImages(paths, targets), names


def read_labels_csv(table: Path) -> tuple[FileImages, tuple[str, ...]]:
    """Find the images that a labels.csv names.

    The table has a column `file` (a path beside or below the table) and either `index` (the class as a number from 0,
    with its name in `name` if there is such a column) or `label` (the class as a word; classes are then numbered in
    sorted order).

    Raises:
        DataError: naming the row, if the table is malformed, leaves its folder, or names a file that is not there.
    """
    rows = list(_rows(table))
    if not rows:
        raise DataError(f"{table} has no rows; expected is one row an image.")
    paths = [_file_of(table, where, row["file"]) for where, row in rows]
    if "index" in rows[0][1]:
        targets = [_class_number(row["index"], where) for where, row in rows]
        labels = [str(number) for number in range(max(targets) + 1)]
        for target, (_, row) in zip(targets, rows, strict=True):
            labels[target] = row.get("name") or labels[target]
    else:
        labels = sorted({row["label"] for _, row in rows})
        number = {label: place for place, label in enumerate(labels)}
        targets = [number[row["label"]] for _, row in rows]
    if len(labels) < 2:
        raise DataError(f"{table} names one class only; a classifier needs at least two.")
    return FileImages(paths, targets), tuple(labels)


def without_bad(images: FileImages, progress: Progress | None = None) -> tuple[FileImages, list[str]]:
    """Decode every file once and leave out those that cannot be read.

    Args:
        images: the files.
        progress: called while they are checked.

    Returns:
        The good files, and one line for each file left out, with the reason.

    Raises:
        DataError: if a class has lost all its files.
    """
    complaints: list[str | None] = []
    for complaint in prefetch(_complaint, images.paths, os.cpu_count() or 1):
        complaints.append(complaint)
        if progress is not None and len(complaints) % 100 == 0:
            progress(len(complaints) / len(images.paths))
    kept = images.take(np.flatnonzero([complaint is None for complaint in complaints]))
    if lost := set(images.targets.tolist()) - set(kept.targets.tolist()):
        first = next(said for said, target in zip(complaints, images.targets, strict=True) if said and target in lost)
        raise DataError(f"no readable image is left in {len(lost)} of the classes. The first reason: {first}")
    return kept, [complaint for complaint in complaints if complaint is not None]


def _complaint(path: Path) -> str | None:
    try:
        check_image(path)
    except DataError as error:
        return str(error)
    return None


def _images_below(folder: Path) -> list[Path]:
    paths = [
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - a million files
    ]
    return sorted(paths)


def _rows(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row with the words that name it in errors."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if "file" not in columns or not {"index", "label"} & set(columns):
                raise DataError(f"{table} has the columns {list(columns)}; needed are 'file' and 'index' or 'label'.")
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if any(value is None for value in row.values()) or None in row:
                    raise DataError(f"{where}: the row has another number of fields than the header.")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a table ({error}). It must be CSV in UTF-8.") from error


def _class_number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= MAX_CLASSES:
        raise DataError(f"{where}: the class index is {text!r}; allowed is a whole number from 0 to {MAX_CLASSES - 1}.")
    return int(text)


def _file_of(table: Path, where: str, name: str) -> Path:
    place = PurePosixPath(name)
    if not name or place.is_absolute() or ".." in place.parts:
        raise DataError(f"{where}: the file is {name!r}; allowed is a path below {table.parent}.")
    path = table.parent / place
    if not path.is_file():
        raise MissingDataError(f"{where}: the file {name!r} is not there. Add it, or remove the row.")
    return path


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """See that a complaint names the file, and says how to leave such files out."""
    try:
        yield path
    except DataError as error:
        name = "" if str(path) in str(error) else f"{path}: "
        raise type(error)(f"{name}{error} To leave out all bad files: skip_bad=True.") from error
