"""Tasks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tenfold.errors import UnknownNameError, UsageError
from tenfold.tasks.task import Task

Factory = Callable[..., Task]

_FACTORIES: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Record a function that makes a task under a lower-case name; the function stays an ordinary one.

    Raises:
        UsageError: if the name is taken, or not in lower case.
    """
    if name != name.lower() or name in _FACTORIES:
        raise UsageError(f"the task name {name!r} is taken or not in lower case; choose another.")

    def record(factory: Factory) -> Factory:
        _FACTORIES[name] = factory
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
