"""Opening a video file: only its own bytes, only allowed formats, and an error that names the file for all else."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from tenfold.data.video_formats import FORMATS, OPTIONS, declared_bytes
from tenfold.errors import DataError, MissingDataError


def open_container(path: Path, pixels: int, *, whole: bool) -> tuple[BinaryIO, Any]:
    """Open a video file; the caller closes both that come back, the container first.

    Args:
        path: the file. It is opened here and handed over open, so that no part of its name or content is taken for an
            address.
        pixels: of a frame, that may be decoded while the file is examined.
        whole: refuse a file that is shorter than it says itself.

    Returns:
        The open file, and PyAV's container on it.

    Raises:
        MissingDataError: if there is no such file, or it is empty.
        DataError: if it is of no allowed format, damaged, or cut short.
    """
    file = _open_file(path)
    try:
        if whole:
            _check_whole(file, path)
        return file, _examined(file, path, pixels)
    except BaseException:
        file.close()
        raise


def start_shift(container: Any, time_base: Fraction) -> int:
    """The container's start in units of a stream's time base; a start before zero (sound that is to be cut) is none."""
    return max(0, round(Fraction(container.start_time or 0, 1_000_000) / time_base))


def _open_file(path: Path) -> BinaryIO:
    if path.is_dir():
        raise DataError(
            f"{path} is a folder; needed is a video file. A folder of numbered pictures is read by tenfold.data.clips."
        )
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise MissingDataError(f"no video at {path}. Check the path.") from error
    except OSError as error:
        raise DataError(f"the video {path} cannot be opened: {error.strerror or error}.") from error
    if not file.seekable():
        file.close()
        raise DataError(f"{path} is a pipe or a device; needed is a file. Save it first.")
    if not file.read(1):
        file.close()
        raise MissingDataError(f"the video {path} is empty (0 bytes). Fetch it again.")
    file.seek(0)
    return file


def _check_whole(file: BinaryIO, path: Path) -> None:
    declared = declared_bytes(file)
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if declared is not None and declared > length:
        raise DataError(
            f"the video {path} is cut short: it has {length:,} of {declared:,} bytes. Fetch it again, or go on with "
            "what is there (damage='skip': --damage skip, or --set task.damage=skip)."
        )


def _examined(file: BinaryIO, path: Path, pixels: int) -> Any:
    import av

    try:
        # Options of streams bound what is decoded while the file is examined, those of the container what is opened.
        container = av.open(
            file, "r", options={"max_pixels": str(pixels)}, container_options=dict(OPTIONS), metadata_errors="replace"
        )
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        raise DataError(_unreadable(path)) from error
    except Exception as error:
        raise DataError(
            f"the video {path} cannot be opened ({error}). It is probably damaged: fetch it again."
        ) from error
    if not set(container.format.name.split(",")).intersection(FORMATS):
        container.close()  # FFmpeg has refused it already; this holds should its option ever change
        raise DataError(_unreadable(path))
    return container


def _unreadable(path: Path) -> str:
    return (
        f"{path} is not a video that can be read: it is damaged, or its content is none of {', '.join(FORMATS)} (mov "
        "is MP4, matroska is WebM; playlists and image sequences are refused, since they name other files). Fetch it "
        "again, or convert it to MP4 first."
    )
