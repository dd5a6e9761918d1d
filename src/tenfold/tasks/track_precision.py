"""Average precision of tracks of masks, as the evaluation of YouTube-VIS computes it.

Source: youtubevos/cocoapi, `ytvoseval.py`, whose numbers this reproduces; compfeat.md section 9.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import require
from tenfold.tasks.track_files import Track, TrackTruth, VideoFacts

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MOST_RESULTS = (1, 10, 100)
"""The best results that are looked at, of each category in each video."""
SIZES = {"": (0.0, 1e10), "s": (0.0, 128.0**2), "m": (128.0**2, 256.0**2), "l": (256.0**2, 1e10)}
"""Ranges of the mean area of a track, in pixels, both ends inside."""


@dataclass(frozen=True, kw_only=True)
class TrackScores:
    """How good found tracks are; all numbers are 0..1, and -1 where there is nothing to judge."""

    stats: dict[str, float]
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl."""
    per_category: dict[int, dict[str, float]]
    """AP, AP50, AP75, AR1 and AR10 of each category that has true objects, by its id."""
    per_iou: dict[str, float]
    """AP at each threshold, by the threshold with two decimals."""


@dataclass
class _Matching:
    """What became of the results of one category in one video, at each threshold (rows)."""

    scores: NDArray[np.float64]
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    positives: int


def evaluate_tracks(truth: TrackTruth, found: Sequence[Track]) -> TrackScores:
    """Judge found tracks.

    The overlap of two tracks is the sum of their frames' intersections over the sum of their unions. Only tracks of
    one category meet. Results of a category without true objects cost nothing. Where two lists of masks differ in
    length, the frames past the shorter one do not count; `read_results` refuses such lists unless told otherwise.

    Args:
        truth: what is there.
        found: what was found, in the order of its file.

    Returns:
        The twelve numbers of YouTube-VIS, and where they come from.
    """
    pairs = _by_video_and_category(truth, found)
    categories = sorted(truth.categories)
    shape = (len(IOU_THRESHOLDS), len(RECALL_POINTS), len(categories), len(SIZES), len(MOST_RESULTS))
    precision = np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    for row, category in enumerate(categories):
        videos = [pairs[key] for key in sorted(pairs) if key[1] == category]
        overlaps = [track_overlaps(results, objects) for objects, results in videos]
        for column, area in enumerate(SIZES.values()):
            matchings = [
                _match(objects, results, overlap, area)
                for (objects, results), overlap in zip(videos, overlaps, strict=True)
            ]
            for place, most in enumerate(MOST_RESULTS):
                curve = _accumulate(matchings, most)
                if curve is not None:
                    precision[:, :, row, column, place], recall[:, row, column, place] = curve
    return TrackScores(
        stats=_stats(precision, recall),
        per_category={
            category: {key: _stats(precision[:, :, [row]], recall[:, [row]])[key] for key in _OF_CATEGORY}
            for row, category in enumerate(categories)
            if (recall[:, row] > -1).any()
        },
        per_iou={f"{threshold:.2f}": _mean(precision[at, :, :, 0, -1]) for at, threshold in enumerate(IOU_THRESHOLDS)},
    )


def track_overlaps(found: Sequence[Track], true: Sequence[Track]) -> NDArray[np.float64]:
    """Intersection over union in space and time of found tracks, best first, with true ones: (found, true), 0..1.

    Args:
        found: sorted as `best_first` does; only the first hundred are looked at.
        true: of the same video.

    Raises:
        MissingExtraError: if pycocotools is not installed.
    """
    found = best_first(found)[: MOST_RESULTS[-1]]
    shared, either = np.zeros((2, len(found), len(true)))
    if not found or not true:
        return shared
    coder = require("pycocotools.mask", "video")
    lengths = [np.array([len(track.masks) for track in side]) for side in (found, true)]
    compared = np.minimum(lengths[0][:, None], lengths[1])
    for frame in range(int(compared.max())):
        sides = [[track.masks[frame] if frame < len(track.masks) else None for track in side] for side in (found, true)]
        present = [[at for at, mask in enumerate(side) if mask is not None] for side in sides]
        masks: Any = [[side[at] for at in those] for side, those in zip(sides, present, strict=True)]
        pixels = [np.zeros(len(side)) for side in sides]
        for side, those in enumerate(present):
            if those:
                pixels[side][those] = coder.area(masks[side])
        total = pixels[0][:, None] + pixels[1]
        common = np.zeros_like(total)
        if present[0] and present[1]:
            overlap = coder.iou(masks[0], masks[1], [0] * len(masks[1]))
            inside = np.ix_(*present)
            # The coder gives i / (a + b - i); all three are whole numbers, so that i comes back exactly.
            common[inside] = np.rint(overlap * total[inside] / (1 + overlap))
        counted = frame < compared
        shared += np.where(counted, common, 0)
        either += np.where(counted, total - common, 0)
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)


def best_first(found: Sequence[Track]) -> list[Track]:
    """Sorted by falling score; tracks with one score stay in their order."""
    return sorted(found, key=lambda track: -track.score)


def single_frames(
    truth: TrackTruth, found: Sequence[Track], chosen: Callable[[int, int], bool] = lambda video, frame: True
) -> tuple[TrackTruth, list[Track]]:
    """Every frame as a video of its own: evaluated, it tells how good the masks are, whatever became of identities.

    Args:
        truth: what is there.
        found: what was found; the score in a frame is that of `frame_scores`, else the track's.
        chosen: whether a frame counts, from the id of its video and its number.

    Returns:
        What `evaluate_tracks` takes.
    """
    numbers: dict[tuple[int, int], int] = {}
    for video in truth.videos.values():
        for frame in range(video.length):
            if chosen(video.id, frame):
                numbers[video.id, frame] = len(numbers) + 1

    def split(track: Track) -> list[Track]:
        return [
            replace(
                track,
                video_id=numbers[track.video_id, frame],
                masks=(mask,),
                areas=(track.areas[frame],),
                score=track.score if track.frame_scores is None else track.frame_scores[frame],
                frame_scores=None,
            )
            for frame, mask in enumerate(track.masks)
            if mask is not None and (track.video_id, frame) in numbers
        ]

    videos = {
        number: VideoFacts(id=number, width=truth.videos[video].width, height=truth.videos[video].height, length=1)
        for (video, _), number in numbers.items()
    }
    true = [one for track in truth.tracks for one in split(track)]
    return TrackTruth(videos=videos, categories=truth.categories, tracks=true), [o for t in found for o in split(t)]


_OF_CATEGORY = ("AP", "AP50", "AP75", "AR1", "AR10")


def _by_video_and_category(
    truth: TrackTruth, found: Sequence[Track]
) -> Mapping[tuple[int, int], tuple[list[Track], list[Track]]]:
    pairs: dict[tuple[int, int], tuple[list[Track], list[Track]]] = defaultdict(lambda: ([], []))
    for side, tracks in enumerate((truth.tracks, found)):
        for track in tracks:
            pairs[track.video_id, track.category_id][side].append(track)
    return pairs


def _match(
    objects: Sequence[Track], results: Sequence[Track], overlaps: NDArray[np.float64], area: tuple[float, float]
) -> _Matching:
    """Give each result, best first, the free object that it overlaps most, at every threshold."""
    results = best_first(results)[: MOST_RESULTS[-1]]
    skipped = np.array([one.is_crowd or not area[0] <= one.mean_area <= area[1] for one in objects], np.bool_)
    order = np.argsort(skipped, kind="stable")
    outside = np.array([not area[0] <= one.mean_area <= area[1] for one in results], np.bool_)
    matched = np.zeros((len(IOU_THRESHOLDS), len(results)), np.bool_)
    ignored = np.zeros_like(matched)
    for row, threshold in enumerate(IOU_THRESHOLDS):
        taken = np.zeros(len(objects), np.bool_)
        for column in range(len(results)):
            best, choice = min(float(threshold), 1 - 1e-10), -1
            for at in order:
                if taken[at] and not objects[at].is_crowd:
                    continue
                if choice >= 0 and not skipped[choice] and skipped[at]:
                    break  # an object that counts is better than any that does not
                if overlaps[column, at] >= best:
                    best, choice = overlaps[column, at], at
            if choice >= 0:
                matched[row, column] = taken[choice] = True
                ignored[row, column] = skipped[choice]
    ignored |= ~matched & outside
    return _Matching(np.array([one.score for one in results]), matched, ignored, int((~skipped).sum()))


def _accumulate(matchings: Sequence[_Matching], most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Precision at each point of recall (thresholds, points), and the recall reached; None without true objects."""
    positives = sum(one.positives for one in matchings)
    if not positives:
        return None
    order = np.argsort(-np.concatenate([one.scores[:most] for one in matchings]), kind="stable")
    matched = np.concatenate([one.matched[:, :most] for one in matchings], 1)[:, order]
    ignored = np.concatenate([one.ignored[:, :most] for one in matchings], 1)[:, order]
    right = np.cumsum(matched & ~ignored, 1).astype(float)
    wrong = np.cumsum(~matched & ~ignored, 1).astype(float)
    precision = np.zeros((len(IOU_THRESHOLDS), len(RECALL_POINTS)))
    recall = np.zeros(len(IOU_THRESHOLDS))
    if not len(order):
        return precision, recall
    reached = right / positives
    envelope = np.maximum.accumulate((right / (right + wrong + np.spacing(1)))[:, ::-1], 1)[:, ::-1]
    for row in range(len(IOU_THRESHOLDS)):
        at = np.searchsorted(reached[row], RECALL_POINTS, side="left")
        precision[row, at < len(order)] = envelope[row, at[at < len(order)]]
        recall[row] = reached[row, -1]
    return precision, recall


def _stats(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    """From (thresholds, points, categories, sizes, most) and (thresholds, categories, sizes, most)."""
    stats = {"AP": _mean(precision[:, :, :, 0, -1])}
    for name, row in (("AP50", 0), ("AP75", 5)):
        stats[name] = _mean(precision[row, :, :, 0, -1])
    for column, size in enumerate(SIZES):
        if size:
            stats[f"AP{size}"] = _mean(precision[:, :, :, column, -1])
    for place, most in enumerate(MOST_RESULTS):
        stats[f"AR{most}"] = _mean(recall[:, :, 0, place])
    for column, size in enumerate(SIZES):
        if size:
            stats[f"AR{size}"] = _mean(recall[:, :, column, -1])
    return stats


def _mean(values: NDArray[np.float64]) -> float:
    judged = values[values > -1]
    return float(judged.mean()) if judged.size else -1.0
