"""One queue of jobs, each in a child process with limits: watched, told about, cancelled, begun again after a crash."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.errors import UsageError
from tenfold.web.settings import ServeSettings
from tenfold.web.store import Job, Store

WORKER = (sys.executable, "-m", "tenfold.web.worker")
_LINE_BYTES = 1 << 20
_MOST_ERROR = 2000
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV", "HOME")
_SHORT_KINDS = ("clip", "follow", "profile")
"""What people wait for; it goes before what takes minutes."""


class QueueFullError(UsageError):
    """So many jobs wait already that no further one is taken."""


class Board:
    """Tells all who listen which jobs have changed.

    However slow a listener is, nothing piles up for it: it is told the newest state of what changed since.
    """

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._version = 0
        self._changed = asyncio.Event()

    def tell(self, name: str) -> None:
        """Say that a job has changed, or is gone."""
        self._version += 1
        self._versions[name] = self._version
        self._changed.set()
        self._changed = asyncio.Event()

    async def changes(self, every: float) -> AsyncIterator[list[str]]:
        """Names of jobs that have changed, at most so often a second apart; nothing has for a while: an empty list."""
        seen = self._version
        while True:
            if seen == self._version:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 15.0)
            names = [name for name, version in self._versions.items() if version > seen]
            seen = self._version
            yield names
            await asyncio.sleep(every)


class Queue:
    """Runs the jobs of a store.

    Args:
        store: the jobs; those that ran when the server ended begin again.
        settings: how many at a time, and their limits.
    """

    def __init__(self, store: Store, settings: ServeSettings) -> None:
        self.board = Board()
        self._store, self._settings = store, settings
        self._wake = asyncio.Condition()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work; called once, in the event loop."""
        for job in self._store:
            if job.state == "running":
                self._store.change(job, state="waiting")
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._settings.workers)]

    async def stop(self) -> None:
        """End all children; what they did is begun again at the next start."""
        for task in self._tasks:
            task.cancel()
        for process in list(self._running.values()):
            _kill(process)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check_room(self) -> None:
        """See that one more job may wait.

        Raises:
            QueueFullError: if not.
        """
        waiting = sum(job.state == "waiting" for job in self._store)
        if waiting >= self._settings.waiting:
            raise QueueFullError(f"{waiting} jobs wait already. Let some end, or cancel them.")

    async def add(self, job: Job) -> Job:
        """Take a job whose folder is there."""
        job = self._store.add(job)
        await self._announce(job)
        return job

    async def again(self, job: Job) -> Job:
        """Let a job that failed or was cancelled run once more; erasing goes on where it was."""
        if job.state in ("failed", "cancelled"):
            self.check_room()
            job = self._store.change(job, state="waiting", error="", stage=None)
            await self._announce(job)
        return job

    async def cancel(self, job: Job) -> Job:
        """Stop a job that waits or runs."""
        if not job.is_over:
            job = self._store.change(job, state="cancelled", stage=None)
            if (process := self._running.get(job.id)) is not None:
                _kill(process)
            self.board.tell(job.id)
        return job

    async def remove(self, job: Job) -> None:
        """Stop and delete a job and all that builds on it."""
        for one in [*self._store.children(job), job]:
            await self.cancel(one)
            if (process := self._running.get(one.id)) is not None:
                await process.wait()
            self._store.remove(one)
            self.board.tell(one.id)

    async def _announce(self, job: Job) -> None:
        self.board.tell(job.id)
        async with self._wake:
            self._wake.notify_all()

    def _next(self) -> Job | None:
        waiting = [job for job in self._store if job.state == "waiting"]
        return min(waiting, key=lambda job: (job.kind not in _SHORT_KINDS, job.created), default=None)

    async def _work(self) -> None:
        while True:
            async with self._wake:
                await self._wake.wait_for(lambda: self._next() is not None)
                job = self._next()
                assert job is not None
                job = self._store.change(job, state="running")
            self.board.tell(job.id)
            try:
                outcome = await self._run(job)
            except Exception as error:  # a job must never stop the queue
                outcome = {"error": f"the job could not be run ({type(error).__name__}: {error})."}
            current = self._store.get(job.id)
            if current is not None and current.state == "running":
                if "result" in outcome:
                    self._store.change(current, state="done", result=outcome["result"], stage=None)
                else:
                    self._store.change(current, state="failed", error=str(outcome["error"])[:_MOST_ERROR], stage=None)
                self.board.tell(job.id)

    async def _run(self, job: Job) -> Mapping[str, Any]:
        """Run a job's child to its end; returns {"result": ...} or {"error": ...}."""
        chain = [job]
        while (parent := self._store.get(chain[-1].parent)) is not None:
            chain.append(parent)
        order = {
            "kind": job.kind,
            "request": dict(job.request),
            "folders": {one.kind: str(self._store.path(one).resolve()) for one in chain},
            "memory_mb": self._settings.job_memory_mb,
            "minutes": self._settings.job_minutes,
            "file_mb": max(1, self._store.room() // 2**20),
            "clip_frames": self._settings.clip_frames,
        }
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        if "PYTHONPATH" in environment:  # the child starts in another folder
            parts = [str(Path(part).resolve()) for part in environment["PYTHONPATH"].split(os.pathsep) if part]
            environment["PYTHONPATH"] = os.pathsep.join(parts)
        process = await asyncio.create_subprocess_exec(
            *WORKER,
            cwd=self._store.path(job),
            env=environment | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            limit=_LINE_BYTES,
        )
        self._running[job.id] = process
        try:
            current = self._store.get(job.id)
            if current is None or current.state != "running":
                return {"error": "cancelled"}  # while the child was made
            assert process.stdin is not None
            # Its input stays open: should the server die, the child sees the end of it, and ends as well.
            process.stdin.write(json.dumps(order).encode() + b"\n")
            return await asyncio.wait_for(self._followed(job.id, process), 60 * self._settings.job_minutes)
        except TimeoutError:
            return {"error": f"it took more than the {self._settings.job_minutes} minutes that a job may take."}
        finally:
            _kill(process)
            await process.wait()
            self._running.pop(job.id, None)

    async def _followed(self, name: str, process: asyncio.subprocess.Process) -> Mapping[str, Any]:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            try:
                said = json.loads(line)
                if "result" in said or "error" in said:
                    return dict(said)
                stage, done, total = said["stage"], int(said["done"]), said["total"]
                shown = (str(stage)[:40], done, None if total is None else int(total))
            except (ValueError, KeyError, TypeError):
                continue  # some library spoke where only we should
            current = self._store.get(name)
            if current is not None:
                self._store.change(replace(current, stage=shown), stage=shown)
                self.board.tell(name)
        code = await process.wait()
        if code == -signal.SIGXFSZ:
            return {"error": "there is no more room on the disk. Delete some clips and try again."}
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return {"error": "its process was stopped by the system: it took too much time or memory. Try again."}
        return {"error": f"its process ended unexpectedly (code {code}). Try again."}


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
