"""Numbered records in one file: written as they come, read in any order, and whole up to the last one after a crash."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tenfold.errors import DataError, StorageError, UsageError

_HEAD = struct.Struct("<QII")
"""Number, length of the content, and CRC-32 of number and content."""
_MOST_BYTES = 1 << 30


class RecordFile:
    """A file of records, each with its number; a context manager.

    A record that was written only in part, because the program was killed or the disk was full, is as if it had never
    been: reading ends before it, and writing goes on in its place. Of two records of one number the later one counts.

    Args:
        path: the file.
        write: whether to write, and to make the file if it is not there.

    Raises:
        StorageError: if it cannot be opened.
    """

    def __init__(self, path: str | Path, *, write: bool = False) -> None:
        self.path = Path(path)
        self._writes = write
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch()
            self._file = self.path.open("r+b" if write else "rb")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be opened: {error.strerror or error}. Check the path.") from error
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0
        self.refresh()
        if write:
            self._file.truncate(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, number: object) -> bool:
        return number in self._places

    def __iter__(self) -> Iterator[int]:
        """The numbers, rising."""
        return iter(sorted(self._places))

    def refresh(self) -> None:
        """Take notice of what another process has written since."""
        size = os.fstat(self._file.fileno()).st_size
        while self._end + _HEAD.size <= size:
            self._file.seek(self._end)
            number, length, _ = _HEAD.unpack(self._file.read(_HEAD.size))
            if length > _MOST_BYTES or self._end + _HEAD.size + length > size:
                return
            self._places[number] = (self._end + _HEAD.size, length)
            self._end += _HEAD.size + length

    def append(self, number: int, content: bytes) -> None:
        """Write a record.

        Raises:
            UsageError: if the file was opened for reading, or the number is negative.
            StorageError: if it could not be written; the records before stay.
        """
        if not self._writes or number < 0:
            raise UsageError(
                f"record {number} cannot be written to {self.path}; open it with write=True, count from 0."
            )
        try:
            self._file.seek(self._end)
            self._file.write(_HEAD.pack(number, len(content), _check(number, content)) + content)
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"could not write {self.path}: {error.strerror or error}. Free some space and go on."
            ) from error
        self._places[number] = (self._end + _HEAD.size, len(content))
        self._end += _HEAD.size + len(content)

    def read(self, number: int) -> bytes:
        """The content of a record.

        Raises:
            DataError: if there is no such record, or it is damaged.
        """
        if number not in self._places:
            raise DataError(f"{self.path} holds no record {number}; it has {len(self)}. Make it anew.")
        place, length = self._places[number]
        self._file.seek(place - _HEAD.size)
        head, content = self._file.read(_HEAD.size), self._file.read(length)
        if head != _HEAD.pack(number, length, _check(number, content)):
            raise DataError(f"record {number} of {self.path} is damaged. Make the file anew.")
        return content


def _check(number: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(number.to_bytes(8, "little")))
