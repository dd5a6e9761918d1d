"""Video out: frames become an H.264 file with their own times, and the sound of another file copied as it is.

The file appears at its place only when it is complete. B-frames are not used, so that each frame is shown at just its
time in every container; sound packets are copied, never decoded. Memory does not grow with the length: sound is
interleaved as the frames come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.data.video import Damage, VideoFrame, VideoInfo, VideoLimits
from tenfold.data.video_container import open_container, start_shift
from tenfold.errors import DataError, ShapeError, StorageError, TenfoldError, UsageError
from tenfold.files import written_whole

MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Endings of file names that can be written, with FFmpeg's name of the container."""

_BT709, _LIMITED_RANGE, _FULL_RANGE = 1, 1, 2
_MOST_SIDE = 16_384


class VideoWriter:
    """Writes a video file; a context manager.

    Leaving the block in the normal way completes the file and puts it at its place; leaving it by an error leaves
    nothing, and what stood there before stays.

    Args:
        path: the file to write; its ending is one of MUXERS.
        info: size, time base, usual rate, pixel aspect, turn and range of the frames: `VideoReader.info` of where they
            come from. Images are given upright; a file that was recorded sideways is written sideways, with its mark.
        sound_from: a video file whose sound tracks are copied, at the times that they have there; None writes no sound.
        lossless: keep every pixel exactly (H.264 in RGB, which not every player shows) instead of colours at half
            resolution.
        quality: H.264's constant rate factor from 0 (best) to 51; 18 looks like the source. Not used when lossless.
        damage: what to do where the sound is damaged: "refuse" raises, "skip" ends the sound there.

    Frames of odd size are written with colours at full resolution, since H.264 has no other way to keep their size.
    Matroska counts time in milliseconds and rounds to them; MP4 and MOV keep it exactly.

    Raises:
        UsageError: if the ending, the size or the quality is not allowed, or the container cannot hold the sound.
        MissingDataError: if the file with the sound is not there.
        DataError: if it cannot be read.
        StorageError: if the place cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        *,
        sound_from: str | Path | None = None,
        lossless: bool = False,
        quality: int = 18,
        damage: Damage = "refuse",
    ) -> None:
        self.path = Path(path)
        self._info = info
        self._written = 0
        self._last = -1
        self._durations: dict[int, int] = {}
        muxer = MUXERS.get(self.path.suffix.lower())
        if muxer is None:
            raise UsageError(
                f"{self.path} ends in {self.path.suffix or 'nothing'!r}; a video is written as {', '.join(MUXERS)}."
            )
        if not (0 < info.width <= _MOST_SIDE and 0 < info.height <= _MOST_SIDE):
            raise UsageError(
                f"a video of {info.width} x {info.height} cannot be written; a side has 1 to {_MOST_SIDE} pixels."
            )
        if not 0 <= quality <= 51:
            raise UsageError(
                f"quality {quality} is not allowed; it goes from 0 (best) to 51, and 18 looks like the source."
            )
        with ExitStack() as stack:
            source = open_sound(stack, Path(sound_from)) if sound_from is not None else None
            self._container = self._open(stack, muxer)
            self._stream = _video_stream(self._container, info, lossless, quality)
            self._format = "rgb24" if lossless else self._stream.pix_fmt
            self._sound = SoundCopy(source, self._container, damage) if source is not None else None
            self._stack = stack.pop_all()

    def _open(self, stack: ExitStack, muxer: str) -> Any:
        import av

        part = stack.enter_context(written_whole(self.path))
        with storage_errors(self.path):
            container = av.open(str(part), "w", format=muxer)
        stack.callback(close_quietly, container)
        return container

    def write(self, frame: VideoFrame) -> None:
        """Write a frame at its time; times must rise.

        Raises:
            ShapeError: if the image is not uint8 (H, W, 3) of the size given at the start.
            UsageError: if its time is not after that of the frame before.
            StorageError: if it could not be written.
        """
        self.write_image(frame.image, frame.pts, frame.duration)

    def write_image(self, image: NDArray[np.uint8], pts: int, duration: int | None = None) -> None:
        """Write an image to be shown at `pts`, in units of the time base; otherwise as `write`."""
        import av

        if image.shape != (self._info.height, self._info.width, 3) or image.dtype != np.uint8:
            raise ShapeError(
                f"a frame is {image.dtype} {image.shape}, but the video is uint8 "
                f"{(self._info.height, self._info.width, 3)}; all frames have one size."
            )
        if pts <= self._last:
            raise UsageError(f"the frame at {pts} does not come after the one at {self._last}; times must rise.")
        self._last = pts
        stored = np.ascontiguousarray(_turned_back(image, self._info.turn))
        frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
        if self._format != "rgb24":
            levels = _FULL_RANGE if self._info.full_range else _LIMITED_RANGE
            frame = frame.reformat(format=self._format, dst_colorspace=_BT709, dst_color_range=levels)
        frame.pts, frame.time_base = pts, self._info.time_base
        if duration is not None:
            self._durations[pts] = duration
        with storage_errors(self.path):
            self._mux(self._stream.encode(frame))
            if self._sound is not None:
                self._sound.copy_until(pts * self._info.time_base)
        self._written += 1

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            duration = self._durations.pop(packet.pts, None)
            if duration is not None:
                packet.duration = duration
            self._container.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(_Abandoned), self._stack:
                raise _Abandoned
            return
        with self._stack:
            if not self._written:
                raise UsageError(f"no frame was written to {self.path}; a video has at least one.")
            with storage_errors(self.path):
                self._mux(self._stream.encode())
                if self._sound is not None:
                    self._sound.copy_until(None)
                self._container.close()


class _Abandoned(Exception):  # noqa: N818  (nobody sees it)
    """The block was left by an error of its own, which goes on as it is while the file is thrown away."""


def _turned_back(image: NDArray[np.uint8], turn: tuple[int, bool]) -> NDArray[np.uint8]:
    """An upright image as it is stored; see `VideoInfo.turn`."""
    quarters, mirrored = turn
    return np.rot90(image[:, ::-1] if mirrored else image, -quarters)


def open_sound(stack: ExitStack, path: Path) -> Any:
    """The container whose sound is to be copied; `stack` closes it."""
    file, container = open_container(path, VideoLimits.pixels, whole=False)
    stack.callback(file.close)
    stack.callback(container.close)
    return container


class SoundCopy:
    """The sound packets of a file, copied in the order of their times."""

    def __init__(self, container: Any, output: Any, damage: Damage) -> None:
        path = Path(container.name)
        self._path, self._output, self._skips = path, output, damage == "skip"
        # Matroska has no times before the start: it would move all else by the run-in of the sound's encoder.
        self._keeps_run_in = output.format.name != "matroska"
        self._tracks = {
            stream.index: (_copied_track(output, stream, path), start_shift(container, stream.time_base))
            for stream in container.streams.audio
        }
        self._packets: Iterator[Any] = container.demux(*container.streams.audio) if self._tracks else iter(())
        self._next: Any = None

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copy what is heard before a time; None copies what is left."""
        while True:
            if self._next is None:
                self._next = self._read()
            if self._next is None:
                return
            track, shift = self._tracks[self._next.stream.index]
            if seconds is not None and (self._next.dts - shift) * Fraction(self._next.time_base) > seconds:
                return
            packet, self._next = self._next, None
            if not self._keeps_run_in and packet.dts < shift:
                continue
            packet.dts -= shift
            packet.pts = packet.pts - shift if packet.pts is not None else packet.dts
            packet.stream = track
            self._output.mux(packet)

    def _read(self) -> Any:
        while True:
            try:
                packet = next(self._packets, None)
            except Exception as error:
                if self._skips:
                    self._packets = iter(())
                    return None
                raise DataError(
                    f"the sound of {self._path} is damaged ({error}). Fetch it again, or go on without the rest of it "
                    "(damage='skip', on the command line --damage skip)."
                ) from error
            if packet is None or packet.dts is not None:
                return packet


def _copied_track(output: Any, stream: Any, path: Path) -> Any:
    name = stream.codec_context.name if stream.codec_context is not None else "unknown"
    try:
        return output.add_stream_from_template(stream)
    except Exception as error:
        raise UsageError(
            f"the sound of {path} is coded in {name!r}, which a file ending in {_ending(output)} cannot hold "
            "unchanged. Write .mkv, which holds nearly all, or leave the sound out."
        ) from error


def _ending(output: Any) -> str:
    """The usual ending of a container that is written."""
    return next(ending for ending, muxer in MUXERS.items() if muxer == output.format.name)


def _video_stream(container: Any, info: VideoInfo, lossless: bool, quality: int) -> Any:
    odd = info.width % 2 or info.height % 2
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=info.rate.limit_denominator(1_000_000))
    quarters, mirrored = info.turn
    sideways = quarters % 2 == 1
    stream.width, stream.height = (info.height, info.width) if sideways else (info.width, info.height)
    stream.pix_fmt = "rgb24" if lossless else "yuv444p" if odd else "yuv420p"
    context = stream.codec_context
    context.time_base = stream.time_base = info.time_base
    context.sample_aspect_ratio = 1 / info.pixel_aspect if sideways else info.pixel_aspect
    if info.turn != (0, False):
        stream.set_display_rotation(90 * quarters, mirrored, False)
    context.options = {"preset": "veryfast", "bf": "0"} | ({"qp": "0"} if lossless else {"crf": str(quality)})
    if not lossless:
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _FULL_RANGE if info.full_range else _LIMITED_RANGE
    return stream


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what PyAV raises while writing into an error with the file's name."""
    import av

    try:
        yield
    except TenfoldError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}. What stood there before is untouched."
        ) from error


def close_quietly(container: Any) -> None:
    """Close what may be half written: an error here would hide the one that led here."""
    with suppress(Exception):
        container.close()
