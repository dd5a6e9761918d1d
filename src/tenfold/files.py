"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenfold.errors import StorageError, UsageError


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step.

    The data is flushed to the disk before the rename, and the folder after it, so that after a crash or a power cut
    `path` holds either the old content or the new one. If the block raises, the temporary file is removed and what
    stood at `path` before is untouched. The folder is created when it is missing.

    Raises:
        StorageError: if the disk is full, or the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
    except OSError as error:
        raise _storage_error(path, error) from error
    part = Path(name)
    try:
        yield part
        # mkstemp makes private files; a result gets the permissions that any new file of this user would have.
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _storage_error(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


@contextmanager
def folder_written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes that place, otherwise nothing is left.

    Raises:
        StorageError: if there is already something at `path` that is not an empty folder, or the place cannot be
            written.
    """
    path = Path(path)
    check_unused(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise _storage_error(path, error) from error
    try:
        yield part
        move_folder(part, path)
    except OSError as error:
        raise _storage_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def made_folder(folder: str | Path) -> Iterator[Path]:
    """A folder for results; if the block raises, those folders that were made for it and are empty go again.

    Raises:
        StorageError: if it cannot be made.
    """
    folder = Path(folder)
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror or error}. Choose another place.") from error
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


@contextmanager
def temporary_folder(parent: str | Path) -> Iterator[Path]:
    """A hidden folder beside results that goes with all that is in it; the folder for the results as `made_folder`.

    Raises:
        StorageError: if it cannot be made.
    """
    with made_folder(parent):
        try:
            folder = tempfile.TemporaryDirectory(prefix=".tenfold.", dir=parent)
        except OSError as error:
            raise _storage_error(Path(parent), error) from error
        with folder as name:
            yield Path(name)


def check_unused(path: str | Path) -> None:
    """See that a folder may be put at a place.

    Raises:
        StorageError: if there is already something that is not an empty folder.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise StorageError(
            f"{path} is there already, and not an empty folder. Choose another place, or remove it first."
        )


def check_keeps(path: str | Path, sources: Iterable[str | Path | None]) -> None:
    """See that a result is not written over what it is made from.

    Args:
        path: of the result.
        sources: files and folders; None is passed over.

    Raises:
        UsageError: if the result is one of them, by whatever name or link.
    """
    path = Path(path)
    for source in sources:
        if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
            raise UsageError(
                f"the result {path} would be written over what it is made from ({source}). Choose another place."
            )


def move_folder(part: Path, path: Path) -> None:
    """Put a finished folder at its place on the same disk, with the permissions of any new folder of this user.

    Raises:
        StorageError: if it cannot be put there.
    """
    try:
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o777 & ~mask)
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _storage_error(path, error) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        StorageError: if it could not be written.
    """
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(path: Path, error: OSError) -> StorageError:
    if isinstance(error, StorageError):
        return error
    reason = error.strerror or str(error)
    return StorageError(
        f"could not write {path}: {reason}. What stood there before is untouched; free space or choose another place."
    )
