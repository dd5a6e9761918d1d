"""Data sets laid out as YouTube-VIS: a JSON file with masks, and folders of JPEGs beside it.

    train/instances.json            or  train.json
    train/JPEGImages/0a1b2c3d/00000.jpg ...

OVIS has the same form. A file is a stranger's: every number, name and mask in it is checked, and no name leads out of
the folder of pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tenfold.data.clips import resized
from tenfold.data.images import image_size, read_image
from tenfold.data.object_clips import ObjectFrames, check_part, nearest
from tenfold.data.run_lengths import decode_mask, packed_mask
from tenfold.errors import DataError, MissingDataError

_PICTURES = "JPEGImages"
_MOST_OBJECTS = 10_000


@dataclass(frozen=True)
class _Annotation:
    """One object: its id, its label from 0, and its masks, None where it is not seen."""

    id: int
    label: int
    masks: Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class YoutubeVisClip:
    """One video of such a set; an ObjectClip.

    Args:
        name: of its folder.
        height: in pixels.
        width: in pixels.
        classes: names by label.
        frames: the pictures in order of time.
        objects: all that are annotated.
    """

    name: str
    height: int
    width: int
    classes: Sequence[str]
    frames: Sequence[Path]
    objects: Sequence[_Annotation]

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, start: int, count: int, size: tuple[int, int] | None = None) -> ObjectFrames:
        """See tenfold.data.object_clips.ObjectClip."""
        check_part(self.name, start, count, len(self))
        size = size or (self.height, self.width)
        numbers = range(start, start + count)
        shown = [one for one in self.objects if any(one.masks[number] is not None for number in numbers)]
        frames = np.empty((count, *size, 3), np.uint8)
        masks = np.zeros((count, len(shown), *size), np.bool_)
        for row, number in enumerate(numbers):
            frame = read_image(self.frames[number])
            if frame.shape[:2] != (self.height, self.width):
                raise DataError(
                    f"the picture {self.frames[number]} has {frame.shape[1]} x {frame.shape[0]} pixels, but the file "
                    f"says that the video {self.name!r} has {self.width} x {self.height}."
                )
            frames[row] = resized(frame, size)
            for column, one in enumerate(shown):
                code = one.masks[number]
                if code is not None:
                    mask = decode_mask(code, self.height, self.width)
                    masks[row, column] = nearest(mask.astype(np.uint8), size) > 0
        labels, ids = (np.array(part, np.int64) for part in ([one.label for one in shown], [one.id for one in shown]))
        return ObjectFrames(frames, masks, labels, ids, np.ones(count, np.bool_))


def open_youtube_vis(data: str | Path, pictures: str | Path | None = None) -> list[YoutubeVisClip]:
    """The videos of a set, in the order of its file.

    Args:
        data: the JSON file, or a folder that holds one (instances.json, or the only one).
        pictures: folder of the videos' folders; default: JPEGImages beside the file, or in the
            folder that is called like it.

    Raises:
        MissingDataError: if the file, the folder or a picture is missing.
        DataError: if the file is damaged or of another form, saying where.
        MissingExtraError: if pycocotools is not installed.
    """
    file = _annotation_file(Path(data))
    content = _read(file)
    folder = _picture_folder(file) if pictures is None else Path(pictures)
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder} with the pictures of {file}. Name it, or put it there.")
    categories = {
        _whole(entry, "id", at): str(entry.get("name", "")) for at, entry in _entries(content, "categories", file)
    }
    if not categories:
        raise DataError(f"{file} has no categories; needed is at least one, with id and name.")
    labels = {number: label for label, number in enumerate(sorted(categories))}
    classes = tuple(categories[number] for number in sorted(categories))
    clips: dict[int, YoutubeVisClip] = {}
    for at, entry in _entries(content, "videos", file):
        clip = _clip(entry, at, folder, classes)
        number = _whole(entry, "id", at)
        if number in clips:
            raise DataError(f"{at} has the id {number}, which another video has already.")
        clips[number] = clip
    objects: dict[int, list[_Annotation]] = {number: [] for number in clips}
    for at, entry in _entries(content, "annotations", file):
        number, category = _whole(entry, "video_id", at), _whole(entry, "category_id", at)
        if number not in clips:
            raise DataError(f"{at} is of video {number}, which is not in the file.")
        if category not in labels:
            raise DataError(f"{at} is of category {category}, which is not in the file.")
        if entry.get("iscrowd"):
            continue  # many objects in one mask: nothing to follow
        masks = _masks(entry, at, clips[number])
        objects[number].append(_Annotation(_whole(entry, "id", at), labels[category], masks))
        if len(objects[number]) > _MOST_OBJECTS:
            raise DataError(f"{file} has more than {_MOST_OBJECTS:,} objects in video {number}; it is damaged.")
    if not clips:
        raise DataError(f"{file} has no videos.")
    return [
        YoutubeVisClip(
            name=clip.name, height=clip.height, width=clip.width, classes=classes, frames=clip.frames,
            objects=tuple(objects[number]),
        )
        for number, clip in clips.items()
    ]  # fmt: skip


def _annotation_file(data: Path) -> Path:
    if data.is_dir():
        found = sorted(data.glob("*.json"))
        chosen = data / "instances.json" if data / "instances.json" in found else found[0] if len(found) == 1 else None
        if chosen is None:
            raise MissingDataError(
                f"{data} holds {len(found)} JSON files, and none is called instances.json; name the file itself."
            )
        return chosen
    if not data.is_file():
        raise MissingDataError(f"there is no file {data}. Check the path.")
    return data


def _picture_folder(file: Path) -> Path:
    inner = file.with_suffix("") / _PICTURES
    return inner if inner.is_dir() else file.parent / _PICTURES


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not a JSON file ({error}). If it is an archive, unpack it first.") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{file} is not in the form of YouTube-VIS; needed are videos, categories and annotations.")
    return content


def _entries(content: Mapping[str, Any], key: str, file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    listed = content.get(key)
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        hint = " Files of test videos hold none." if key == "annotations" else ""
        raise DataError(f"{file} has no list of objects {key!r}; it is not in the form of YouTube-VIS.{hint}")
    return [(f"{key}[{number}] of {file}", one) for number, one in enumerate(listed)]


def _clip(entry: Mapping[str, Any], at: str, folder: Path, classes: Sequence[str]) -> YoutubeVisClip:
    names = entry.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{at} has no list of file_names; needed is a name for each frame.")
    frames = [folder / _inside(name, at) for name in names]
    missing = [path for path in frames if not path.is_file()]
    if missing:
        raise MissingDataError(f"{at} names {len(missing)} pictures that are not there, such as {missing[0]}.")
    root = folder.resolve()
    strays = [path for path in frames if not path.resolve().is_relative_to(root)]
    if strays:
        raise DataError(f"{at}: the picture {strays[0]} is a link that leads out of {folder}; it is not followed.")
    height, width = _whole(entry, "height", at, 1), _whole(entry, "width", at, 1)
    if image_size(frames[0]) != (width, height):
        raise DataError(
            f"{at} says {width} x {height} pixels, but {frames[0]} has {' x '.join(map(str, image_size(frames[0])))}."
        )
    parent = PurePosixPath(names[0]).parent.name
    return YoutubeVisClip(
        name=parent or str(entry.get("id")),
        height=height,
        width=width,
        classes=classes,
        frames=tuple(frames),
        objects=(),
    )


def _inside(name: str, at: str) -> PurePosixPath:
    """A relative name that stays in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise DataError(f"{at} names the picture {name!r}; allowed are names inside the folder of pictures.")
    return path


def _masks(entry: Mapping[str, Any], at: str, clip: YoutubeVisClip) -> tuple[Mapping[str, Any] | None, ...]:
    codes = entry.get("segmentations")
    if not isinstance(codes, list) or len(codes) != len(clip):
        count = len(codes) if isinstance(codes, list) else "no"
        raise DataError(
            f"{at} has {count} masks, but its video has {len(clip)} frames; write null where it is not seen."
        )
    masks: list[Mapping[str, Any] | None] = []
    for frame, code in enumerate(codes):
        try:
            masks.append(None if code is None else packed_mask(code, clip.height, clip.width))
        except DataError as error:
            raise DataError(f"{at}, frame {frame}: {error}") from error
    return tuple(masks)


def _whole(entry: Mapping[str, Any], key: str, at: str, least: int | None = None) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        needed = "a whole number" if least is None else f"a whole number from {least}"
        raise DataError(f"{at} has {key}: {value!r:.60}; needed is {needed}.")
    return value
