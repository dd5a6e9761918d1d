"""From a clip on the disk to one without what was to go: whole or not at all, and at any time to be interrupted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold import __version__
from tenfold.data.clip_video import FrameMasks, PictureVideo, masked_frames, open_clip_video
from tenfold.data.video import Damage, VideoFrame, VideoReader
from tenfold.data.video_joining import join_videos
from tenfold.data.video_writing import MUXERS, VideoWriter
from tenfold.errors import DataError, StorageError, UsageError
from tenfold.files import check_keeps, check_unused, made_folder, move_folder
from tenfold.video.engine_choice import EngineReport
from tenfold.video.erase import EraseOptions, erase_frames
from tenfold.video.erase_masks import What, open_masks
from tenfold.video.erase_work import EraseWork, Piece, stamp, work_folder
from tenfold.video.filling import Filling
from tenfold.video.flow import FlowEstimator
from tenfold.video.inpaint import InpaintedFrame
from tenfold.video.network_filling import NetworkFilling
from tenfold.video.provenance import Account

PIECE_FRAMES = 240
"""Frames that are finished together; a killed run loses no more than these."""

EraseProgress = Callable[[Literal["follow", "erase"], int, int | None], None]
"""Called with what is being done, the frames done of it and, where it is known, their number."""

_Item = TypeVar("_Item")


@dataclass
class Clock:
    """Seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, since: float) -> None:
        """Count the time since a moment of `time.perf_counter`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since

    def timed(self, name: str, items: Iterable[_Item]) -> Iterator[_Item]:
        """The same items; the time that it takes to get them is counted."""
        coming = iter(items)
        while True:
            since = time.perf_counter()
            try:
                item = next(coming)
            except StopIteration:
                return
            finally:
                self.add(name, since)
            yield item


@dataclass(frozen=True)
class EraseReport:
    """What was done.

    Args:
        out: where the result is.
        account: shares of copied, repaired and invented pixels.
        resumed_from: frames that an earlier, interrupted run had done.
        seconds: by stage: "follow", "read", "fill" and "write".
        engine: which runtime ran the network that filled, if one was needed.
        find_engine: which runtime ran the network that found what is to go, if it was one of several.
    """

    out: Path
    account: Account
    resumed_from: int
    seconds: dict[str, float]
    engine: EngineReport | None = None
    find_engine: EngineReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        whole = sum(self.seconds.values())
        made = self.account.frames - self.resumed_from
        return {
            "out": self.out,
            **self.account.to_dict(),
            "resumed_from": self.resumed_from,
            "seconds": whole,
            "stage_seconds": dict(self.seconds),
            "engine": self.engine and asdict(self.engine),
            "find_engine": self.find_engine and asdict(self.find_engine),
            "frames_per_second": made / max(whole, 1e-9),
        }


def erase_clip(
    clip: str | Path,
    out: str | Path,
    what: What,
    *,
    options: EraseOptions | None = None,
    filling: Filling | None = None,
    filling_name: str = "",
    estimator: FlowEstimator | None = None,
    rate: Fraction | None = None,
    lossless: bool = False,
    quality: int = 18,
    sound: bool = True,
    damage: Damage = "refuse",
    resume: bool = True,
    work: str | Path | None = None,
    progress: EraseProgress | None = None,
) -> EraseReport:
    """Erase things from a clip.

    What is done is kept in pieces in a hidden folder beside the result. If the run is interrupted or killed, the same
    call goes on after the last whole piece, and the result is the same to the bit.

    Args:
        clip: a video file, or a folder with the pictures of one clip.
        out: a video file (.mp4, .m4v, .mov, .mkv), or a folder for numbered PNGs, which keep every pixel.
        what: what is to go; see What.
        options: see EraseOptions.
        filling: fills what no frame shows; smoothly by default.
        filling_name: what tells it from others of its kind; a run with another name does not go on from this one.
        estimator: finds the optical flow; DIS by default.
        rate: frames a second, for a folder of pictures.
        lossless: a video file that keeps every pixel exactly.
        quality: of a video file that is not lossless; see VideoWriter.
        sound: whether to copy the sound.
        damage: "refuse" or "skip" what cannot be decoded.
        resume: whether to go on where an earlier run was interrupted; False begins anew.
        work: folder for the pieces; `.NAME.erase` beside the result by default.
        progress: called after each frame.

    Raises:
        UsageError: if an option is not allowed, or `out` is the clip itself or its masks.
        DataError: if the clip or its masks cannot be read, or do not fit each other.
        StorageError: if a result cannot be written; nothing is left half written at `out`.
    """
    out, options, clock = Path(out), options or EraseOptions(), Clock()
    _check_out(out)
    check_keeps(out, [clip, *what.files()])
    with ExitStack() as stack:
        video: VideoReader | PictureVideo = open_clip_video(clip, rate=rate, damage=damage)
        stack.enter_context(video)
        asked = {
            "version": __version__,
            "clip": stamp(clip),
            "what": what.asked(),
            "options": asdict(options),
            "filling": [type(filling).__name__, filling_name],
            "estimator": type(estimator).__name__,
            "rate": str(rate),
            "result": [out.suffix, lossless, quality, damage],
            "run": None if resume else time.time_ns(),
        }
        source = Path(clip) if sound and video.info.has_sound else None
        if out.suffix:
            _check_writer(out.suffix, video, source, lossless, quality, damage)
        stack.enter_context(made_folder(out.parent))
        done = stack.enter_context(EraseWork(Path(work) if work else work_folder(out), asked))
        told = None if progress is None else partial(progress, "follow")
        since = time.perf_counter()
        masks = stack.enter_context(
            open_masks(what, clip, video, done.masks_path, rate=rate, damage=damage, progress=told)
        )
        clock.add("follow", since)
        resumed = done.frames
        writer = _FolderWriter(done, video) if not out.suffix else _FileWriter(done, video, lossless, quality)
        with writer:
            for frame, made in _erased(video, masks, options, filling, estimator, resumed, clock):
                since = time.perf_counter()
                writer.write(frame, made)
                clock.add("write", since)
                if progress is not None:
                    progress("erase", made.number + 1, video.info.frames)
        since = time.perf_counter()
        _put_in_place(done, out, source, damage)
        clock.add("write", since)
        account = done.account()
        done.discard()
    engine = filling.engine if isinstance(filling, NetworkFilling) else None
    return EraseReport(out, account, resumed, clock.seconds, engine)


def _check_out(out: Path) -> None:
    if not out.suffix:
        check_unused(out)
    elif out.suffix.lower() not in MUXERS:
        raise UsageError(
            f"--out {out} ends in {out.suffix!r}; written are {', '.join(MUXERS)}, or numbered PNGs in a folder, whose "
            "name has no ending."
        )


class _Fits(Exception):  # noqa: N818  (nobody sees it)
    """It can be written; the file that was begun for this test is thrown away."""


def _check_writer(
    suffix: str,
    video: VideoReader | PictureVideo,
    source: Path | None,
    lossless: bool,
    quality: int,
    damage: Damage,
) -> None:
    """See that the result can be written, with its sound, before hours of work and before earlier pieces are lost."""
    with tempfile.TemporaryDirectory(prefix="tenfold") as folder:
        place = Path(folder) / f"try{suffix}"
        with (
            suppress(_Fits),
            VideoWriter(place, video.info, sound_from=source, lossless=lossless, quality=quality, damage=damage),
        ):
            raise _Fits


def _erased(
    video: VideoReader | PictureVideo,
    masks: FrameMasks,
    options: EraseOptions,
    filling: Filling | None,
    estimator: FlowEstimator | None,
    first: int,
    clock: Clock,
) -> Iterator[tuple[VideoFrame, InpaintedFrame]]:
    """Each frame from the first one wanted, with what became of it; reading and filling are timed."""
    waiting: dict[int, VideoFrame] = {}

    def pairs() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        for frame, mask in clock.timed("read", masked_frames(video, masks)):
            if frame.index >= first:
                waiting[frame.index] = frame
            yield frame.image, mask

    made = erase_frames(pairs(), options, filling=filling, estimator=estimator, first=first)
    while True:
        since, read = time.perf_counter(), clock.seconds.get("read", 0.0)
        done = next(made, None)
        clock.add("fill", since + clock.seconds.get("read", 0.0) - read)
        if done is None:
            return
        yield waiting.pop(done.number), done


class _PieceWriter:
    """Writes frames in pieces, each of which is whole or is not there; a context manager."""

    def __init__(self, work: EraseWork) -> None:
        self._work = work
        self._account = Account()
        self._start = Fraction(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._account.frames:
            self._complete()

    def write(self, frame: VideoFrame, made: InpaintedFrame) -> None:
        """Write a frame, and complete the piece if it is the last one of it."""
        if not self._account.frames:
            self._start = frame.time
            self._begin()
        self._put(frame, made.frame)
        self._account.add(made.provenance)
        if made.begins_scene:
            self._account.cuts.append(made.number)
        if self._account.frames == PIECE_FRAMES:
            self._complete()

    def _complete(self) -> None:
        self._end()
        self._work.add(Piece(self._account.frames, self._start, self._account))
        self._account = Account()

    def _begin(self) -> None:
        """Prepare for the first frame of a piece."""

    def _put(self, frame: VideoFrame, image: NDArray[np.uint8]) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """Put the piece on the disk."""


class _FileWriter(_PieceWriter):
    def __init__(self, work: EraseWork, video: VideoReader | PictureVideo, lossless: bool, quality: int) -> None:
        super().__init__(work)
        self._info, self._lossless, self._quality = video.info, lossless, quality
        self._stack = ExitStack()
        self._first = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    def _open(self, path: Path) -> VideoWriter:
        return VideoWriter(path, self._info, lossless=self._lossless, quality=self._quality)

    def _begin(self) -> None:
        self._stack = ExitStack()
        self._video = self._stack.enter_context(self._open(self._work.video_path(len(self._work.pieces))))

    def _put(self, frame: VideoFrame, image: NDArray[np.uint8]) -> None:
        if not self._account.frames:
            self._first = frame.pts
        self._video.write_image(image, frame.pts - self._first, frame.duration)

    def _end(self) -> None:
        self._stack.close()


class _FolderWriter(_PieceWriter):
    def __init__(self, work: EraseWork, video: VideoReader | PictureVideo) -> None:
        super().__init__(work)
        self._names = [path.stem for path in video.clip.frames] if isinstance(video, PictureVideo) else None
        work.pictures.mkdir(exist_ok=True)

    def _put(self, frame: VideoFrame, image: NDArray[np.uint8]) -> None:
        name = self._names[frame.index] if self._names else f"{frame.index:05d}"
        try:
            Image.fromarray(image).save(self._work.pictures / f"{name}.png", compress_level=1)
        except OSError as error:
            raise StorageError(
                f"could not write {self._work.pictures / name}.png: {error.strerror or error}. Free some space; the "
                "same command goes on from here."
            ) from error


def _put_in_place(work: EraseWork, out: Path, source: Path | None, damage: Damage) -> None:
    """The pieces as one result."""
    if not work.pieces:
        raise DataError("the clip has no frame; there is nothing to write.")
    if not out.suffix:
        move_folder(work.pictures, out)
        return
    pieces = [(work.video_path(number), piece.start) for number, piece in enumerate(work.pieces)]
    join_videos(pieces, out, sound_from=source, damage=damage)
