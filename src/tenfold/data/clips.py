"""Clips as folders of numbered pictures, with or without masks: finding them, and reading frame by frame.

Layouts, each of them found by itself:

- `frames/` beside `masks/` (which may be missing, or hold fewer files): one clip;
- DAVIS: `JPEGImages/480p/NAME/` and `Annotations/480p/NAME/` (or without the resolution's folder);
- a folder whose subfolders are clips in one of these ways, or hold pictures only;
- a folder of pictures: one clip without masks.

Frames are taken in the order of the numbers in their names, so that 10.jpg follows 9.jpg. Masks belong to the frames of
the same name. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.catalog import find_folder
from tenfold.data.images import SUFFIXES, image_size, read_image
from tenfold.data.masks import read_mask
from tenfold.errors import DataError, MissingDataError

CLIP_LAYOUTS = (
    "frames/ with masks/ beside it, JPEGImages/480p/NAME/ with Annotations/480p/NAME/ as in DAVIS, "
    "a folder of pictures, or a folder of such folders"
)
_DAVIS = ("JPEGImages", "Annotations")
_RESOLUTIONS = ("480p", "Full-Resolution")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip of numbered pictures.

    Args:
        name: of its folder.
        frames: the files in order of time.
        masks: the mask's file for the frames that have one, by the frame's number from 0.
        height: of the first frame in pixels.
        width: of the first frame in pixels.
    """

    name: str
    frames: Sequence[Path]
    height: int
    width: int
    masks: Mapping[int, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)

    def read_frame(self, index: int) -> NDArray[np.uint8]:
        """One frame, uint8 (H, W, 3), RGB.

        Raises:
            DataError: if the file cannot be read, or has another size than the first frame.
        """
        frame = read_image(self.frames[index])
        self._check_size(self.frames[index], frame.shape[:2], "frame")
        return frame

    def read_mask(self, index: int) -> NDArray[np.uint8]:
        """The values of one frame's mask, uint8 (H, W); 0 is the background.

        Raises:
            MissingDataError: if this frame has no mask.
            DataError: if the file cannot be read, or has another size than the first frame.
        """
        self.check_masked(index)
        mask = read_mask(self.masks[index])
        self._check_size(self.masks[index], mask.shape, "mask")
        return mask

    def check_masked(self, index: int) -> None:
        """See that a frame has a mask.

        Raises:
            MissingDataError: if not.
        """
        if index not in self.masks:
            raise MissingDataError(
                f"frame {index} of the clip {self.name!r} has no mask: {len(self.masks)} of its {len(self)} frames "
                "have one. Add a mask of the same name as the frame."
            )

    def read(
        self, start: int, count: int, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Some consecutive frames with the union of their objects.

        Args:
            start: number of the first frame.
            count: how many.
            size: (height, width) to resize to, frames by area and masks by nearest neighbour; None keeps theirs.

        Returns:
            Frames uint8 (T, H, W, 3), and where their masks are not 0, bool (T, H, W); all False without a mask.

        Raises:
            DataError: if the clip is shorter, or a file cannot be read.
        """
        if start < 0 or count < 1 or start + count > len(self):
            raise DataError(
                f"the clip {self.name!r} has {len(self)} frames, but {count} from frame {start} were asked."
            )
        height, width = size or (self.height, self.width)
        frames = np.empty((count, height, width, 3), np.uint8)
        objects = np.zeros((count, height, width), np.bool_)
        for row, index in enumerate(range(start, start + count)):
            frames[row] = resized(self.read_frame(index), (height, width))
            if index in self.masks:
                mask = Image.fromarray((self.read_mask(index) > 0).astype(np.uint8))
                objects[row] = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
        return frames, objects

    def _check_size(self, path: Path, size: tuple[int, ...], kind: str) -> None:
        if size != (self.height, self.width):
            raise DataError(
                f"the {kind} {path} has {size[1]} x {size[0]} pixels, but the clip's first frame has {self.width} x "
                f"{self.height}; all must be of one size."
            )


def resized(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) at another size (height, width), each new pixel the mean of what it covers."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BOX))


def open_clips(data: str | Path) -> list[Clip]:
    """Find the clips of a folder, sorted by name.

    Args:
        data: a folder laid out as one of CLIP_LAYOUTS, or the name of one inside the folder that TENFOLD_DATA names.

    Raises:
        UnknownNameError: if a bare name is nowhere.
        MissingDataError: if the folder is missing, or holds no clip.
        DataError: if a mask belongs to no frame, or the first frame cannot be read.
    """
    folder = find_folder(data)
    clips = _clips_in(folder)
    if not clips:
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        clips = [clip for entry in inside for clip in _clips_in(entry)]
    if not clips:
        raise MissingDataError(f"{folder} holds no clip. Expected is one of: {CLIP_LAYOUTS}.")
    return clips


def open_clip(data: str | Path) -> Clip:
    """The one clip of a folder.

    Raises:
        DataError: if there are several; otherwise as `open_clips`.
    """
    clips = open_clips(data)
    if len(clips) > 1:
        raise DataError(f"{data} holds {len(clips)} clips ({clips[0].name}, {clips[1].name}, ...); name one of them.")
    return clips[0]


def numbered_pictures(folder: Path) -> list[Path]:
    """The pictures right inside a folder, in the order of the numbers in their names.

    Example:
        9.jpg comes before 10.jpg, and frame_2_left.png before frame_10_left.png.
    """
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(found, key=lambda path: (_number_key(path.stem), path.suffix))


def _number_key(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isascii() and part.isdigit() else (1, part) for part in parts]


def _clips_in(folder: Path) -> list[Clip]:
    """The clips that lie in this folder itself."""
    if (folder / "frames").is_dir():
        return [_clip(folder.name, folder / "frames", folder / "masks")]
    frames, annotations = (folder / name for name in _DAVIS)
    if frames.is_dir():
        inner = next((name for name in _RESOLUTIONS if (frames / name).is_dir()), "")
        places = sorted(entry for entry in (frames / inner).iterdir() if entry.is_dir())
        return [_clip(place.name, place, annotations / inner / place.name) for place in places]
    return [_clip(folder.name, folder, None)] if numbered_pictures(folder) else []


def _clip(name: str, frames: Path, masks: Path | None) -> Clip:
    pictures = numbered_pictures(frames)
    if not pictures:
        raise MissingDataError(f"the folder {frames} is empty: no frames ({', '.join(sorted(SUFFIXES))}).")
    number = {path.stem: index for index, path in enumerate(pictures)}
    if len(number) < len(pictures):
        twice = next(path for index, path in enumerate(pictures) if number[path.stem] != index)
        raise DataError(f"the frame {twice.stem} is there twice in {frames}, with two endings; remove one of them.")
    found = numbered_pictures(masks) if masks is not None and masks.is_dir() else []
    stray = [path for path in found if path.stem not in number]
    if stray and len(found) - len(stray) < len(pictures):  # masks beyond the last frame do no harm
        raise DataError(
            f"the mask {stray[0]} belongs to no frame: {frames} has no picture named {stray[0].stem}. Masks are named "
            "as their frames."
        )
    width, height = image_size(pictures[0])
    by_number = {number[path.stem]: path for path in found if path.stem in number}
    return Clip(name=name, frames=pictures, height=height, width=width, masks=by_number)
