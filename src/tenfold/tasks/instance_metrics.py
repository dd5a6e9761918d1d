"""How good found tracks are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from tenfold.tasks.found_tracks import FoundTrack, packed_or_none, packed_track
from tenfold.tasks.instance_batches import ClipTargets
from tenfold.tasks.track_files import PackedMask, Track, TrackTruth, VideoFacts, pack_areas
from tenfold.tasks.track_precision import evaluate_tracks, single_frames

_NUMBERS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar1": "AR1", "ar10": "AR10"}


class TrackPrecision(Metric):
    """Average precision and recall of tracks, and of masks frame by frame, as YouTube-VIS judges; 0..1.

    What was seen is kept as text, so that processes can exchange it.

    Args:
        classes: their names.
    """

    full_state_update = False

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = list(classes)
        self.seen: list[Tensor]
        self.add_state("seen", default=[], dist_reduce_fx="cat")

    def update(self, outputs: Sequence[Mapping[int, FoundTrack]], targets: ClipTargets) -> None:
        """Take in clips.

        Args:
            outputs: what was found in each.
            targets: what is there.
        """
        length, height, width = targets.masks.shape[2:]
        for found, masks, labels, number in zip(
            outputs, targets.masks.cpu().numpy(), targets.labels.tolist(), targets.numbers.tolist(), strict=True
        ):
            true = []
            for label, track in zip(labels, masks.astype(bool), strict=True):
                if label >= 0:
                    true.append({"category": label + 1, "masks": [_text(packed_or_none(mask)) for mask in track]})
            tracks = [packed_track(number + 1, one, length) for one in found.values()]
            entry = {
                "video": number + 1, "size": [length, height, width], "true": true,
                "found": [
                    {"category": one.category_id, "score": one.score, "frame_scores": one.frame_scores,
                     "masks": [_text(mask) for mask in one.masks]}
                    for one in tracks
                ],
            }  # fmt: skip
            line = (json.dumps(entry) + "\n").encode()
            self.seen.append(torch.frombuffer(bytearray(line), dtype=torch.uint8).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """`ap`, `ap50`, `ap75`, `ar1`, `ar10` of tracks, and `frame_ap`; -1 where there is nothing to judge."""
        truth, found = self.tracks()
        stats = evaluate_tracks(truth, found).stats
        frames = evaluate_tracks(*single_frames(truth, found)).stats["AP"]
        numbers = {name: stats[key] for name, key in _NUMBERS.items()} | {"frame_ap": frames}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    def tracks(self) -> tuple[TrackTruth, list[Track]]:
        """All that was taken in, by clip."""
        seen: Any = self.seen
        text = bytes(torch.cat(list(seen)).cpu().numpy()) if isinstance(seen, list) else bytes(seen.cpu().numpy())
        entries = sorted((json.loads(line) for line in text.splitlines()), key=lambda entry: entry["video"])
        videos: dict[int, VideoFacts] = {}
        true: list[Track] = []
        found: list[Track] = []
        for entry in entries:
            length, height, width = entry["size"]
            video = entry["video"]
            videos[video] = VideoFacts(id=video, width=width, height=height, length=length)
            for side, sink in (("true", true), ("found", found)):
                for one in entry[side]:
                    masks = tuple(_mask(text, height, width) for text in one["masks"])
                    scores = one.get("frame_scores")
                    sink.append(
                        Track(
                            video_id=video,
                            category_id=one["category"],
                            masks=masks,
                            areas=pack_areas(masks),
                            score=one.get("score", 1.0),
                            frame_scores=None if scores is None else tuple(scores),
                        )
                    )
        categories = dict(enumerate(self.classes, 1))
        return TrackTruth(videos=videos, categories=categories, tracks=true), found


def _text(mask: PackedMask | None) -> str | None:
    return None if mask is None else bytes(mask["counts"]).decode("ascii")


def _mask(text: str | None, height: int, width: int) -> PackedMask | None:
    return None if text is None else {"size": [height, width], "counts": text.encode("ascii")}
