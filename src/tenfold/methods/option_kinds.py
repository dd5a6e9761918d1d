"""Whether the options of a method are of the kinds that its fields declare."""

from __future__ import annotations

import math
import typing
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any

from tenfold.errors import UsageError

_TOLD = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", tuple: "a list"}


def check_kinds(method: Any) -> None:
    """Check every option whose field is a flag, a number, a text or a list, or nothing; choices check themselves.

    Args:
        method: an instance of a dataclass.

    Raises:
        UsageError: naming the option, the value got, and what is allowed.
    """
    for name, kinds in _kinds_of(type(method)).items():
        value = getattr(method, name)
        if not any(_is(value, kind) for kind in kinds):
            allowed = " or ".join(_TOLD[kind] for kind in kinds if kind is not NoneType)
            left_out = ", or be left out" if NoneType in kinds else ""
            raise UsageError(f"{name} of {method.name} must be {allowed}{left_out}; got {value!r}.")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, list | tuple) if kind is tuple else isinstance(value, kind)


def _kinds_of(method: type) -> dict[str, tuple[type, ...]]:
    """The kinds that each option may have; options with choices, or of other kinds, are missing."""
    try:
        hints = typing.get_type_hints(method)
    except NameError:  # a user's class, with names that are known inside of a function, or to type checkers only
        return {}
    found = {}
    for option in fields(method):
        hint = hints[option.name]
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
        kinds = tuple(typing.get_origin(part) or part for part in parts)
        if option.init and all(kind is NoneType or kind in _TOLD for kind in kinds):
            found[option.name] = kinds
    return found
