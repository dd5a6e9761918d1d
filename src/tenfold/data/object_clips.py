"""Clips with the mask of each object: what following is learned from and judged by, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clips import Clip, open_clips, resized
from tenfold.errors import MissingDataError, UsageError

_VOID = 255
"""In masks with several objects: neither an object nor the background."""


class ObjectFrames(NamedTuple):
    """Part of a clip."""

    frames: NDArray[np.uint8]
    """RGB, (T, H, W, 3)."""
    masks: NDArray[np.bool_]
    """(T, N, H, W); all False where an object is not seen, or a frame has no mask."""
    labels: NDArray[np.int64]
    """Class of each object from 0, (N,)."""
    ids: NDArray[np.int64]
    """What each object is called in its clip, (N,)."""
    annotated: NDArray[np.bool_]
    """Which frames have masks, (T,)."""


class ObjectClip(Protocol):
    """A clip whose objects are known."""

    name: str
    height: int
    width: int
    classes: Sequence[str]
    """Names by label."""

    def __len__(self) -> int:
        """The number of frames."""

    def read(self, start: int, count: int, size: tuple[int, int] | None = None) -> ObjectFrames:
        """Some frames, with the objects that are seen in any of them.

        Args:
            start: the first frame.
            count: how many.
            size: (height, width) wanted; frames are averaged, masks take the nearest pixel.

        Raises:
            UsageError: if the clip has fewer frames.
            DataError: if a file cannot be read, or has another size than the first frame.
        """


class MaskedClip:
    """A clip of `tenfold.data.clips` as one with objects of one class.

    If the first mask has no value but 0 and 255, the clip has one object; otherwise each value is one, and 255 is
    nothing.

    Args:
        clip: with masks for some of its frames at least.

    Raises:
        MissingDataError: if it has none.
        DataError: if the first mask cannot be read.
    """

    def __init__(self, clip: Clip) -> None:
        if not clip.masks:
            raise MissingDataError(f"the clip {clip.name!r} has no masks; its objects cannot be known.")
        self.name, self.height, self.width = clip.name, clip.height, clip.width
        self.classes: Sequence[str] = ("object",)
        self._clip = clip
        self._has_void = not np.isin(clip.read_mask(min(clip.masks)), (0, _VOID)).all()

    def __len__(self) -> int:
        return len(self._clip)

    def read(self, start: int, count: int, size: tuple[int, int] | None = None) -> ObjectFrames:
        """See ObjectClip."""
        check_part(self.name, start, count, len(self))
        size = size or (self.height, self.width)
        numbers = range(start, start + count)
        frames = np.stack([resized(self._clip.read_frame(number), size) for number in numbers])
        annotated = np.array([number in self._clip.masks for number in numbers])
        values = np.zeros((count, *size), np.uint8)
        for row in np.flatnonzero(annotated):
            values[row] = nearest(self._clip.read_mask(start + int(row)), size)
        ids = np.unique(values[values > 0]).astype(np.int64)
        if self._has_void:
            ids = ids[ids != _VOID]
        masks = values[:, None] == ids[None, :, None, None]
        return ObjectFrames(frames, masks, np.zeros(len(ids), np.int64), ids, annotated)


def open_masked_clips(data: str | Path) -> list[MaskedClip]:
    """The clips of a folder that have masks; for its layouts see tenfold.data.clips.

    Raises:
        MissingDataError: if there is none.
        DataError: if a mask belongs to no frame.
    """
    found = [MaskedClip(clip) for clip in open_clips(data) if clip.masks]
    if not found:
        raise MissingDataError(
            f"no clip in {data} has masks. Needed are masks/ beside frames/, or Annotations/ beside JPEGImages/."
        )
    return found


def nearest(values: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Values (H, W) at another size (height, width), each from the nearest pixel."""
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.NEAREST))


def check_part(name: str, start: int, count: int, length: int) -> None:
    """Refuse frames that a clip does not have.

    Raises:
        UsageError: if there are any.
    """
    if count < 1 or not 0 <= start <= length - count:
        raise UsageError(f"the clip {name!r} has {length} frames, but {count} from frame {start} were asked.")
