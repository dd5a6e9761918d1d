"""Recorded clips with masks of their objects to learn to find and follow from: YouTube-VIS, OVIS, DAVIS, your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.catalog import find_folder
from tenfold.data.object_clips import ObjectClip, ObjectFrames, open_masked_clips
from tenfold.data.youtube_vis import open_youtube_vis
from tenfold.errors import DataError
from tenfold.tasks.instance_sources import LabelledClip

_HELD_OUT = 10
_PARTS = (("train", "val"), ("train", "valid"))


class RecordedClips:
    """Clips with masks; a part of each is an item's clip, or its first frames are judged.

    Frames keep their proportions: they are made to cover the size, and what is over is cut off, by lot in training and
    on both sides alike for judging. Only frames with masks are judged.

    Args:
        clips: with the same classes.
        size: height and width of what is given.
        frames: most of a part.
        seed: of all choices.
    """

    def __init__(self, clips: Sequence[ObjectClip], size: tuple[int, int], frames: int, *, seed: int = 0) -> None:
        self.name, self.classes = "clips", list(clips[0].classes)
        self._clips, self._size, self._frames, self._seed = clips, size, frames, seed

    def __len__(self) -> int:
        return len(self._clips)

    def read(self, row: int, variant: int | None) -> LabelledClip:
        """See `ClipSource`."""
        clip = self._clips[row]
        count = min(self._frames, len(clip))
        covering = _covering((clip.height, clip.width), self._size)
        spare = [have - need for have, need in zip(covering, self._size, strict=True)]
        if variant is None:
            part, (top, left) = clip.read(0, count, covering), (one // 2 for one in spare)
            part = _annotated(part)
        else:
            rng = np.random.default_rng([self._seed, row, variant])
            part = clip.read(int(rng.integers(len(clip) - count + 1)), count, covering)
            top, left = (int(rng.integers(one + 1)) for one in spare)
        height, width = self._size
        return LabelledClip(
            part.frames[:, top : top + height, left : left + width],
            part.masks[:, :, top : top + height, left : left + width],
            part.labels,
        )


def open_recordings(data: str | Path) -> tuple[list[ObjectClip], list[ObjectClip]]:
    """The clips of a place to learn from, and those to judge by.

    Args:
        data: a folder in the form of YouTube-VIS, or its file; or clips with masks as `open_masked_clips` finds them.
            If it holds train/ and val/ (or valid/) these are the two; else the first and then every tenth clip is
            judged by.

    Raises:
        DataError: if it is missing, damaged, or holds a single clip; or the two have other classes.
    """
    place = Path(data).expanduser()
    place = place if place.is_file() else find_folder(data)
    for names in _PARTS:
        folders = [place / name for name in names]
        if all(folder.is_dir() for folder in folders):
            learned, judged = (_open(folder) for folder in folders)
            if list(learned[0].classes) != list(judged[0].classes):
                raise DataError(
                    f"{folders[0]} and {folders[1]} have other classes; both need the same, in the same order."
                )
            return learned, judged
    clips = _open(place)
    if len(clips) < 2:
        raise DataError(
            f"{place} holds one clip with masks; needed are two at least, one of them to judge by. Cut it in two, or "
            "put clips to learn from into train/ and clips to judge by into val/."
        )
    return [one for at, one in enumerate(clips) if at % _HELD_OUT], clips[::_HELD_OUT]


def _open(place: Path) -> list[ObjectClip]:
    of_youtube_vis = place.is_file() or any(place.glob("*.json"))
    found: Any = open_youtube_vis(place) if of_youtube_vis else open_masked_clips(place)
    return list(found)


def _annotated(part: ObjectFrames) -> ObjectFrames:
    """The frames with masks; all, if none has any."""
    kept: NDArray[np.bool_] = part.annotated if part.annotated.any() else np.ones_like(part.annotated)
    return part._replace(frames=part.frames[kept], masks=part.masks[kept], annotated=part.annotated[kept])


def _covering(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest size in the proportions of the first that covers the other: height and width."""
    factor = max(need / have for have, need in zip(size, wanted, strict=True))
    height, width = (max(need, round(have * factor)) for have, need in zip(size, wanted, strict=True))
    return height, width
