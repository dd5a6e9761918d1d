"""Frames and masks of jobs as the page asks for them: one record of one file, handed on as it is."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

from tenfold.data.record_files import RecordFile
from tenfold.errors import DataError, StorageError

_MOST_OPEN = 16


class Pictures:
    """Reads records; keeps the files asked for last open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, RecordFile] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path, number: int) -> bytes | None:
        """A record, or None if it is not there (yet)."""
        with self._lock:
            try:
                file = self._opened(path)
                if number not in file:
                    file.refresh()
                return file.read(number) if number in file else None
            except (DataError, StorageError, OSError, ValueError):
                self._close(path)
                return None

    def forget(self, folder: Path) -> None:
        """Close the files of a folder that is about to go."""
        with self._lock:
            for path in [path for path in self._open if path.parent == folder]:
                self._close(path)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for path in list(self._open):
                self._close(path)

    def _opened(self, path: Path) -> RecordFile:
        if path not in self._open:
            self._open[path] = RecordFile(path)
            while len(self._open) > _MOST_OPEN:
                self._close(next(iter(self._open)))
        self._open.move_to_end(path)
        return self._open[path]

    def _close(self, path: Path) -> None:
        file = self._open.pop(path, None)
        if file is not None:
            with suppress(OSError):
                file.close()
