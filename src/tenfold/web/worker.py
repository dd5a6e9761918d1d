"""The process of one job: takes an order on its input, limits itself, and says on its output how it goes.

It is started as `python -m tenfold.web.worker` in the job's folder, and ends with the server.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_SAY_EVERY = 0.1


class Reporter:
    """Says how a job goes, at most ten times a second.

    Args:
        stream: where to.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last = ("", 0.0)

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Say how far a stage is."""
        now = time.monotonic()
        if stage == self._last[0] and now - self._last[1] < _SAY_EVERY and done != total:
            return
        self._last = (stage, now)
        self.say({"stage": stage, "done": done, "total": total})

    def say(self, said: Mapping[str, Any]) -> None:
        """Write one line."""
        self._stream.write(json.dumps(said) + "\n")
        self._stream.flush()


def limit_process(memory_mb: int, minutes: int, file_mb: int) -> None:
    """Bound what this process may take, as far as the system can.

    Args:
        memory_mb: address space.
        minutes: of CPU time.
        file_mb: of one file that it writes.
    """
    try:
        import resource
    except ModuleNotFoundError:
        return  # not on this system
    limits = {
        resource.RLIMIT_AS: memory_mb * 2**20,
        resource.RLIMIT_CPU: 60 * minutes * (os.cpu_count() or 1),
        resource.RLIMIT_FSIZE: file_mb * 2**20,
        resource.RLIMIT_NOFILE: 512,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        _, most = resource.getrlimit(kind)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value if most < 0 else min(value, most),) * 2)


def _end_with_server() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Do one job."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not for the server
    reporter = Reporter(output)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_server, daemon=True).start()
    limit_process(order["memory_mb"], order["minutes"], order["file_mb"])
    from tenfold.errors import TenfoldError
    from tenfold.web.tasks import TASKS

    folders = {kind: Path(folder) for kind, folder in order["folders"].items()}
    try:
        result = TASKS[order["kind"]](order["request"], folders, order, reporter)
        reporter.say({"result": result})
    except TenfoldError as error:
        reporter.say({"error": without_places(str(error), folders)})
    except MemoryError:
        reporter.say({"error": f"it needs more than the {order['memory_mb']} MB of memory that a job may take."})
    except Exception as error:
        reporter.say({"error": f"a mistake in Tenfold, please report it: {type(error).__name__}: {error}"})
    output.close()
    os._exit(0)


def without_places(message: str, folders: Mapping[str, Path]) -> str:
    """A message in which files of the server are called what they are to people."""
    for kind, folder in folders.items():
        message = message.replace(f"{folder}{os.sep}source", "the clip").replace(str(folder), f"({kind})")
    return message


if __name__ == "__main__":
    main()
