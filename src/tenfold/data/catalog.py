"""From what the user calls the data (a name or a path) to a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tenfold.data.archives import SUFFIXES as ARCHIVES
from tenfold.data.archives import load_archive
from tenfold.data.arrays import array_dataset, load_digits
from tenfold.data.dataset import Dataset, split_images
from tenfold.data.folders import read_labels_csv, scan_classes, without_bad
from tenfold.data.threads import Progress
from tenfold.data.torchvision_sets import NAMES as TORCHVISION
from tenfold.data.torchvision_sets import PREFIX, load_torchvision
from tenfold.errors import DataError, MissingDataError, UnknownNameError, UsageError

DIGITS = "digits"
SPRITES = "drawn sprites"
"""What trainings to follow objects call data that they draw or simulate themselves."""
WANDERING_DIGITS = "wandering digits"
"""What trainings to recognise clips call the clips that are made for them."""
EVALUATION = ("val", "validation", "test")
"""Names of the evaluation part beside `train`, in the order of preference."""

LAYOUTS = (
    "train/ and val/ with a folder a class, folders of classes, train.tar.xz and test.tar.xz, "
    "or images with a labels.csv"
)


def open_dataset(
    data: str | Path | None = None,
    *,
    eval_fraction: float | None = None,
    split_seed: int = 0,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Open labelled images by name or path.

    Args:
        data: None or "digits" for scikit-learn's digits; "torchvision:NAME"; a folder; or the name of a folder inside
            the one that the variable TENFOLD_DATA names.
        eval_fraction: part of the images kept for evaluation where the data has no split of its own, 0 up to below 1;
            0 evaluates on the training images. Default: 0.2, but 0 for a labels.csv (an evaluation set).
        split_seed: another seed gives another split.
        skip_bad: check every file first, and leave out those that cannot be read.
        progress: called while an archive is decoded.

    Raises:
        UnknownNameError: if it is neither a known name nor a folder.
        MissingDataError: if a path is not there.
        DataError: if the data is not laid out as expected, or damaged.
    """
    if eval_fraction is not None and not 0 <= eval_fraction < 1:
        raise UsageError(f"eval_fraction is {eval_fraction}; allowed is 0 up to below 1.")
    if data is None or data == DIGITS:
        return load_digits(0.2 if eval_fraction is None else eval_fraction, split_seed)
    if str(data).startswith(PREFIX):
        return load_torchvision(str(data).removeprefix(PREFIX))
    folder = find_folder(data, (DIGITS, *(PREFIX + name for name in TORCHVISION)))
    if archive := _archive(folder, "train"):
        return _from_archives(folder, archive, progress)
    return _from_files(folder, eval_fraction, split_seed, skip_bad, progress)


def find_folder(data: str | Path, known: Sequence[str] = ()) -> Path:
    """The folder a name stands for: itself, or one of that name inside TENFOLD_DATA.

    Args:
        data: the name, or a path.
        known: names of other data that might have been meant, for the message.

    Raises:
        UnknownNameError: if it is a bare name that is nowhere.
        MissingDataError: if it is a path that is not there.
        DataError: if it is a file.
    """
    path = Path(data).expanduser()
    root = os.environ.get("TENFOLD_DATA")
    if not path.exists() and root and not path.is_absolute() and ".." not in path.parts:
        path = Path(root).expanduser() / path
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(f"{path} is a file; give the folder that holds the data ({LAYOUTS}).")
    if Path(data).name != str(data):
        raise MissingDataError(f"there is no data folder at {data}. Check the path.")
    inside = [entry.name for entry in Path(root).iterdir() if entry.is_dir()] if root and Path(root).is_dir() else []
    where = f"the folder {root} (TENFOLD_DATA)" if root else "TENFOLD_DATA (not set)"
    raise UnknownNameError("data set", str(data), [*known, *inside], f"It is no folder here, nor in {where}.")


def _archive(folder: Path, part: str) -> Path | None:
    return next((path for suffix in ARCHIVES if (path := folder / f"{part}{suffix}").is_file()), None)


def _from_archives(folder: Path, train_archive: Path, progress: Progress | None) -> Dataset:
    eval_archive = next((path for part in EVALUATION if (path := _archive(folder, part))), None)
    if eval_archive is None:
        raise MissingDataError(f"{folder} has {train_archive.name} but no test.tar.xz or val.tar.xz beside it.")
    train, labels = load_archive(train_archive, progress)
    evaluation, eval_labels = load_archive(eval_archive, progress)
    if eval_labels != labels or evaluation.pixels.shape[1:] != train.pixels.shape[1:]:
        raise DataError(
            f"{eval_archive} holds the classes {list(eval_labels)} at {evaluation.pixels.shape[2:]}, but "
            f"{train_archive.name} holds {list(labels)} at {train.pixels.shape[2:]}; they must be the same."
        )
    return array_dataset(folder.name, train, evaluation, labels)


def _from_files(
    folder: Path, eval_fraction: float | None, split_seed: int, skip_bad: bool, progress: Progress | None
) -> Dataset:
    part = next((folder / name for name in EVALUATION if (folder / name).is_dir()), None)
    has_train = (folder / "train").is_dir()
    if has_train and part is not None:
        train, labels = scan_classes(folder / "train")
        evaluation, _ = scan_classes(part, labels)
        skipped: list[str] = []
        if skip_bad:
            train, skipped = without_bad(train, progress)
            evaluation, also_skipped = without_bad(evaluation, progress)
            skipped += also_skipped
        return Dataset(name=folder.name, labels=labels, train=train, evaluation=evaluation, skipped=skipped)
    if (folder / "labels.csv").is_file():
        images, labels = read_labels_csv(folder / "labels.csv")
        fraction = eval_fraction or 0.0
    elif not any(entry.is_dir() for entry in folder.iterdir()):
        raise MissingDataError(f"{folder} holds no image data. Expected is one of: {LAYOUTS}.")
    else:
        images, labels = scan_classes(folder / "train" if has_train else folder)
        fraction = 0.2 if eval_fraction is None else eval_fraction
    images, skipped = without_bad(images, progress) if skip_bad else (images, [])
    train, evaluation = split_images(images, fraction, split_seed)
    return Dataset(
        name=folder.name, labels=labels, train=train, evaluation=evaluation, held_out=fraction > 0, skipped=skipped
    )
