"""A clip from wherever it comes, file or folder, as one stream of frames; and the masks that go with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clips import Clip, numbered_pictures, open_clip
from tenfold.data.images import SUFFIXES, image_size, opened, turned_upright
from tenfold.data.video import Damage, VideoFrame, VideoInfo, VideoReader, VideoSource
from tenfold.errors import DataError, MissingDataError, UsageError

_HALF = 128
"""In a video of masks, pixels from here on count; compression leaves no clean values."""
_MOST_RATE = 1000


class PictureVideo:
    """The frames of a clip in a folder, as a video has them.

    Args:
        clip: the pictures.
        rate: frames a second.

    Raises:
        UsageError: if the rate is not allowed.
    """

    def __init__(self, clip: Clip, rate: Fraction = Fraction(24)) -> None:
        if not 0 < rate <= _MOST_RATE:
            raise UsageError(
                f"a rate of {float(rate):g} frames a second is not allowed; it is above 0, up to {_MOST_RATE}."
            )
        self.clip = clip
        self.info = VideoInfo(
            height=clip.height,
            width=clip.width,
            rate=rate,
            frames=len(clip),
            time_base=1 / rate,
            pixel_aspect=Fraction(1),
            codec="pictures",
            has_sound=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing is held open."""

    def __iter__(self) -> Iterator[VideoFrame]:
        for index in range(len(self.clip)):
            yield VideoFrame(index, self.clip.read_frame(index), index, 1, index * self.info.time_base)


class FrameMasks(Protocol):
    """The masks of a video, one a frame."""

    @property
    def place(self) -> object:
        """Where they come from, for errors."""

    @property
    def is_counted(self) -> bool:
        """Whether there must be just one for each frame."""

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """The masks in order, bool (H, W)."""


class ClipMasks:
    """What to fill in each frame of a video: one mask a frame, or one for all.

    Found at the place given:

    - a folder of pictures: of the frames of a folder by name, otherwise one after the other by their numbers;
    - a video, whose light pixels count;
    - one picture, for every frame (a logo, a scratch on the lens).

    Args:
        place: see above; None takes the masks beside the frames of a clip in a folder.
        video: the frames.
        damage: what to do where a video of masks is damaged; see VideoReader. With "skip" there may be more masks than
            frames, since those of a damaged video's lost end are left over.

    Raises:
        MissingDataError: if there are no masks, or a frame has none.
        DataError: if the size of one, or their number, is not that of the frames. How many a video of masks holds, or
            frames a file that does not say it, is known only at the end.
    """

    def __init__(self, place: str | Path | None, video: VideoSource, *, damage: Damage = "refuse") -> None:
        self._size = (video.info.height, video.info.width)
        self._stack = ExitStack()
        self._frames = video.info.frames
        self._by_name: Clip | None = None
        self._pictures: list[Path] = []
        self._single: Path | None = None
        self._video: VideoReader | None = None
        if place is None:
            if not isinstance(video, PictureVideo) or not video.clip.masks:
                raise MissingDataError("what is to be filled? Name the masks: --mask FOLDER, VIDEO or PICTURE.")
            for index in range(len(video.clip)):
                video.clip.check_masked(index)
            self._by_name = video.clip
            self._check_sizes(self._by_name.masks.values())
        elif (place := Path(place)).is_dir():
            self._pictures = numbered_pictures(place)
            if not self._pictures:
                raise MissingDataError(f"the folder {place} holds no masks (pictures such as 00000.png).")
            if isinstance(video, PictureVideo):
                self._pictures = _named_as(video.clip, self._pictures, place)
            elif damage == "refuse" and self._frames is not None and len(self._pictures) != self._frames:
                raise DataError(_wrong_number(len(self._pictures), self._frames, place))
            self._check_sizes(self._pictures)
        elif _is_picture(place):
            self._check_sizes([place])
            self._single = place
        else:
            self._video = self._stack.enter_context(VideoReader(place, damage=damage))
            if (self._video.info.height, self._video.info.width) != self._size:
                self._stack.close()
                raise DataError(_wrong_size(place, (self._video.info.height, self._video.info.width), self._size))
        self.place: object = place
        self.is_counted = self._single is None and damage == "refuse"
        """Whether there must be just one mask for each frame."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """The masks in order, bool (H, W), True = fill; without end where there is one for all.

        Raises:
            DataError: if a mask cannot be read, or has another size than the frames.
        """
        if self._by_name is not None:
            for index in range(len(self._by_name)):
                yield self._read(self._by_name.masks[index])
        elif self._single is not None:
            mask = self._read(self._single)
            while True:
                yield mask
        elif self._video is not None:
            for frame in self._video:
                yield frame.image.max(-1) >= _HALF
        else:
            for path in self._pictures:
                yield self._read(path)

    def _check_sizes(self, pictures: Iterable[Path]) -> None:
        """See that pictures are as large as the frames, by their headers, before hours of work."""
        for path in pictures:
            width, height = image_size(path)
            if (height, width) != self._size:
                self._read(path)  # which says so, unless it is turned by what stands behind its pixels

    def _read(self, path: Path) -> NDArray[np.bool_]:
        mask = read_hole(path)
        if mask.shape != self._size:
            raise DataError(_wrong_size(path, mask.shape, self._size))
        return mask


def read_hole(path: Path) -> NDArray[np.bool_]:
    """What a picture marks, bool (H, W).

    In pictures of one channel that keep every value everything but 0 counts, in a palette picture the numbers and not
    the colours. In colours, and in JPEG, which changes values a little, light pixels count (128 and above in any
    channel); transparent ones never do.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged, too large, or no picture.
    """
    with opened(path, str(path)) as (image, orientation):
        image.load()
        exact = image.mode in {"1", "L", "P"} or image.mode.startswith("I")
        seen = np.ones((image.height, image.width), np.bool_)
        if not exact and image.has_transparency_data:
            seen = np.asarray(image.convert("RGBA"))[..., 3] >= _HALF
        if image.format == "JPEG" or not exact:
            marked = np.asarray(image.convert("RGB")).max(-1) >= _HALF
        else:
            marked = np.asarray(image) != 0
        return np.asarray(turned_upright(Image.fromarray(marked & seen), orientation))


def masked_frames(video: VideoSource, masks: FrameMasks) -> Iterator[tuple[VideoFrame, NDArray[np.bool_]]]:
    """Each frame with its mask.

    Raises:
        DataError: if one of them ends before the other.
    """
    coming = iter(masks)
    count = 0
    for frame in video:
        mask = next(coming, None)
        if mask is None:
            raise DataError(_wrong_number(count, None, masks.place))
        yield frame, mask
        count += 1
    if masks.is_counted and next(coming, None) is not None:
        raise DataError(_wrong_number(None, count, masks.place))


def open_clip_video(
    place: str | Path, *, rate: Fraction | None = None, damage: Damage = "refuse"
) -> VideoReader | PictureVideo:
    """A video file, or a folder with the pictures of one clip; a context manager.

    Args:
        place: the file or folder; see tenfold.data.clips for its layouts.
        rate: frames a second of a folder; 24 by default. A file has its own.
        damage: what to do where a file is damaged; see VideoReader.

    Raises:
        MissingDataError: if it is not there.
        DataError: if it cannot be read.
        UsageError: if a file is given a rate.
    """
    if Path(place).is_dir():
        return PictureVideo(open_clip(place), Fraction(24) if rate is None else rate)
    if rate is not None:
        raise UsageError("a video file has its own times; a rate is for folders of pictures. Leave it out.")
    return VideoReader(place, damage=damage)


def _named_as(clip: Clip, pictures: list[Path], place: Path) -> list[Path]:
    """The mask of each frame, by name."""
    by_name = {path.stem: path for path in pictures}
    missing = [path for path in clip.frames if path.stem not in by_name]
    if missing and len(pictures) == len(clip):
        return pictures  # all named differently: one after the other
    if missing:
        raise MissingDataError(
            f"the frame {missing[0].name} has no mask in {place}: {len(missing)} of {len(clip)} frames have none. Add "
            "one for each; a black one leaves its frame as it is."
        )
    return [by_name[path.stem] for path in clip.frames]


def _is_picture(place: Path) -> bool:
    return place.suffix.lower() in SUFFIXES


def _wrong_number(masks: int | None, frames: int | None, place: object) -> str:
    if masks is None:
        said = f"there are more masks in {place} than the {frames} frames of the video"
    elif frames is None:
        said = f"there are {masks} masks in {place}, but the video has more frames"
    else:
        said = f"there are {masks} masks in {place}, but the video has {frames} frames"
    return f"{said}; needed is one for each frame (a black one leaves its frame as it is), or a single picture for all."


def _wrong_size(path: Path, got: tuple[int, ...], needed: tuple[int, int]) -> str:
    return (
        f"the mask {path} has {got[1]} x {got[0]} pixels, but the frames have {needed[1]} x {needed[0]}; they must "
        "be the same. Make the mask anew at the frames' size (nearest neighbour)."
    )
