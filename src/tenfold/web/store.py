"""What the server keeps: a folder for each job with a random name, its state as a file that is written whole."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tenfold.errors import StorageError
from tenfold.files import write_text

Kind = Literal["clip", "follow", "erase", "profile"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]

ID_PATTERN = r"^[a-z2-7]{26}$"
"""Names of jobs: 130 random bits."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_STATE_FILE = "job.json"
_RESERVE_MB = 256
"""Left free on the disk for what else the machine does."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing that was asked for.

    Args:
        id: its random name.
        kind: "clip" prepares a clip, "follow" finds masks in one, "erase" uses them, "profile" counts a network's cost.
        parent: the job whose result it works on; "" for none.
        title: for people.
        created: seconds since 1970.
        state: where it is.
        request: what was asked, checked.
        result: facts about what came out.
        error: why it failed, as a sentence; "" if it did not.
        stage: what it does at the moment, with the frames done and their number; not kept on the disk.
    """

    id: str
    kind: Kind
    parent: str = ""
    title: str = ""
    created: float = 0.0
    state: State = "waiting"
    request: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    stage: tuple[str, int, int | None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state not in ("waiting", "running")


class Store:
    """The jobs of a server, in memory and on the disk.

    Args:
        folder: where; made if it is not there, for its owner alone.
        store_mb: most that all jobs together may take.

    Raises:
        StorageError: if the folder cannot be made.
    """

    def __init__(self, folder: Path, store_mb: int) -> None:
        self.folder = folder / "jobs"
        self._most = store_mb * 2**20
        self._jobs: dict[str, Job] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror or error}. Choose another one.") from error
        for entry in self.folder.iterdir():
            job = _read(entry)
            if job is not None:
                self._jobs[job.id] = job
            elif re.fullmatch(ID_PATTERN, entry.name):
                shutil.rmtree(entry, ignore_errors=True)  # an upload that never became a job

    def __iter__(self) -> Iterator[Job]:
        """All jobs, the oldest first."""
        return iter(sorted(self._jobs.values(), key=lambda job: job.created))

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, name: str) -> Job | None:
        """A job by its random name."""
        return self._jobs.get(name)

    def path(self, job: Job | str, *parts: str) -> Path:
        """A file or folder inside a job's own folder."""
        return self.folder.joinpath(job if isinstance(job, str) else job.id, *parts)

    def new_folder(self) -> str:
        """Make the folder of a job to be; returns its random name.

        Raises:
            StorageError: if it cannot be made.
        """
        name = "".join(secrets.choice(_ALPHABET) for _ in range(26))
        try:
            self.path(name).mkdir(mode=0o700)
        except OSError as error:
            raise StorageError(f"a folder cannot be made: {error.strerror or error}. Free some space.") from error
        return name

    def add(self, job: Job) -> Job:
        """Take a job whose folder was made by `new_folder`.

        Raises:
            StorageError: if it cannot be written; then it is not there.
        """
        job = replace(job, created=time.time())
        _write(self.path(job), job)
        self._jobs[job.id] = job
        return job

    def change(self, job: Job, **changes: Any) -> Job:
        """A job's new state, kept if the disk allows it; in memory it always holds."""
        changed = replace(job, **changes)
        self._jobs[job.id] = changed
        if set(changes) - {"stage"}:
            # A full disk must not stop the server: what is not kept is done once more after a restart.
            with suppress(StorageError):
                _write(self.path(changed), changed)
        return changed

    def children(self, job: Job) -> list[Job]:
        """The jobs that work on a job's result, and theirs."""
        own = [other for other in self._jobs.values() if other.parent == job.id]
        return own + [further for other in own for further in self.children(other)]

    def remove(self, job: Job) -> None:
        """Forget a job and delete its folder."""
        self._jobs.pop(job.id, None)
        self.discard(job.id)

    def discard(self, name: str) -> None:
        """Delete a folder that `new_folder` made."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def room(self) -> int:
        """Bytes that may still be written: of the quota, and of the disk less a reserve."""
        used = 0
        for root, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):
                    used += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118  (walks many files)
        return min(self._most - used, free_bytes(self.folder) - _RESERVE_MB * 2**20)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that a folder is on."""
    return shutil.disk_usage(folder).free


def _write(folder: Path, job: Job) -> None:
    kept = asdict(job)
    del kept["stage"]
    write_text(folder / _STATE_FILE, json.dumps(kept))


def _read(folder: Path) -> Job | None:
    try:
        kept = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
        job = Job(**kept)
    except (OSError, ValueError, TypeError):
        return None
    return job if job.id == folder.name else None
