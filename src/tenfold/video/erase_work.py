"""What is done of an erasing: pieces of the result on the disk, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tenfold.errors import StorageError
from tenfold.files import write_text
from tenfold.video.provenance import Account


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of the result that are done.

    Args:
        frames: how many.
        start: when the first of them is shown, in seconds.
        account: what was done to them; the numbers of cuts are those in the whole video.
    """

    frames: int
    start: Fraction
    account: Account


class EraseWork:
    """A folder for the pieces of one result; a context manager that lets one process in at a time.

    Pieces of another clip, or with other options, are thrown away as it is opened.

    Args:
        folder: where; made if it is not there.
        asked: all that the result follows from, as JSON values.

    Raises:
        StorageError: if it cannot be written, or another process works there.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self.folder = folder
        self.pieces: list[Piece] = []
        self._lock = _locked(folder)
        try:
            self._open(json.dumps(asked, sort_keys=True, indent=1))
        except BaseException:
            self._lock.close()
            raise

    def _open(self, asked: str) -> None:
        request = self.folder / "asked.json"
        known = request.read_text(encoding="utf-8") if request.is_file() else None
        if known != asked:
            for entry in self.folder.iterdir():
                if entry.name == "lock":
                    continue
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            write_text(request, asked)
        while (piece := _read_piece(self.facts_path(len(self.pieces)))) is not None:
            self.pieces.append(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.pieces and not self.masks_path.exists():
            self.discard()  # there is nothing to go on from
        self._lock.close()

    @property
    def frames(self) -> int:
        """Frames that are done."""
        return sum(piece.frames for piece in self.pieces)

    @property
    def masks_path(self) -> Path:
        """For the masks of what is followed."""
        return self.folder / "masks.bin"

    @property
    def pictures(self) -> Path:
        """For the frames of a result that is a folder."""
        return self.folder / "frames"

    def video_path(self, number: int) -> Path:
        """For the frames of a piece of a result that is a file."""
        return self.folder / f"{number:06d}.mp4"

    def facts_path(self, number: int) -> Path:
        """What says that a piece is whole."""
        return self.folder / f"{number:06d}.json"

    def add(self, piece: Piece) -> None:
        """Take a piece whose frames are on the disk.

        Raises:
            StorageError: if it could not be written.
        """
        facts = {
            "frames": piece.frames,
            "start": str(piece.start),
            "hole": piece.account.hole,
            "invented": piece.account.invented,
            "repaired": piece.account.repaired,
            "distances": sorted(piece.account.distances.items()),
            "cuts": piece.account.cuts,
        }
        write_text(self.facts_path(len(self.pieces)), json.dumps(facts))
        self.pieces.append(piece)

    def account(self) -> Account:
        """What was done to all pieces together."""
        whole = Account()
        for account in (piece.account for piece in self.pieces):
            whole.frames += account.frames
            whole.hole += account.hole
            whole.invented += account.invented
            whole.repaired += account.repaired
            whole.cuts += account.cuts
            for distance, count in account.distances.items():
                whole.distances[distance] = whole.distances.get(distance, 0) + count
        return whole

    def discard(self) -> None:
        """Throw all of it away, once the result is at its place."""
        shutil.rmtree(self.folder, ignore_errors=True)


def work_folder(out: Path) -> Path:
    """Where the pieces of a result lie until it is whole: beside it."""
    return out.parent / f".{out.name}.erase"


def stamp(path: str | Path) -> list[Any]:
    """What tells whether a file, or a folder of files, is still the one that it was: name, size and time.

    Of a folder hidden files do not count: what is done of a result may lie among them.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        try:
            facts = path.stat()
        except OSError:
            return [str(path)]  # whoever opens it says what is wrong
        return [str(path), facts.st_size, facts.st_mtime_ns]
    digest = hashlib.sha256()
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path)
        if entry.is_dir() or any(part.startswith(".") for part in name.parts):
            continue
        with suppress(OSError):
            facts = entry.stat()
            digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return [str(path), digest.hexdigest()]


def _locked(folder: Path) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}. Choose another place.") from error
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ModuleNotFoundError:  # no such locks on this system
        pass
    except OSError as error:
        lock.close()
        raise StorageError(
            f"another process is writing this result (it holds {folder}). Wait for it, or choose another --out."
        ) from error
    return lock


def _read_piece(path: Path) -> Piece | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        account = Account(
            facts["frames"],
            facts["hole"],
            facts["invented"],
            facts["repaired"],
            dict(facts["distances"]),
            facts["cuts"],
        )
        return Piece(facts["frames"], Fraction(facts["start"]), account)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not whole: this piece is made again
