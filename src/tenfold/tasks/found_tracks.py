"""Tracks from the detections of single frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.run_lengths import encode_mask
from tenfold.tasks.track_files import PackedMask, Track, pack_areas


@dataclass(frozen=True, kw_only=True)
class FoundTrack:
    """One identity through a clip."""

    masks: Mapping[int, NDArray[np.bool_]]
    """By frame, each (H, W)."""
    scores: Mapping[int, float]
    """By frame."""
    labels: Mapping[int, int]
    """By frame."""

    @property
    def label(self) -> int:
        """The class of most frames; of those with as many, the lowest."""
        counts = Counter(self.labels.values())
        return min(counts, key=lambda label: (-counts[label], label))

    @property
    def score(self) -> float:
        """Mean over its frames."""
        return sum(self.scores.values()) / len(self.scores)


def gather_tracks(detections: Sequence[Any], height: int, width: int) -> dict[int, FoundTrack]:
    """What a network found frame by frame, by identity; where two claim one identity, the later stays.

    Args:
        detections: of each frame; with `ids`, `scores`, `labels`, `valid` and `paste`.
        height: of the frames.
        width: of the frames.
    """
    parts: dict[int, tuple[dict[int, NDArray[np.bool_]], dict[int, float], dict[int, int]]] = {}
    for frame, found in enumerate(detections):
        masks = found.paste(height, width).cpu().numpy()
        for at, identity in enumerate(found.ids.tolist()):
            if found.valid[at] and identity >= 0:
                shown, scores, labels = parts.setdefault(identity, ({}, {}, {}))
                shown[frame], scores[frame] = masks[at], float(found.scores[at])
                labels[frame] = int(found.labels[at])
    return {
        identity: FoundTrack(masks=masks, scores=scores, labels=labels)
        for identity, (masks, scores, labels) in sorted(parts.items())
    }


def packed_track(video: int, track: FoundTrack, length: int) -> Track:
    """A found track as the evaluation takes it; categories count from 1."""
    masks = [packed_or_none(track.masks.get(frame)) for frame in range(length)]
    return Track(
        video_id=video,
        category_id=track.label + 1,
        masks=tuple(masks),
        areas=pack_areas(masks),
        score=track.score,
        frame_scores=tuple(track.scores.get(frame, 0.0) for frame in range(length)),
    )


def packed_or_none(mask: NDArray[np.bool_] | None) -> PackedMask | None:
    """A mask (H, W) as run lengths; None for one that is not there or empty."""
    if mask is None or not mask.any():
        return None
    code = encode_mask(mask)
    return {"size": code["size"], "counts": code["counts"].encode("ascii")}
