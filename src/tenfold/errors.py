"""Every error that Tenfold raises on purpose, from general to particular.

    TenfoldError
    ├── UsageError             an argument is wrong                          (also ValueError)
    │   ├── UnknownNameError   a name that no registry knows                 (also LookupError)
    │   └── ShapeError         a tensor or image of the wrong size
    ├── DataError              data that cannot be read
    │   └── MissingDataError   a path that is not there                      (also FileNotFoundError)
    ├── ArtifactError          a file that is damaged, or not ours
    ├── BudgetError            a budget that cannot be kept
    ├── CountError             an operation whose cost is unknown            (also NotImplementedError)
    ├── TrainingError          a training that cannot go on
    │   ├── NonFiniteLossError the loss became NaN or infinite
    │   └── CheckpointError    a checkpoint that is missing or damaged
    ├── ExportError            a network that cannot be exported faithfully
    ├── StorageError           a file that could not be written              (also OSError)
    └── MissingExtraError      an optional package that is not installed     (also ImportError)

A message says what failed, the value got, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class TenfoldError(Exception):
    """The root of all errors raised on purpose."""


class UsageError(TenfoldError, ValueError):
    """An argument or option has a value that is not allowed."""


class UnknownNameError(UsageError, LookupError):
    """A name that no registry knows; offers the nearest ones.

    Args:
        kind: what the name stands for, in the singular ("model").
        name: the name got.
        choices: every name that is allowed.
        hint: where to see them all, such as a command.
    """

    def __init__(self, kind: str, name: str, choices: Iterable[str], hint: str = "") -> None:
        choices = sorted(choices)
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.4)
        message = f"unknown {kind} {name!r}."
        if near:
            message += f" Did you mean {', '.join(near)}?"
        elif 0 < len(choices) <= 12:
            message += f" Allowed: {', '.join(choices)}."
        if hint:
            message += f" {hint}"
        super().__init__(message)


class ShapeError(UsageError):
    """A tensor or an image has the wrong size."""


class DataError(TenfoldError):
    """Data that is there but cannot be read."""


class MissingDataError(DataError, FileNotFoundError):
    """A file or folder that is not there, or is empty."""


class ArtifactError(TenfoldError):
    """A file that is damaged, or was not written by Tenfold."""


class BudgetError(TenfoldError):
    """A budget that cannot be kept; the message says what can be reached."""


class CountError(TenfoldError, NotImplementedError):
    """An operation whose cost the profiler does not know."""


class TrainingError(TenfoldError):
    """A training that cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite."""


class CheckpointError(TrainingError):
    """A checkpoint that is missing, damaged, or of another run."""


class ExportError(TenfoldError):
    """A network that cannot be exported faithfully."""


class StorageError(TenfoldError, OSError):
    """A file that could not be written; what stood there before is untouched."""


class MissingExtraError(TenfoldError, ImportError):
    """An optional package that is not installed."""


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to get it.

    Args:
        package: import name, such as "onnxruntime".
        extra: the extra of Tenfold that brings it, such as "export".

    Raises:
        MissingExtraError: if the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed. Get it with: pip install 'tenfold[{extra}]'"
        ) from error
