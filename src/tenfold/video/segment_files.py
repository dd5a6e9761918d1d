"""From a clip on the disk to the tracks of its objects, and a video that shows them; whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tenfold.data.clip_video import open_clip_video
from tenfold.data.video import Damage, VideoInfo
from tenfold.data.video_writing import MUXERS, VideoWriter
from tenfold.errors import UsageError
from tenfold.files import check_keeps, temporary_folder
from tenfold.video.erase_follow import Target
from tenfold.video.follow import FollowOptions
from tenfold.video.overlay import drawn_over
from tenfold.video.segment import GivenSegmenter, NetworkSegmenter, Seen
from tenfold.video.track_writing import TrackFacts, TrackWriter
from tenfold.video.way_back import Begun, WayBack, begin

Progress = Callable[[str, int, int | None], None]
"""Called with what is done now, the frames done and, where it is known, their number."""


@dataclass(frozen=True)
class SegmentReport:
    """What was done.

    Args:
        out: where the tracks are.
        overlay: where the video is that shows them.
        info: of the clip.
        frames: how many there were.
        tracks: the objects in the order they were found.
        categories: names by number.
        seconds: what it took.
    """

    out: Path
    overlay: Path | None
    info: VideoInfo
    frames: int
    tracks: Sequence[TrackFacts]
    categories: Mapping[int, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": self.out,
            "overlay": self.overlay,
            "width": self.info.width,
            "height": self.info.height,
            "frames": self.frames,
            "objects": [
                {
                    "id": one.id,
                    "category": self.categories.get(one.category, str(one.category)),
                    "score": one.mean_score,
                    "frames": one.frames,
                    "first_frame": one.first,
                    "last_frame": one.last,
                }
                for one in self.tracks
            ],
            "seconds": self.seconds,
            "frames_per_second": self.frames / max(self.seconds, 1e-9),
        }


def segment_clip(
    clip: str | Path,
    out: str | Path,
    targets: Sequence[Target] = (),
    *,
    moving: bool = False,
    network: NetworkSegmenter | None = None,
    options: FollowOptions | None = None,
    overlay: str | Path | None = None,
    rate: Fraction | None = None,
    quality: int = 18,
    sound: bool = True,
    damage: Damage = "refuse",
    progress: Progress | None = None,
) -> SegmentReport:
    """Follow objects through a clip.

    What is given in a later frame is followed back to the start as well (not with a network, which finds it by itself).

    Args:
        clip: a video file, or a folder with the pictures of one clip.
        out: JSON file for the tracks; see tenfold.video.track_writing.TrackWriter.
        targets: what someone points at; its ids are 1, 2 ... in this order.
        moving: look for the largest thing that moves by itself, and follow it; its id comes after those of the targets.
        network: finds and follows objects, instead of following without one.
        options: of following without a network.
        overlay: video file that shows the objects in colours.
        rate: frames a second, for a folder of pictures.
        quality: of the overlay; see VideoWriter.
        sound: whether to copy the sound to the overlay.
        damage: "refuse" or "skip" what cannot be decoded.
        progress: called after each frame.

    Raises:
        UsageError: if there is nothing to look for, an object lies outside the frame or after the end, or a result is
            the clip itself or a mask.
        DataError: if the clip cannot be read.
        StorageError: if a result cannot be written; nothing is left half written.
    """
    out, overlay = Path(out), None if overlay is None else Path(overlay)
    if overlay is not None and overlay.suffix.lower() not in MUXERS:
        raise UsageError(
            f"--overlay {overlay} ends in {overlay.suffix or 'nothing'!r}; written are {', '.join(MUXERS)}."
        )
    if moving and network is not None:
        raise UsageError("a network finds objects by itself; leave out either --moving or --network.")
    if not (targets or moving or network):
        raise UsageError("what is to be followed? Give --box, --click, --mask, --moving or --network.")
    for result in filter(None, (out, overlay)):
        check_keeps(result, [clip, *(target.mask for target in targets)])
    started = time.perf_counter()
    options = options or FollowOptions()
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder(out.parent))
        begun, back = Begun(), None
        if targets or moving:
            with open_clip_video(clip, rate=rate, damage=damage) as first:
                begun = begin(first, targets, folder, moving=moving, options=options, progress=progress)
            if network is None and begun.latest > 0:
                back = stack.enter_context(WayBack(begun, folder, options, progress))
        video = open_clip_video(clip, rate=rate, damage=damage)
        stack.enter_context(video)
        segmenter = network or GivenSegmenter(options)
        if network is not None:
            network.reserve(one.id for given in begun.given.values() for one in given if one.id is not None)
        size = (video.info.height, video.info.width)
        segmenter.start(*size)
        tracks = stack.enter_context(TrackWriter(out, size, segmenter.categories))
        shown = None
        if overlay is not None:
            source = clip if sound and video.info.has_sound else None
            shown = stack.enter_context(
                VideoWriter(overlay, video.info, sound_from=source, quality=quality, damage=damage)
            )
        for frame in video:
            seen = segmenter.step(frame.image, begun.given.get(frame.index, ()))
            if back is not None:
                seen = _joined(seen, back.masks(frame.index, size))
            tracks.add(seen, frame.time)
            if shown is not None:
                shown.write_image(drawn_over(frame.image, seen, segmenter.categories), frame.pts, frame.duration)
            if progress is not None:
                progress("following", tracks.frames, video.info.frames)
    found = sorted(tracks.tracks.values(), key=lambda one: one.first)
    took = time.perf_counter() - started
    return SegmentReport(out, overlay, video.info, tracks.frames, found, segmenter.categories, took)


def _joined(seen: dict[int, Seen], earlier: Mapping[int, Any]) -> dict[int, Seen]:
    """Objects of the way forward, and of the way back those that it does not have; a pixel belongs to one of them."""
    joined = dict(seen)
    for name, mask in earlier.items():
        for one in joined.values():
            mask = mask & ~one.mask
        if name not in joined and mask.any():
            joined[name] = Seen(mask)
    return joined
