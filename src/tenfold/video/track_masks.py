"""Masks of chosen objects from a file of tracks, such as `tenfold segment` writes, as one mask a frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.run_lengths import decode_mask
from tenfold.errors import DataError, MissingDataError, UsageError

_MISCOUNT = 0.02
"""By how much a file's own count of frames may be off, such as by frames that an edit list hides."""


class TrackMasks:
    """The union of the masks of some tracks.

    Args:
        path: JSON in the form of YouTube-VIS' results: a list of objects with `segmentations`, and `id`; where an entry
            has no id, its place in the list counts, from 1.
        ids: of the tracks; none means all.
        size: (height, width) of the frames.
        frames: how many there are, where the file says it.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged, or of another form, or the tracks are those of another number of frames.
        UsageError: if a track is not in it.
    """

    is_counted = True

    def __init__(self, path: str | Path, ids: Sequence[int], size: tuple[int, int], frames: int | None = None) -> None:
        self.place: object = path
        self._size = size
        tracks = _read(Path(path))
        missing = [name for name in ids if name not in tracks]
        if missing:
            known = ", ".join(map(str, sorted(tracks)[:20]))
            raise UsageError(f"the track {missing[0]} is not in {path}; it has {known or 'none'}.")
        self._tracks = [tracks[name] for name in ids or tracks]
        self._frames = max(map(len, self._tracks), default=0)
        if frames is not None and abs(frames - self._frames) > _MISCOUNT * frames:
            raise DataError(
                f"the tracks in {path} are those of {self._frames} frames, but the video has {frames}. Make them anew "
                f"from this video: tenfold segment CLIP -o {path}"
            )

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """The masks in order, bool (H, W).

        Raises:
            DataError: if a mask is damaged, or of another size than the frames.
            MissingExtraError: if pycocotools is not installed.
        """
        for number in range(self._frames):
            union = np.zeros(self._size, np.bool_)
            for codes in self._tracks:
                if number < len(codes) and codes[number] is not None:
                    try:
                        union |= decode_mask(codes[number], *self._size)
                    except DataError as error:
                        raise DataError(f"{self.place}, frame {number}: {error}") from error
            yield union


def _read(path: Path) -> dict[int, list[Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingDataError(
            f"there is no file {path} with tracks. Make one: tenfold segment CLIP -o {path}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no file of tracks ({error}). Make one: tenfold segment CLIP -o {path}") from error
    tracks: dict[int, list[Any]] = {}
    for place, entry in enumerate(content if isinstance(content, list) else [None], 1):
        codes = entry.get("segmentations") if isinstance(entry, dict) else None
        name = entry.get("id", place) if isinstance(entry, dict) else None
        if not isinstance(codes, list) or not isinstance(name, int) or name in tracks:
            raise DataError(
                f"{path} is no file of tracks: entry {place} has no segmentations or no id of its own. Make one: "
                f"tenfold segment CLIP -o {path}"
            )
        tracks[name] = codes
    return tracks
