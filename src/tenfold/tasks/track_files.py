"""Tracks of objects in files: YouTube-VIS' ground truth and results, read with every part checked, and written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenfold.data.run_lengths import packed_mask, run_lengths
from tenfold.errors import DataError, MissingDataError, require
from tenfold.files import write_text

PackedMask = dict[str, Any]
"""Compressed run lengths, `{"size": [H, W], "counts": bytes}`."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a file says of a video."""

    id: int
    width: int
    height: int
    length: int
    """Frames that are annotated and judged."""
    file_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Track:
    """One object through a video: a true one, or a found one."""

    video_id: int
    category_id: int
    masks: tuple[PackedMask | None, ...]
    """One for each frame; None where the object is not there."""
    areas: tuple[float | None, ...]
    """Of each mask in pixels; of a true object as its file says."""
    score: float = 1.0
    """Of a found object."""
    frame_scores: tuple[float, ...] | None = None
    """Of a found object in each frame, where its file says them."""
    is_crowd: bool = False
    """Of a true object: finding it, once or more, is neither right nor wrong."""

    @property
    def mean_area(self) -> float:
        """Mean over the frames where it is there, in pixels; 0 if it is in none."""
        present = [area for area in self.areas if area]
        return sum(present) / len(present) if present else 0.0


@dataclass(frozen=True, kw_only=True)
class TrackTruth:
    """A ground truth: videos by id, names of categories by id, and all true objects in the order of the file."""

    videos: Mapping[int, VideoFacts]
    categories: Mapping[int, str]
    tracks: Sequence[Track] = field(default=())


def read_truth(path: str | Path) -> TrackTruth:
    """A YouTube-VIS ground truth from a JSON file.

    Args:
        path: the file; its masks may be run lengths, compressed or not, or polygons.

    Raises:
        MissingDataError: if it is not there.
        DataError: if it is damaged or of another form, saying where.
        MissingExtraError: if pycocotools is not installed.
    """
    return parse_truth(_read_json(path), str(path))


def parse_truth(content: object, name: str = "the ground truth") -> TrackTruth:
    """As `read_truth`, of JSON values.

    Args:
        content: the object.
        name: what errors call it.

    Raises:
        DataError: if it is of another form, saying where.
    """
    if not isinstance(content, Mapping):
        raise DataError(
            f"{name} is not a YouTube-VIS ground truth: needed is an object with the lists videos, categories and "
            f"annotations, not {_shown(content)}."
        )
    videos: dict[int, VideoFacts] = {}
    for place, entry in _entries(content, "videos", name):
        facts = VideoFacts(
            id=_whole(entry, "id", place),
            width=_whole(entry, "width", place, least=1),
            height=_whole(entry, "height", place, least=1),
            length=_whole(entry, "length", place, least=1),
            file_names=tuple(map(str, entry.get("file_names") or ())),
        )
        if facts.id in videos:
            raise DataError(f"{place} has the id {facts.id}, which another video has already.")
        videos[facts.id] = facts
    categories = {
        _whole(entry, "id", place): str(entry.get("name", entry.get("id")))
        for place, entry in _entries(content, "categories", name)
    }
    tracks = []
    for place, entry in _entries(content, "annotations", name):
        video, category = _belongs(entry, place, videos, categories)
        masks = _masks(entry, place, video, strict=True)
        areas = entry.get("areas")
        if not isinstance(areas, list) or len(areas) != len(masks):
            areas = pack_areas(masks)
        crowd = bool(entry.get("iscrowd", 0))
        tracks.append(Track(video_id=video.id, category_id=category, masks=masks, areas=tuple(areas), is_crowd=crowd))
    return TrackTruth(videos=videos, categories=categories, tracks=tracks)


def read_results(path: str | Path, truth: TrackTruth, *, strict: bool = True) -> list[Track]:
    """Found objects from a JSON file in the form of YouTube-VIS' results.

    Args:
        path: the file: a list of {video_id, category_id, score, segmentations}, and frame_scores if you like.
        truth: what they belong to.
        strict: refuse a list of masks that is shorter or longer than its video. The official program cuts both sides
            to the shorter one without a word, and calls three right frames of five a perfect track.

    Raises:
        MissingDataError: if it is not there.
        DataError: if it is damaged, of another form or of other videos, saying where.
        MissingExtraError: if pycocotools is not installed.
    """
    return parse_results(_read_json(path), truth, strict=strict, name=str(path))


def parse_results(content: object, truth: TrackTruth, *, strict: bool = True, name: str = "the results") -> list[Track]:
    """As `read_results`, of JSON values.

    Args:
        content: the list.
        truth: what they belong to.
        strict: see `read_results`.
        name: what errors call it.

    Raises:
        DataError: if it is of another form or of other videos, saying where.
    """
    if not isinstance(content, list):
        raise DataError(
            f"{name} are not results of YouTube-VIS: needed is a list of objects with video_id, category_id, score and "
            f"segmentations, not {_shown(content)}."
        )
    found = []
    for number, entry in enumerate(content):
        place = f"result {number} of {name}"
        if not isinstance(entry, Mapping):
            raise DataError(f"{place} is {_shown(entry)}; needed is an object.")
        video, category = _belongs(entry, place, truth.videos, truth.categories)
        score = _score(entry.get("score"), "score", place)
        masks = _masks(entry, place, video, strict=strict)
        each = entry.get("frame_scores")
        if each is not None:
            if not isinstance(each, list) or len(each) != len(masks):
                raise DataError(f"{place} has frame_scores {_shown(each)}; needed are {len(masks)} numbers, as masks.")
            each = tuple(_score(one, "frame_scores", place) for one in each)
        found.append(
            Track(
                video_id=video.id,
                category_id=category,
                masks=masks,
                areas=pack_areas(masks),
                score=score,
                frame_scores=each,
            )
        )
    return found


def truth_to_json(truth: TrackTruth) -> dict[str, Any]:
    """A ground truth as YouTube-VIS' files hold it, masks as uncompressed run lengths, which every reader takes."""
    annotations = []
    for number, track in enumerate(truth.tracks, 1):
        video = truth.videos[track.video_id]
        annotations.append(
            {
                "id": number, "video_id": track.video_id, "category_id": track.category_id,
                "iscrowd": int(track.is_crowd), "width": video.width, "height": video.height, "length": video.length,
                "segmentations": [None if mask is None else _uncompressed(mask) for mask in track.masks],
                "bboxes": [None if mask is None else _box(mask) for mask in track.masks],
                "areas": list(track.areas),
            }
        )  # fmt: skip
    return {
        "videos": [
            {
                "id": video.id, "width": video.width, "height": video.height, "length": video.length,
                "file_names": list(video.file_names) or [f"{video.id}/{at:05d}.jpg" for at in range(video.length)],
            }
            for video in truth.videos.values()
        ],
        "categories": [{"id": id_, "name": name, "supercategory": "object"} for id_, name in truth.categories.items()],
        "annotations": annotations,
    }  # fmt: skip


def results_to_json(tracks: Sequence[Track]) -> list[dict[str, Any]]:
    """Found objects as YouTube-VIS' result files hold them, masks as compressed run lengths."""
    written = []
    for track in tracks:
        masks = [
            None if mask is None else {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}
            for mask in track.masks
        ]
        entry = {
            "video_id": track.video_id, "category_id": track.category_id, "score": track.score, "segmentations": masks
        }  # fmt: skip
        written.append(entry if track.frame_scores is None else entry | {"frame_scores": list(track.frame_scores)})
    return written


def write_truth(truth: TrackTruth, path: str | Path) -> None:
    """Write a ground truth as YouTube-VIS does.

    Raises:
        StorageError: if it could not be written.
    """
    write_text(path, json.dumps(truth_to_json(truth)))


def write_results(tracks: Sequence[Track], path: str | Path) -> None:
    """Write found objects as YouTube-VIS' servers take them.

    Raises:
        StorageError: if it could not be written.
    """
    write_text(path, json.dumps(results_to_json(tracks)))


def pack_areas(masks: Sequence[PackedMask | None]) -> tuple[float | None, ...]:
    """Pixels of each mask; None where there is none."""
    coder = require("pycocotools.mask", "video")
    return tuple(None if mask is None else float(coder.area(mask)) for mask in masks)


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {path}. Check the path.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Give a JSON file.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON file ({error}). If it is a zip archive, unpack it first.") from error


def _entries(content: Mapping[str, Any], key: str, name: str) -> list[tuple[str, Mapping[str, Any]]]:
    listed = content.get(key)
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        hint = " A test file without annotations cannot be evaluated here." if key == "annotations" else ""
        raise DataError(f"{name} has {key}: {_shown(listed)}; needed is a list of objects.{hint}")
    return [(f"{key}[{number}] of {name}", one) for number, one in enumerate(listed)]


def _whole(entry: Mapping[str, Any], key: str, place: str, least: int | None = None) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        needed = "a whole number" if least is None else f"a whole number from {least}"
        raise DataError(f"{place} has {key}: {_shown(value)}; needed is {needed}.")
    return value


def _score(value: object, key: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{place} has {key}: {_shown(value)}; needed is a finite number.")
    return float(value)


def _belongs(
    entry: Mapping[str, Any], place: str, videos: Mapping[int, VideoFacts], categories: Mapping[int, str]
) -> tuple[VideoFacts, int]:
    video, category = _whole(entry, "video_id", place), _whole(entry, "category_id", place)
    if video not in videos:
        raise DataError(f"{place} is of video {video}, which the ground truth does not have. Are the files of one set?")
    if category not in categories:
        known = ", ".join(map(str, sorted(categories)[:12])) + (", ..." if len(categories) > 12 else "")
        raise DataError(f"{place} is of category {category}; the ground truth has {known}. Write ids, not positions.")
    return videos[video], category


def _masks(entry: Mapping[str, Any], place: str, video: VideoFacts, *, strict: bool) -> tuple[PackedMask | None, ...]:
    codes = entry.get("segmentations")
    if not isinstance(codes, list):
        raise DataError(f"{place} has segmentations: {_shown(codes)}; needed is a list with a mask or null a frame.")
    if strict and len(codes) != video.length:
        raise DataError(
            f"{place} has {len(codes)} masks, but video {video.id} has {video.length} frames. Write null where the "
            "object is not there; --lenient cuts both to the shorter one, as the official program does."
        )
    masks: list[PackedMask | None] = []
    for frame, code in enumerate(codes):
        try:
            masks.append(None if code is None else packed_mask(code, video.height, video.width))
        except DataError as error:
            raise DataError(f"{place}, frame {frame}: {error}") from error
    return tuple(masks)


def _box(mask: PackedMask) -> list[float]:
    return [float(side) for side in require("pycocotools.mask", "video").toBbox(mask)]


def _uncompressed(mask: PackedMask) -> dict[str, Any]:
    return {"size": list(mask["size"]), "counts": run_lengths(mask["counts"])}


def _shown(value: object) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
