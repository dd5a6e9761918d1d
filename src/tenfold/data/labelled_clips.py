"""Clips with one label each: videos and folders of pictures in class folders, or digits that wander about.

Layouts: `train/` and `val/` (or `validation/`, `test/`) with a folder a class, or folders of classes alone. A class
folder holds one clip in each video file, and in each subfolder of numbered pictures.

Of a clip some frames are taken, from equal parts of it: one at random of each part in training, the middle one in
evaluation (temporal segments; Wang et al., arXiv 1608.00859). Batches hold the frames of a clip in a row, as if they
were images; all of a clip are cropped and mirrored alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.arrays import ArrayImages, channel_statistics, load_digits
from tenfold.data.augment import Augmentation
from tenfold.data.catalog import EVALUATION, WANDERING_DIGITS, find_folder
from tenfold.data.clip_sources import VIDEO_SUFFIXES, ArrayClip, ClipSource, PictureFolder, VideoFile, middles
from tenfold.data.clips import numbered_pictures
from tenfold.data.dataset import Dataset, split_images
from tenfold.data.draws import Draws
from tenfold.data.preprocess import Preprocess, channels_first
from tenfold.data.video import Damage
from tenfold.errors import DataError, MissingDataError

_CHOICE = 300  # of the first frame; images have their choices below
_SIDE, _STORED = 32, 8
_CLEAR = 0.7


class LabelledClips:
    """Clips of which some frames are looked at; to a `Dataset` they are images, `frames` in a row for each clip.

    Args:
        clips: where frames come from.
        targets: class of each clip, (N,).
        frames: T, taken of each.
    """

    def __init__(self, clips: Sequence[ClipSource], targets: Sequence[int] | NDArray[np.int64], frames: int) -> None:
        self.clips = list(clips)
        self.targets = np.asarray(targets, np.int64)
        self.frames = frames

    def take(self, indices: NDArray[np.int64]) -> LabelledClips:
        """Only these clips, in this order."""
        return LabelledClips([self.clips[at] for at in indices], self.targets[indices], self.frames)

    def framed(self, indices: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        """The middle of every part of each clip, uint8 (B * T, C, size, size).

        Raises:
            DataError: naming the file that cannot be read.
        """
        shares = middles(self.frames)
        return np.stack([preprocess.frame(frame) for at in indices for frame in self.clips[at].read(shares)])

    def varied(
        self, indices: NDArray[np.int64], preprocess: Preprocess, augmentation: Augmentation, draws: Draws
    ) -> NDArray[np.uint8]:
        """A random frame of every part of each clip, all of a clip varied alike, uint8 (B * T, C, size, size).

        Raises:
            DataError: naming the file that cannot be read.
        """
        within = np.stack([draws.uniform(_CHOICE + part) for part in range(self.frames)], 1)  # (B, T)
        shares = (np.arange(self.frames) + within) / self.frames
        boxes = augmentation.box_chances(draws) if augmentation.crop == "resized" else None
        batch = np.empty((len(indices), self.frames, *preprocess.input_shape), np.uint8)
        for row, at in enumerate(indices):
            frames = self.clips[at].read(shares[row])
            if boxes is None:
                batch[row] = [preprocess.frame(frame) for frame in frames]
                continue
            width, height = frames[0].size
            box = augmentation.choose_box(width, height, boxes[row])
            batch[row] = [_cut_out(frame, box, preprocess) for frame in frames]
        # As channels of one image, the frames of a clip move together.
        together = batch.reshape(len(batch), -1, *batch.shape[3:])
        return augmentation.vary(together, draws).reshape(-1, *preprocess.input_shape)


def open_labelled_clips(
    data: str | Path | None,
    frames: int,
    *,
    eval_fraction: float = 0.2,
    split_seed: int = 0,
    damage: Damage = "refuse",
) -> Dataset:
    """Clips of classes, in two parts.

    Args:
        data: None or "wandering digits" for clips that are made here; a folder laid out as this module says, or the
            name of one inside the folder that TENFOLD_DATA names.
        frames: taken of each clip.
        eval_fraction: part kept for evaluation where the data has no split of its own; 0 evaluates on all.
        split_seed: another seed gives another split.
        damage: "refuse" damaged videos, or "skip" what cannot be decoded.

    Raises:
        UnknownNameError: if a bare name is nowhere.
        MissingDataError: if a folder is missing, or holds no clip.
        DataError: if it is laid out in another way.
        MissingExtraError: if scikit-learn is not installed, for digits.
    """
    if data is None or data == WANDERING_DIGITS:
        return _wandering_digits(frames, eval_fraction, split_seed)
    folder = find_folder(data, (WANDERING_DIGITS,))
    part = next((folder / name for name in EVALUATION if (folder / name).is_dir()), None)
    has_train = (folder / "train").is_dir()
    train, labels = _scan(folder / "train" if has_train else folder, frames, damage)
    if has_train and part is not None:
        evaluation, _ = _scan(part, frames, damage, labels)
        return Dataset(name=folder.name, labels=labels, train=train, evaluation=evaluation)
    train, evaluation = split_images(train, eval_fraction, split_seed)
    return Dataset(name=folder.name, labels=labels, train=train, evaluation=evaluation, held_out=eval_fraction > 0)


def _scan(
    folder: Path, frames: int, damage: Damage, labels: Sequence[str] | None = None
) -> tuple[LabelledClips, tuple[str, ...]]:
    places = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    names = tuple(place.name for place in places) if labels is None else tuple(labels)
    if len(names) < 2:
        raise DataError(
            f"{folder} has {len(names)} class folders {list(names)}; expected are at least two, each with the clips of "
            "one class: video files, or folders of numbered pictures."
        )
    clips: list[ClipSource] = []
    targets: list[int] = []
    for place in places:
        if place.name not in names:
            raise DataError(
                f"{folder} has the class {place.name!r}, which the training part does not have. Both parts must use "
                "the same folder names."
            )
        found = _clips_of(place, damage)
        if not found:
            raise MissingDataError(
                f"the class {place.name!r} is empty: {place} holds neither video files "
                f"({', '.join(sorted(VIDEO_SUFFIXES))}) nor folders of pictures. Add clips, or remove the folder."
            )
        clips += found
        targets += [names.index(place.name)] * len(found)
    return LabelledClips(clips, targets, frames), names


def _clips_of(place: Path, damage: Damage) -> list[ClipSource]:
    found: list[ClipSource] = []
    for entry in sorted(entry for entry in place.iterdir() if not entry.name.startswith(".")):
        if entry.is_dir():
            if pictures := numbered_pictures(entry):
                found.append(PictureFolder(pictures))
        elif entry.suffix.lower() in VIDEO_SUFFIXES:
            found.append(VideoFile(entry, damage))
    return found


def _wandering_digits(frames: int, eval_fraction: float, split_seed: int) -> Dataset:
    """scikit-learn's 1797 digits, each at twice its size on a straight way through noise that hides parts of it."""
    digits = load_digits(eval_fraction=0)
    assert isinstance(digits.train, ArrayImages)
    clips = np.stack([_wander(one[0], np.random.default_rng(at)) for at, one in enumerate(digits.train.pixels)])
    mean, std = channel_statistics(clips.reshape(-1, 1, _SIDE, _SIDE))
    everything = LabelledClips([ArrayClip(one) for one in clips], digits.train.targets, frames)
    train, evaluation = split_images(everything, eval_fraction, split_seed)
    return replace(
        digits,
        name=WANDERING_DIGITS,
        train=train,
        evaluation=evaluation,
        held_out=eval_fraction > 0,
        size=_SIDE,
        mean=mean,
        std=std,
    )


def _wander(digit: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A clip uint8 (8, 32, 32) of a digit (8, 8); every frame hides other pixels, so several tell more than one."""
    large = np.asarray(Image.fromarray(digit).resize((16, 16), Image.Resampling.BILINEAR))
    start, end = rng.uniform(0, _SIDE - 16, (2, 2))
    clip = rng.integers(0, 256, (_STORED, _SIDE, _SIDE), np.uint8)
    clip[rng.random(clip.shape) < _CLEAR] = 0
    for number in range(_STORED):
        top, left = np.rint(start + (end - start) * number / (_STORED - 1)).astype(int)
        seen = rng.random(large.shape) < _CLEAR
        clip[number, top : top + 16, left : left + 16][seen] = large[seen]
    return clip


def _cut_out(frame: Image.Image, box: tuple[int, int, int, int], preprocess: Preprocess) -> NDArray[np.uint8]:
    mode = "L" if preprocess.channels == 1 else "RGB"
    side = (preprocess.size, preprocess.size)
    return channels_first(frame.convert(mode).resize(side, preprocess.resample, box=box))
