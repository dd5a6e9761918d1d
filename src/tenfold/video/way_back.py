"""Objects given in the middle of a clip: where they begin, and following them back to its start with flat memory.

Frames up to the last one that something is given on are kept on the disk, small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tenfold.data.clip_video import PictureVideo
from tenfold.data.clips import resized
from tenfold.data.record_files import RecordFile
from tenfold.data.run_lengths import decode_mask, encode_mask
from tenfold.data.video import VideoReader
from tenfold.errors import DataError, UsageError
from tenfold.video.erase_follow import Target
from tenfold.video.flow import Frame
from tenfold.video.follow import FollowOptions, FollowSession, working_size
from tenfold.video.given import Given, Mask, at_size, enlarged
from tenfold.video.kept_frames import packed, unpacked
from tenfold.video.moving import MovingDetector

Progress = Callable[[str, int, int | None], None]


@dataclass
class Begun:
    """Where objects begin.

    Args:
        given: by frame.
        size: at which frames are kept, (height, width).
    """

    given: dict[int, list[Given]] = field(default_factory=dict)
    size: tuple[int, int] = (1, 1)

    @property
    def latest(self) -> int:
        """The last frame that something is given on."""
        return max(self.given, default=0)


def begin(
    video: VideoReader | PictureVideo,
    targets: Sequence[Target],
    folder: Path,
    *,
    moving: bool,
    options: FollowOptions,
    progress: Progress | None = None,
) -> Begun:
    """Read a clip until everything to be followed has begun.

    Args:
        video: not yet read.
        targets: what someone points at.
        folder: for the frames until then.
        moving: whether to look for the largest thing that moves, too.
        options: of following.
        progress: called after each frame.

    Raises:
        UsageError: if something is pointed at after the end.
        DataError: if nothing moves by itself.
    """
    size = (video.info.height, video.info.width)
    begun = Begun(size=working_size(size, options))
    detector = MovingDetector(options.longest_side) if moving else None
    pending = dict(enumerate(targets, 1))
    before, count = None, 0
    with RecordFile(folder / "frames", write=True) as kept:
        for frame in video:
            small = resized(frame.image, begun.size)
            kept.append(frame.index, packed(small))
            due = [name for name, one in pending.items() if one.is_in(frame, video.info.rate)]
            given = [replace(pending.pop(name).given(size), id=name) for name in due]
            masks = _covered(before, frame.image, given, options)
            moves = detector.step(frame.image) if detector is not None else None
            if moves is not None:
                masks[len(targets) + 1], detector = moves, None
            if masks:
                begun.given[frame.index] = [
                    Given(mask=mask, frame=frame.index, id=name) for name, mask in masks.items()
                ]
            before, count = frame.image, frame.index + 1
            if progress is not None:
                progress("looking", count, video.info.frames)
            if not pending and detector is None:
                break
    if pending:
        late = next(iter(pending.values()))
        seconds = float(count / video.info.rate)
        raise UsageError(f"{late.where} something is pointed at, but the clip has {count} frames, {seconds:.2f} s.")
    if detector is not None:
        raise DataError(
            "nothing was found that moves by itself for some frames, and is neither tiny nor almost the whole picture. "
            "Point at it: --box, --click or --mask."
        )
    return begun


def _covered(before: Frame | None, frame: Frame, given: Sequence[Given], options: FollowOptions) -> dict[int, Mask]:
    """What is pointed at, as masks, the same for both ways; motion since the frame before helps to tell."""
    if not given:
        return {}
    session = FollowSession(options)
    if before is not None:
        session.step(before)
    return session.step(frame, given)


class WayBack:
    """What objects cover before the frame that they are given on; a context manager.

    Args:
        begun: where they begin; the frames are in `folder`.
        folder: for the masks.
        options: of following.
        progress: called after each frame.
    """

    def __init__(self, begun: Begun, folder: Path, options: FollowOptions, progress: Progress | None = None) -> None:
        self._masks = RecordFile(folder / "masks", write=True)
        session, first = FollowSession(options), {one.id: at for at, all_ in begun.given.items() for one in all_}
        self._size = begun.size
        with RecordFile(folder / "frames") as frames:
            for number in range(begun.latest, -1, -1):
                given = [at_size(one, begun.size) for one in begun.given.get(number, ())]
                masks = session.step(unpacked(frames.read(number)), given)
                earlier = {name: mask for name, mask in masks.items() if first[name] > number and mask.any()}
                if earlier:
                    packed = {name: encode_mask(mask)["counts"] for name, mask in earlier.items()}
                    self._masks.append(number, json.dumps(packed).encode())
                if progress is not None:
                    progress("following back", begun.latest + 1 - number, begun.latest + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._masks.close()

    def masks(self, number: int, size: tuple[int, int]) -> dict[int, Mask]:
        """What objects that begin later cover on a frame, by their ids, at (height, width)."""
        if number not in self._masks:
            return {}
        packed = json.loads(self._masks.read(number))
        small = {
            int(name): decode_mask({"size": self._size, "counts": one}, *self._size) for name, one in packed.items()
        }
        return {name: enlarged(mask, size) for name, mask in small.items()}
