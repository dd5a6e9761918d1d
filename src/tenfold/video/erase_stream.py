"""Erasing as an iterator over frames, where things are pointed at in single frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from tenfold.data.clip_video import masked_frames, open_clip_video
from tenfold.data.video import Damage
from tenfold.errors import UsageError
from tenfold.video.erase import EraseOptions, erase_frames
from tenfold.video.erase_follow import Target
from tenfold.video.erase_masks import What, open_masks
from tenfold.video.filling import Filling
from tenfold.video.flow import FlowEstimator
from tenfold.video.inpaint import InpaintedFrame


def erase_targets(
    clip: str | Path,
    targets: Sequence[Target],
    options: EraseOptions | None = None,
    *,
    filling: Filling | None = None,
    estimator: FlowEstimator | None = None,
    rate: Fraction | None = None,
    damage: Damage = "refuse",
) -> Iterator[InpaintedFrame]:
    """Erase things pointed at in single frames, frame by frame.

    The clip is read twice: things are followed through all of it before the first frame comes. Their masks lie in a
    temporary folder meanwhile.

    Args:
        clip: a video file, or a folder with the pictures of one clip.
        targets: boxes, clicks, masks in one frame, or what moves most; at least one.
        options: see EraseOptions.
        filling: fills what no frame shows; smoothly by default.
        estimator: finds the optical flow; DIS by default.
        rate: frames a second, for a folder of pictures.
        damage: "refuse" or "skip" what cannot be decoded.

    Yields:
        All frames in order, as `erase_frames` does.

    Raises:
        UsageError: if there is no target, or one lies outside the frame or after the end.
        DataError: if the clip cannot be read.
    """
    if not targets:
        raise UsageError("there is nothing to erase; give at least one Target: a box, a click, a mask or moving=True.")
    with (
        tempfile.TemporaryDirectory(prefix="tenfold") as folder,
        open_clip_video(clip, rate=rate, damage=damage) as video,
        open_masks(
            What(targets=tuple(targets)), clip, video, Path(folder) / "masks.bin", rate=rate, damage=damage
        ) as masks,
    ):
        pairs = ((frame.image, mask) for frame, mask in masked_frames(video, masks))
        yield from erase_frames(pairs, options, filling=filling, estimator=estimator)
