"""Things pointed at in single frames, followed through a whole clip in both directions, with memory that stays flat."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clip_video import PictureVideo, read_hole
from tenfold.data.clips import resized
from tenfold.data.record_files import RecordFile
from tenfold.data.video import VideoFrame, VideoReader
from tenfold.errors import ShapeError, UsageError
from tenfold.video.follow import FollowOptions, FollowSession, working_size
from tenfold.video.given import Given, enlarged
from tenfold.video.kept_frames import packed, unpacked
from tenfold.video.mask_store import MaskStore
from tenfold.video.moving import MovingDetector

_Masks = dict[int, NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing, pointed at in one frame; just one of box, click, mask and moving.

    Args:
        box: x and y of its upper left corner, width and height, in pixels.
        click: x and y of a point on it, in pixels.
        mask: picture of its mask in that frame.
        moving: it is the largest thing that moves by itself, in whichever frame that first shows.
        time: of the frame in seconds from the clip's start.
        frame: its number from 0; counts instead of the time.

    Raises:
        UsageError: if not just one of them is given, or the time is negative.
    """

    box: tuple[float, float, float, float] | None = None
    click: tuple[float, float] | None = None
    mask: Path | None = None
    moving: bool = False
    time: Fraction = Fraction(0)
    frame: int | None = None

    def __post_init__(self) -> None:
        if sum((self.box is not None, self.click is not None, self.mask is not None, self.moving)) != 1:
            raise UsageError("a thing is pointed at by just one of a box, a click, a mask and moving.")
        if self.time < 0 or (self.frame or 0) < 0:
            raise UsageError(f"a thing is pointed at {float(self.time):g} s from the start; needed is 0 or more.")

    @property
    def where(self) -> str:
        """The moment it is pointed at, for messages."""
        return f"in frame {self.frame}" if self.frame is not None else f"at {float(self.time):g} s"

    def is_in(self, frame: VideoFrame, rate: Fraction) -> bool:
        """Whether a frame, and no earlier one, is the one it is pointed at in."""
        if self.frame is not None:
            return frame.index == self.frame
        return frame.time >= self.time - 1 / (2 * rate)

    def given(self, size: tuple[int, int]) -> Given:
        """As following takes it, for frames of a size.

        Raises:
            ShapeError: if the mask has another size.
        """
        if self.mask is None:
            return Given(box=self.box, click=self.click)
        mask = read_hole(self.mask)
        if mask.shape != size:
            raise ShapeError(
                f"the mask {self.mask} has {mask.shape[1]} x {mask.shape[0]} pixels, but the frames have {size[1]} x "
                f"{size[0]}; they must be the same."
            )
        return Given(mask=mask)

    def asked(self) -> list[Any]:
        """All that it follows from, as JSON values."""
        from tenfold.video.erase_work import stamp

        mask = None if self.mask is None else stamp(self.mask)
        return [self.box, self.click, mask, self.moving, str(self.time), self.frame]


def follow_targets(
    video: VideoReader | PictureVideo,
    targets: Sequence[Target],
    store: MaskStore,
    *,
    options: FollowOptions | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Follow things from where they are pointed at to the end, and back to the start; keep the union of their masks.

    Frames before the last pointing are kept on the disk, small, for the way back.

    Args:
        video: the clip, not yet read.
        targets: at least one.
        store: for the masks.
        options: how to follow.
        progress: called with the frames done and their number.

    Returns:
        The number of frames.

    Raises:
        UsageError: if a thing lies outside the frame or after the end.
        ShapeError: if a mask has another size.
    """
    options = options or FollowOptions()
    size = (video.info.height, video.info.width)
    session = FollowSession(options)
    working = working_size(size, options)
    pending = list(enumerate(targets, 1))
    detector = MovingDetector(options.longest_side)
    begun: dict[int, list[Given]] = {}
    before, count = None, 0
    folder = tempfile.TemporaryDirectory(dir=store.place.parent, prefix=".back")
    with folder, RecordFile(Path(folder.name) / "frames", write=True) as spool:
        for frame in video:
            due = {name: _given(one, frame, video.info.rate, size, detector) for name, one in pending}
            if pending:
                spool.append(frame.index, packed(resized(frame.image, working)))
            pending = [(name, one) for name, one in pending if due[name] is None]
            given = [replace(one, id=name) for name, one in due.items() if one is not None]
            if given and not begun and before is not None:
                session.step(before)  # motion helps to tell what is pointed at
            if given or begun:
                masks = session.step(frame.image, given)
                store.write(frame.index, _union(masks, size))
                if given:
                    begun[frame.index] = [_small(masks[name], name, working) for name in map(_id, given)]
            before, count = frame.image, frame.index + 1
            if progress is not None:
                progress(count, video.info.frames)
        if pending:
            raise UsageError(_after_end(pending[0][1], count, video.info.rate))
        _follow_back(spool, begun, store, options)
    return count


def _follow_back(spool: RecordFile, begun: dict[int, list[Given]], store: MaskStore, options: FollowOptions) -> None:
    """From the last pointing back to the first frame."""
    session = FollowSession(options)
    for number in range(max(begun), -1, -1):
        masks = session.step(unpacked(spool.read(number)), begun.get(number, ()))
        if number in begun and len(begun) == 1:
            continue  # the way forward has it
        small = np.any(list(masks.values()), axis=0)
        if small.any():
            store.write(number, store.read(number) | enlarged(small, store.size))


def _given(
    target: Target, frame: VideoFrame, rate: Fraction, size: tuple[int, int], detector: MovingDetector
) -> Given | None:
    """A thing as it is followed, in the frame it is pointed at in."""
    if target.moving:
        mask = detector.step(frame.image)
        return None if mask is None or not mask.any() else Given(mask=mask)
    return target.given(size) if target.is_in(frame, rate) else None


def _id(given: Given) -> int:
    assert given.id is not None
    return given.id


def _union(masks: _Masks, size: tuple[int, int]) -> NDArray[np.bool_]:
    union = np.zeros(size, np.bool_)
    for mask in masks.values():
        union |= mask
    return union


def _small(mask: NDArray[np.bool_], name: int, size: tuple[int, int]) -> Given:
    part = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BOX)
    small = np.asarray(part) > 0.5
    return Given(mask=small if small.any() else np.asarray(part) > 0, id=name)


def _after_end(target: Target, count: int, rate: Fraction) -> str:
    if target.moving:
        return (
            f"nothing was found in the clip's {count} frames that moves by itself. Point at the thing with a box or a "
            "click."
        )
    return (
        f"{target.where} a thing is pointed at, but the clip has {count} frames, {float(count / rate):.2f} s. Point "
        "at an earlier one."
    )
