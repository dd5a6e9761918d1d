"""Where words and results go: people read stderr, programs read stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

JSON_VERSION = 1
"""Grows when a key of an object that `--json` prints changes its meaning or goes away."""

# A pipe has no width; tables made for a file should not be cut at 80 columns.
_PIPE_WIDTH = 120


def console(stream: IO[str]) -> Console:
    """A rich console on a stream: colours on a terminal, plain text in a pipe."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False)


def stdout_width() -> int:
    """Columns that a result may take."""
    return console(sys.stdout).width


def to_stderr(*renderables: RenderableType) -> None:
    """Words for people; strings may hold rich markup."""
    if is_first_process():
        console(sys.stderr).print(*renderables)


def to_stdout(*renderables: RenderableType) -> None:
    """A result, drawn for people."""
    if is_first_process():
        console(sys.stdout).print(*renderables)


def write_json(result: Mapping[str, Any]) -> None:
    """A result for programs: one object with the key "version" first. NaN and infinity become null."""
    if is_first_process():
        json.dump({"version": JSON_VERSION, **plain(result)}, sys.stdout, indent=2, allow_nan=False, ensure_ascii=False)
        sys.stdout.write("\n")
        sys.stdout.flush()


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    # Numbers of numpy and torch know how to become Python's.
    return plain(value.item()) if hasattr(value, "item") else str(value) if isinstance(value, Path) else repr(value)


def is_first_process() -> bool:
    """Whether this process speaks: of those that torchrun started, only the first does."""
    import os

    return os.environ.get("RANK", "0") == "0"
