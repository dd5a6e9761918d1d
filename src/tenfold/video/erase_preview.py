"""A few frames of a clip before and after erasing, side by side in one picture, before all of it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clip_video import FrameMasks, PictureVideo, masked_frames, open_clip_video
from tenfold.data.clips import resized
from tenfold.data.video import Damage, VideoReader
from tenfold.errors import UsageError
from tenfold.files import check_keeps, temporary_folder, written_whole
from tenfold.video.erase import EraseOptions, erase_frames
from tenfold.video.erase_files import EraseProgress
from tenfold.video.erase_masks import What, open_masks
from tenfold.video.filling import Filling
from tenfold.video.flow import FlowEstimator

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_FRAMES = 32
_FILLED_SIDE, _SHOWN_SIDE, _GAP = 864, 640, 4
_MARK = np.array([255, 64, 129], np.float32)

_Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def preview_clip(
    clip: str | Path,
    out: str | Path,
    what: What,
    count: int,
    *,
    options: EraseOptions | None = None,
    filling: Filling | None = None,
    estimator: FlowEstimator | None = None,
    rate: Fraction | None = None,
    damage: Damage = "refuse",
    progress: EraseProgress | None = None,
) -> list[int]:
    """Draw a few frames, evenly spread over those in which something is erased: with its mask, and without it.

    Each is filled as `erase_clip` would, from the frames within reach, but no larger than it is needed for the eye.

    Args:
        clip: a video file, or a folder with the pictures of one clip.
        out: the picture to write, .png or .jpg.
        what: what is to go.
        count: how many frames, 1 to MOST_FRAMES.
        options: see EraseOptions.
        filling: see erase_frames.
        estimator: see erase_frames.
        rate: frames a second, for a folder of pictures.
        damage: "refuse" or "skip" what cannot be decoded.
        progress: called while things are followed, and after each frame.

    Returns:
        The numbers of the frames that were drawn.

    Raises:
        UsageError: if the ending or the count is not allowed, `out` is a picture of the clip or of its masks, or
            nothing is erased in any frame.
        DataError: if the clip or its masks cannot be read.
        StorageError: if the picture cannot be written.
    """
    out, options = Path(out), options or EraseOptions()
    if out.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"--out {out}: a preview is one picture; its name ends in {', '.join(PICTURE_SUFFIXES)}.")
    if not 1 <= count <= MOST_FRAMES:
        raise UsageError(f"a preview of {count} frames is not drawn; allowed are 1 to {MOST_FRAMES}.")
    check_keeps(out, [clip, *what.files(), what.masks and what.masks / out.name])
    settings = options.inpainting()
    around = settings.passes * (settings.reach + 1)
    rows: list[NDArray[np.uint8]] = []
    with ExitStack() as stack:
        place = stack.enter_context(temporary_folder(out.parent)) / "masks.bin"
        told = None if progress is None else partial(progress, "follow")
        opened: list[VideoReader | PictureVideo] = []
        given: list[FrameMasks] = []
        for _ in range(2):  # once to see where something is erased, once for the frames
            video: VideoReader | PictureVideo = open_clip_video(clip, rate=rate, damage=damage)
            stack.enter_context(video)
            if isinstance(video, PictureVideo):
                check_keeps(out, [*video.clip.frames, *video.clip.masks.values()])
            opened.append(video)
            masks = open_masks(what, clip, video, place, rate=rate, damage=damage, progress=told)
            given.append(stack.enter_context(masks))
        wanted = _spread(_marked(masked_frames(opened[0], given[0])), count)
        scale = min(1.0, _FILLED_SIDE / max(opened[0].info.height, opened[0].info.width))
        dilate = round(options.dilate * scale)
        options = replace(options, dilate=dilate, feather=min(options.fading, dilate))
        coming = (_shrunk(frame.image, mask, scale) for frame, mask in masked_frames(opened[1], given[1]))
        for at, window in _windows(coming, wanted, around):
            row = _row(window, at, options, filling, estimator)
            rows.append(row)
            if progress is not None:
                progress("erase", len(rows), len(wanted))
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    drawn = np.concatenate([part for row in rows for part in (row, gap)][:-1])
    with written_whole(out) as part:
        Image.fromarray(drawn).save(part, format="PNG" if out.suffix.lower() == ".png" else "JPEG", quality=90)
    return wanted


def _marked(frames: Iterator[tuple[object, NDArray[np.bool_]]]) -> list[int]:
    """Numbers of frames with something to erase."""
    return [number for number, (_, mask) in enumerate(frames) if mask.any()]


def _spread(numbers: list[int], count: int) -> list[int]:
    if not numbers:
        raise UsageError("nothing is erased in any frame: the masks are empty. Point at the thing in another frame.")
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers)) + 2)[1:-1]
    return sorted({numbers[round(place)] for place in places.tolist()})


def _windows(frames: Iterator[_Pair], wanted: list[int], around: int) -> Iterator[tuple[int, list[_Pair]]]:
    """For each wanted frame its place in a window, and the window of frames around it."""
    held: dict[int, _Pair] = {}
    waiting = list(wanted)
    for number, pair in enumerate(frames):
        if not waiting:
            return
        if number >= waiting[0] - around:
            held[number] = pair
        while waiting and number >= waiting[0] + around:
            yield _window(held, waiting.pop(0), around)
        for old in [old for old in held if waiting and old < waiting[0] - around]:
            del held[old]
    for last in waiting:
        yield _window(held, last, around)


def _window(held: dict[int, _Pair], number: int, around: int) -> tuple[int, list[_Pair]]:
    near = [one for one in sorted(held) if abs(one - number) <= around]
    return near.index(number), [held[one] for one in near]


def _shrunk(frame: NDArray[np.uint8], mask: NDArray[np.bool_], scale: float) -> _Pair:
    if scale == 1:
        return frame, mask
    size = (max(1, round(mask.shape[0] * scale)), max(1, round(mask.shape[1] * scale)))
    covered = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BOX)
    return resized(frame, size), np.asarray(covered) > 0


def _row(
    window: list[_Pair], at: int, options: EraseOptions, filling: Filling | None, estimator: FlowEstimator | None
) -> NDArray[np.uint8]:
    """The frame with its mask shown, and erased."""
    frame, mask = window[at]
    made = next(
        done.frame for done in erase_frames(window, options, filling=filling, estimator=estimator) if done.number == at
    )
    marked = frame.copy()
    marked[mask] = np.rint(0.45 * marked[mask] + 0.55 * _MARK)
    scale = min(1.0, _SHOWN_SIDE / max(mask.shape))
    size = (max(1, round(mask.shape[0] * scale)), max(1, round(mask.shape[1] * scale)))
    gap = np.full((size[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([resized(marked, size), gap, resized(made, size)], axis=1)
