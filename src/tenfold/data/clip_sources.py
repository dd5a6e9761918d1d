"""Where the frames of one clip come from: a video file, numbered pictures, or an array."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clips import numbered_pictures
from tenfold.data.images import SUFFIXES, load_image
from tenfold.data.video import Damage, VideoReader
from tenfold.errors import DataError, MissingDataError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".flv", ".wmv", ".ts", ".gif"}
)
"""File name endings, in lower case, that count as videos in a folder; how a file is read, its content decides."""


class ClipSource(Protocol):
    """One clip, read when a batch is asked for."""

    def read(self, shares: NDArray[np.float64]) -> list[Image.Image]:
        """Frames at shares 0..1 of its length, ascending."""


class VideoFile:
    """A clip in a video file.

    Args:
        path: the file.
        damage: "refuse" a damaged file, or "skip" what cannot be decoded.
    """

    def __init__(self, path: Path, damage: Damage = "refuse") -> None:
        self._path, self._damage = path, damage

    @cached_property
    def _length(self) -> int:
        with VideoReader(self._path, damage=self._damage) as video:
            counted = video.info.frames if self._damage == "refuse" else None
            return counted or sum(1 for _ in video)

    def read(self, shares: NDArray[np.float64]) -> list[Image.Image]:
        """See `ClipSource`; decodes up to the last frame that is wanted.

        Raises:
            MissingDataError: if the file is not there.
            DataError: if it is no video, damaged, or without any frame.
        """
        wanted = _places(shares, self._length)
        found: dict[int, Image.Image] = {}
        last: NDArray[np.uint8] | None = None
        with VideoReader(self._path, damage=self._damage) as video:
            for frame in video:
                last = frame.image
                if frame.index in wanted:
                    found[frame.index] = Image.fromarray(last)
                if frame.index == wanted[-1]:
                    break
        if last is None:
            raise DataError(f"no frame of {self._path} can be decoded. Fetch it again, or remove it from the data.")
        # Some files count more frames than they hold.
        return [found[place] if place in found else Image.fromarray(last) for place in wanted]


class PictureFolder:
    """A clip of numbered pictures."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def read(self, shares: NDArray[np.float64]) -> list[Image.Image]:
        """See `ClipSource`."""
        return [load_image(self._paths[place]) for place in _places(shares, len(self._paths))]


class ArrayClip:
    """A grey clip in memory, uint8 (F, H, W)."""

    def __init__(self, frames: NDArray[np.uint8]) -> None:
        self._frames = frames

    def read(self, shares: NDArray[np.float64]) -> list[Image.Image]:
        """See `ClipSource`."""
        return [Image.fromarray(self._frames[place]) for place in _places(shares, len(self._frames))]


def open_clip_source(path: Path) -> ClipSource:
    """The clip that a path stands for: a folder of numbered pictures, one picture, or a video file.

    Raises:
        MissingDataError: if the folder holds no pictures.
    """
    if path.is_dir():
        if pictures := numbered_pictures(path):
            return PictureFolder(pictures)
        raise MissingDataError(f"the folder {path} holds no pictures; give a folder of numbered pictures, or a video.")
    return PictureFolder([path]) if path.suffix.lower() in SUFFIXES - VIDEO_SUFFIXES else VideoFile(path)


def middles(frames: int) -> NDArray[np.float64]:
    """Where evaluation looks at a clip: the middle of each of so many equal parts, as shares of its length."""
    return (np.arange(frames) + 0.5) / frames


def _places(shares: NDArray[np.float64], length: int) -> list[int]:
    return np.clip((shares * length).astype(int), 0, max(0, length - 1)).tolist()
