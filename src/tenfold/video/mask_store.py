"""Masks of a video on the disk, so that their number does not matter for memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.record_files import RecordFile
from tenfold.errors import DataError, ShapeError

_PALETTE = bytes((0, 0, 0, 255, 64, 129))
"""Nothing, and what is marked; a browser shows the second one's colour."""


class MaskStore:
    """One mask a frame, in a file that a crash leaves readable; a context manager.

    Each is a PNG of two colours, the first transparent, so that it can be laid over its frame as it is. A frame
    without a record has an empty mask.

    Args:
        path: the file.
        size: (height, width) of the masks.
        write: whether to write.

    Raises:
        StorageError: if it cannot be opened.
    """

    is_counted = False
    """There may be fewer masks than frames."""

    def __init__(self, path: str | Path, size: tuple[int, int], *, write: bool = False) -> None:
        self.place = Path(path)
        self.size = size
        self.records = RecordFile(path, write=write)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.records.close()

    def write(self, number: int, mask: NDArray[np.bool_]) -> None:
        """Keep the mask of a frame, bool (H, W).

        Raises:
            ShapeError: if it is of another size.
            StorageError: if it could not be written.
        """
        if mask.shape != self.size or mask.dtype != np.bool_:
            raise ShapeError(f"the mask of frame {number} is {mask.dtype} {mask.shape}; needed is bool {self.size}.")
        self.records.append(number, mask_picture(mask) if mask.any() else b"")

    def read(self, number: int) -> NDArray[np.bool_]:
        """The mask of a frame, bool (H, W); empty if none was kept.

        Raises:
            DataError: if it is damaged or of another size.
        """
        content = self.records.read(number) if number in self.records else b""
        if not content:
            return np.zeros(self.size, np.bool_)
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
                if (picture.height, picture.width) != self.size:
                    raise DataError(f"the mask {number} in {self.place} has another size than its video.")
                return np.asarray(picture) != 0
        except (OSError, ValueError) as error:
            raise DataError(f"the mask {number} in {self.place} is damaged ({error}). Make it anew.") from error

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """The masks in order, without end."""
        number = 0
        while True:
            yield self.read(number)
            number += 1


def mask_picture(mask: NDArray[np.bool_]) -> bytes:
    """A mask, bool (H, W), as a PNG with a transparent ground."""
    picture = Image.fromarray(mask.astype(np.uint8), mode="P")
    picture.putpalette(_PALETTE)
    content = io.BytesIO()
    picture.save(content, "PNG", bits=1, transparency=0, compress_level=4)
    return content.getvalue()
