"""Tasks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tenfold.errors import UnknownNameError, UsageError
from tenfold.tasks.task import Task

Factory = Callable[..., Task]
SomeFactory = TypeVar("SomeFactory", bound=Factory)
Reopen = Callable[[Mapping[str, Any], str | Path | None], Task]
"""From what `Task.describe` gave and where the data is now to a task for evaluation."""

_FACTORIES: dict[str, Factory] = {}
_REOPEN: dict[str, Reopen] = {}


def register(name: str, *, reopen: Reopen) -> Callable[[SomeFactory], SomeFactory]:
    """Record a function that makes a task under a lower-case name; the function stays an ordinary one.

    Args:
        name: what users call the task.
        reopen: makes the task again from its description.

    Raises:
        UsageError: if the name is taken, or not in lower case.
    """
    if name != name.lower() or name in _FACTORIES:
        raise UsageError(f"the task name {name!r} is taken or not in lower case; choose another.")

    def record(factory: SomeFactory) -> SomeFactory:
        _FACTORIES[name], _REOPEN[name] = factory, reopen
        return factory

    return record


def list_tasks() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted(_FACTORIES)


def create(name: str, **options: Any) -> Task:
    """Make a task by name.

    Args:
        name: one of `list_tasks()`.
        options: what the task's function takes; see `tenfold.tasks.classify`.

    Raises:
        UnknownNameError: if the task or an option is not known; the message suggests the nearest.
    """
    if name not in _FACTORIES:
        raise UnknownNameError("task", name, _FACTORIES)
    factory = _FACTORIES[name]
    allowed = inspect.signature(factory).parameters
    for option in options:
        if option not in allowed:
            raise UnknownNameError(f"option of the task {name!r}", option, allowed)
    return factory(**options)


def reopen(described: Mapping[str, Any], data: str | Path | None) -> Task:
    """The task that a network learned, on some data; images are prepared as they were then.

    Args:
        described: what `Task.describe` gave.
        data: where the images are; see the task's function.

    Raises:
        UnknownNameError: if the task is not known.
        DataError: if the data is missing, damaged, or laid out in another way.
    """
    name = str(described.get("task"))
    if name not in _REOPEN:
        raise UnknownNameError("task", name, _REOPEN)
    return _REOPEN[name](described, data)
