"""Video in: any common file becomes upright 8-bit RGB frames with their times, one by one, or an error saying why.

What is done with what is not plain:

- a file is opened by its content, never by its ending, and only in the formats and codecs of `video_formats`;
- frames are turned and mirrored as the file's display matrix says;
- limited and full range, and the matrices of BT.601, BT.709 and BT.2020, become full-range RGB; where the file does
  not name its matrix, it is BT.709 from 720 rows on and BT.601 below, as players have it. Ten bits become eight; the
  curves of HDR are not mapped;
- times are kept as they are, variable or not, counted from the file's start; a frame without a time follows the one
  before at the usual distance;
- a frame of another size than the first is resized to it;
- pictures on a cover (album art) are no video.

One decoded frame is held at a time, so that memory does not grow with the length. This module needs numpy and PyAV.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.data.video_container import open_container, start_shift
from tenfold.data.video_formats import VIDEO_CODECS
from tenfold.errors import DataError, UsageError

Damage = Literal["refuse", "skip"]

_UNSPECIFIED, _BT709, _BT601 = 2, 1, 5
_FULL_RANGE = 2
_HD_ROWS = 720
_DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """What a file may ask for; checked before anything of that size is allocated.

    Args:
        pixels: of one frame.
        frames: of the whole file; None allows any number, since only one is held at a time.
    """

    pixels: int = 8192 * 4608
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file says of its video before it is decoded.

    Args:
        height: of an upright frame in pixels.
        width: of an upright frame in pixels.
        rate: usual frames a second; single times may differ.
        frames: as the file counts them, or None where it does not say; a damaged file holds fewer.
        time_base: seconds of one unit of `VideoFrame.pts`.
        pixel_aspect: width of an upright pixel by its height.
        codec: FFmpeg's name, such as "h264".
        has_sound: whether there is a sound track.
        turn: how stored frames become upright: quarter turns to the left, then perhaps a mirror from left to right.
        full_range: whether the file stores brightness from 0 to 255 instead of 16 to 235.
    """

    height: int
    width: int
    rate: Fraction
    frames: int | None
    time_base: Fraction
    pixel_aspect: Fraction
    codec: str
    has_sound: bool
    turn: tuple[int, bool] = (0, False)
    full_range: bool = False


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame.

    Args:
        index: its number from 0.
        image: uint8 (H, W, 3), RGB, upright.
        pts: when it is shown, in units of the video's `time_base` from the file's start; strictly rising.
        duration: how long, in the same units, or None where the file does not say.
        time: when it is shown, in seconds.
    """

    index: int
    image: NDArray[np.uint8]
    pts: int
    duration: int | None
    time: Fraction


class VideoSource(Protocol):
    """What yields the frames of one video: `VideoReader`, or anything that decodes elsewhere."""

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding."""

    def __iter__(self) -> Iterator[VideoFrame]:
        """The frames in order of time."""


class VideoReader:
    """The frames of a video file in order; a context manager that is iterated once.

    After the last frame `damaged` says how many packets or frames were damaged, and `resized` how many frames had
    another size than the first.

    Args:
        path: the file.
        damage: "refuse" raises at the first damaged packet, and for a file that is cut short; "skip" goes on with what
            can be decoded.
        limits: what the file may ask for.

    Raises:
        MissingDataError: if there is no such file, or it is empty.
        DataError: if it is no video of an allowed format and codec, exceeds the limits, or is damaged.
        UsageError: if `damage` is something else.

    Example:
        with VideoReader("clip.mp4") as video:
            for frame in video:
                print(frame.index, float(frame.time), frame.image.shape)
    """

    def __init__(self, path: str | Path, *, damage: Damage = "refuse", limits: VideoLimits | None = None) -> None:
        if damage not in ("refuse", "skip"):
            raise UsageError(f"{damage!r} is no way to treat damage; allowed are 'refuse' and 'skip'.")
        self.path = Path(path)
        self.damaged = 0
        self.resized = 0
        self._skips = damage == "skip"
        self._limits = limits or VideoLimits()
        self._file, self._container = open_container(self.path, self._limits.pixels, whole=not self._skips)
        try:
            self._stream = _video_stream(self._container, self.path)
            self._check_size(self._stream.width, self._stream.height)
            # The decoder itself refuses a size that comes later, before it makes room for it.
            self._stream.codec_context.options = {"max_pixels": str(self._limits.pixels)}
            self._turn = _Turn()
            self._shift = start_shift(self._container, self._stream.time_base)
            self._upcoming: Iterator[Any] = self._decoded()
            self._first = next(self._upcoming, None)
            if self._first is None:
                raise DataError(
                    f"the video {self.path} holds no frame that can be decoded. It is probably damaged: fetch it again."
                )
            self.info = self._describe(self._first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; the frames yielded before stay."""
        self._upcoming, self._first = iter(()), None
        self._container.close()
        self._file.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """The frames in order of time.

        Raises:
            DataError: if the file turns out to be damaged or larger than allowed.
        """
        usual = max(1, round(1 / (self.info.rate * self.info.time_base)))
        pts, index = -1, 0
        while True:
            decoded, self._first = self._first, None
            if decoded is None:
                decoded = next(self._upcoming, None)
            if decoded is None:
                return
            if self._limits.frames is not None and index >= self._limits.frames:
                raise DataError(
                    f"the video {self.path} has more than the {self._limits.frames} frames that are allowed. Cut it "
                    "into pieces, or allow more."
                )
            wanted = decoded.pts - self._shift if decoded.pts is not None else None
            # Equal or falling times come from damaged files; a frame must still be shown after the one before.
            if wanted is None:
                wanted = pts + usual if index else 0
            pts = max(wanted, pts + 1)
            duration = decoded.duration or None
            yield VideoFrame(index, self._image(decoded), pts, duration, pts * self.info.time_base)
            index += 1

    def _decoded(self) -> Iterator[Any]:
        """The decoder's frames, not yet converted."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except Exception as error:
                self._count_damage(error)
                return  # the file cannot be followed any further
            try:
                frames = packet.decode()
            except Exception as error:
                context = self._stream.codec_context
                self._check_size(context.width, context.height)
                self._count_damage(error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._count_damage(None)
                self._check_size(frame.width, frame.height)
                yield frame

    def _count_damage(self, error: Exception | None) -> None:
        self.damaged += 1
        if not self._skips:
            raise DataError(
                f"the video {self.path} is damaged ({error or 'a frame could not be decoded whole'}). Fetch it again, "
                "or go on with what can be decoded (damage='skip': --damage skip, or --set task.damage=skip)."
            ) from error

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.pixels:
            raise DataError(
                f"the video {self.path} is too large: {width} x {height} pixels a frame; at most "
                f"{self._limits.pixels:,} pixels are decoded. Make it smaller first."
            )
        if width < 1 or height < 1:
            raise DataError(f"the video {self.path} gives no size of its frames; it is damaged, or no video.")

    def _describe(self, frame: Any) -> VideoInfo:
        self._turn = _turn_of(frame)
        height, width = self._turn.size(frame.height, frame.width)
        aspect = _pixel_aspect(self._stream)
        rate = self._stream.average_rate or self._stream.guessed_rate or _DEFAULT_RATE
        return VideoInfo(
            height=height,
            width=width,
            rate=Fraction(rate) if 0 < rate <= 1000 else _DEFAULT_RATE,
            frames=self._stream.frames or None,
            time_base=Fraction(self._stream.time_base),
            pixel_aspect=1 / aspect if self._turn.sideways else aspect,
            codec=self._stream.codec_context.name,
            has_sound=bool(self._container.streams.audio),
            turn=(self._turn.quarters, self._turn.mirrored),
            full_range=frame.color_range == _FULL_RANGE,
        )

    def _image(self, frame: Any) -> NDArray[np.uint8]:
        if frame.colorspace == _UNSPECIFIED:
            frame.colorspace = _BT709 if frame.height >= _HD_ROWS else _BT601
        height, width = self._turn.size(self.info.height, self.info.width)
        try:
            if (frame.height, frame.width) != (height, width):
                self.resized += 1
                frame = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
            image = frame.to_ndarray(format="rgb24")
        except Exception as error:
            raise DataError(
                f"a frame of the video {self.path} cannot be turned into RGB ({error}). Convert it to H.264 first."
            ) from error
        return self._turn.upright(image)


@dataclass(frozen=True)
class _Turn:
    """How stored frames become upright: quarter turns to the left, then perhaps a mirror from left to right."""

    quarters: int = 0
    mirrored: bool = False

    @property
    def sideways(self) -> bool:
        return self.quarters % 2 == 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.sideways else (height, width)

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.quarters:
            image = np.rot90(image, self.quarters)
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)


def _turn_of(frame: Any) -> _Turn:
    """Read the display matrix.

    Source: ISO/IEC 14496-12, 6.2.2: a stored point (x, y) is shown at (a x + c y, b x + d y); y points down. Angles
    between quarter turns are rounded to the nearest.
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX" and data.buffer_size >= 36:
            a, b, _, c, d = struct.unpack("<9i", bytes(data)[:36])[:5]
            if a * d == b * c:
                break
            mirrored = a * d - b * c < 0
            # With the mirror undone, (1, 0) is shown at (across, down); a turn to the left takes it upwards.
            across, down = (-a, b) if mirrored else (a, b)
            return _Turn(round(np.degrees(np.arctan2(-down, across)) / 90) % 4, mirrored)
    return _Turn()


def _pixel_aspect(stream: Any) -> Fraction:
    """Width by height of a stored pixel; 1 where the file does not say, or says what no screen has."""
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and Fraction(1, 10) <= aspect <= 10 else Fraction(1)


def _video_stream(container: Any, path: Path) -> Any:
    from av.stream import Disposition

    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        raise DataError(f"{path} holds no video, only sound or other data. Give a file with a picture track.")
    stream = streams[0]
    name = stream.codec_context.name if stream.codec_context is not None else "unknown"
    canonical = stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"
    if canonical not in VIDEO_CODECS:
        raise DataError(
            f"the video {path} is coded in {name!r}, which is not decoded here; allowed are {', '.join(VIDEO_CODECS)}. "
            "Convert it to H.264 first."
        )
    # One thread decodes 2,500 small frames a second; more would hold more frames in memory, and hide which is damaged.
    stream.codec_context.thread_count = 1
    return stream
