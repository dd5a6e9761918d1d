"""Where the windows of an inpainting training come from: clips, video files, and photographs that become video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Draws, VideoReader, open_clips
from tenfold.data.catalog import find_folder
from tenfold.data.clips import resized
from tenfold.data.images import SUFFIXES, load_image
from tenfold.data.simulated import Motion, SimulatedClip, simulate_clip
from tenfold.errors import DataError, MissingDataError, UnknownNameError, UsageError

MOST_ZOOM = 1.2
"""Clips are read at up to this many times the size of the window, and cropped (TSAM reads 518 x 288 for 432 x 240)."""


class Footage(Protocol):
    """Frames that can be read from any place."""

    name: str
    height: int
    width: int

    def __len__(self) -> int: ...

    def read(
        self, start: int, count: int, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `tenfold.data.Clip.read`."""


class DecodedFile:
    """A video file, decoded once and held in memory, shrunk to what training needs.

    Args:
        path: of the file.
        least: (height, width) that its frames still cover after shrinking.

    Raises:
        DataError: if it cannot be read, or holds no frame.
    """

    def __init__(self, path: Path, least: tuple[int, int]) -> None:
        self.name = path.stem
        with VideoReader(path) as video:
            size = _covering((video.info.height, video.info.width), least, 1.0)
            frames = [resized(one.image, size) for one in video]
        if not frames:
            raise DataError(f"the video {path} holds no frame.")
        self._frames = np.stack(frames)
        self.height, self.width = size

    def __len__(self) -> int:
        return len(self._frames)

    def read(
        self, start: int, count: int, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `tenfold.data.Clip.read`; a file has no masks."""
        frames = self._frames[start : start + count]
        frames = np.stack([resized(one, size or (self.height, self.width)) for one in frames])
        return frames, np.zeros(frames.shape[:3], np.bool_)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What windows are cut from, one row each: parts of clips, then photographs.

    Args:
        clips: (clip, first frame of the part, frames in the part).
        photographs: files.
        tracks: clips with masks of objects, which lend their outlines to holes.
    """

    clips: Sequence[tuple[Footage, int, int]]
    photographs: Sequence[Path]
    tracks: Sequence[Footage] = ()

    def __len__(self) -> int:
        return len(self.clips) + len(self.photographs)

    def name(self, row: int) -> str:
        """Of a row, for people."""
        if row >= len(self.clips):
            return self.photographs[row - len(self.clips)].name
        clip, start, count = self.clips[row]
        return f"{clip.name} {start}-{start + count - 1}"

    def signature(self) -> list[Any]:
        """What tells these sources from others: names and sizes of all."""
        clips = [[clip.name, start, count, clip.height, clip.width] for clip, start, count in self.clips]
        lent = [[clip.name, len(clip)] for clip in self.tracks]
        return [*clips, *lent, *([path.name, path.stat().st_size] for path in self.photographs)]

    def is_simulated(self, row: int) -> bool:
        """Whether a row's video is made from a photograph."""
        return row >= len(self.clips)


def open_footage(places: Sequence[str], least: tuple[int, int]) -> list[Footage]:
    """All clips of folders and video files, sorted by name.

    Args:
        places: folders as `tenfold.data.open_clips` reads them, and video files.
        least: (height, width) that files are decoded for.

    Raises:
        DataError: if one is missing or cannot be read, or two clips have the same name.
    """
    found: list[Footage] = []
    for place in places:
        path = Path(place).expanduser()
        found += [DecodedFile(path, least)] if path.is_file() else open_clips(place)
    found.sort(key=lambda clip: clip.name)
    for one, next_one in pairwise(found):
        if one.name == next_one.name:
            raise DataError(f"two clips are named {one.name!r}; rename one, so that it can be held out by its name.")
    return found


def split_footage(
    clips: Sequence[Footage], held_out: Sequence[str], skipped: Sequence[str]
) -> tuple[list[Footage], list[Footage]]:
    """Clips to learn from, and clips to judge by.

    Args:
        clips: all.
        held_out: names of those to judge by.
        skipped: names of those to leave alone.

    Raises:
        UnknownNameError: if there is no clip of a name.
    """
    names = [clip.name for clip in clips]
    for name in (*held_out, *skipped):
        if name not in names:
            raise UnknownNameError("clip", name, names)
    learned = [clip for clip in clips if clip.name not in {*held_out, *skipped}]
    return learned, [clip for clip in clips if clip.name in held_out]


def parts_of(clips: Sequence[Footage], frames: int) -> list[tuple[Footage, int, int]]:
    """Clips cut into parts of which each is one row: at least `frames` long, and half as long again at most.

    Raises:
        DataError: if a clip is shorter than a window.
    """
    parts = []
    for clip in clips:
        if len(clip) < frames:
            raise DataError(
                f"the clip {clip.name!r} has {len(clip)} frames, but windows have {frames}. Choose shorter windows "
                "(task.lengths), or leave the clip out (task.skip_clips)."
            )
        count = max(1, len(clip) * 2 // (3 * frames))
        cuts = np.linspace(0, len(clip), count + 1).round().astype(int)
        starts = [min(int(cut), len(clip) - frames) for cut in cuts[:-1]]
        parts += [
            (clip, start, max(int(end), start + frames) - start) for start, end in zip(starts, cuts[1:], strict=True)
        ]
    return parts


def find_photographs(places: Sequence[str]) -> list[Path]:
    """All pictures below some folders, sorted within each.

    Raises:
        MissingDataError: if a folder is missing or holds none.
    """
    found: list[Path] = []
    for place in places:
        folder = find_folder(place)
        inside = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not inside:
            raise MissingDataError(f"{folder} holds no photographs ({', '.join(sorted(SUFFIXES))}).")
        found += inside
    return found


def split_photographs(paths: Sequence[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Photographs to learn from, and a random part to judge by.

    Raises:
        UsageError: if the fraction is not allowed.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"eval_fraction is {fraction}; allowed is 0 up to below 1.")
    order = Draws(seed, 0, np.arange(len(paths))).order()
    cut = round(fraction * len(paths))
    return [paths[at] for at in np.sort(order[cut:])], [paths[at] for at in np.sort(order[:cut])]


def real_frames(
    part: tuple[Footage, int, int], frames: int, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A random window of a part of a clip, in time and place, uint8 (frames, H, W, 3)."""
    clip, first, count = part
    start = first + int(rng.integers(0, count - frames + 1))
    whole = _covering((clip.height, clip.width), size, float(rng.uniform(1, MOST_ZOOM)))
    top, left = (int(rng.integers(0, room - side + 1)) for room, side in zip(whole, size, strict=True))
    pixels, _ = clip.read(start, frames, whole)
    return np.ascontiguousarray(pixels[:, top : top + size[0], left : left + size[1]])


def simulated_video(
    sources: Sources, row: int, frames: int, size: tuple[int, int], rng: np.random.Generator, motion: Motion
) -> SimulatedClip:
    """Video from a photograph, with sprites cut from others."""
    at = row - len(sources.clips)
    others = rng.integers(0, len(sources.photographs), motion.sprites).tolist()
    pictures = [load_image(sources.photographs[one]) for one in (at, *others)]
    return simulate_clip(pictures, frames, *size, rng, motion)


def _covering(have: tuple[int, int], need: tuple[int, int], zoom: float) -> tuple[int, int]:
    """The size of a frame of the same shape that is `zoom` times as large as the smallest that covers `need`."""
    scale = zoom * max(need[0] / have[0], need[1] / have[1])
    return max(need[0], round(have[0] * scale)), max(need[1], round(have[1] * scale))
