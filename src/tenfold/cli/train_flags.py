"""The options of `TrainConfig` as command-line options: the same names, the same words, nothing kept by hand."""

from __future__ import annotations

import inspect
import json
import re
import typing
from dataclasses import Field, field, fields, make_dataclass
from functools import cache
from typing import Annotated, Any

from cyclopts import Group, Parameter

from tenfold.train.config import TrainConfig

_GROUP = Group("Training (defaults apply where a recipe says nothing)", sort_key=5)


def overrides(flags: object | None) -> list[str]:
    """What was typed, as the overrides that `load_recipe` takes: "train.epochs=3"."""
    if flags is None:
        return []
    typed = {one.name: getattr(flags, one.name) for one in fields(flags)}  # type: ignore[arg-type]
    return [f"train.{name}={json.dumps(value)}" for name, value in typed.items() if value is not None]


@cache
def _help_texts() -> dict[str, str]:
    """The docstring under each field; Python does not keep them, so they are read from the source."""
    try:
        source = inspect.getsource(TrainConfig)
    except OSError:  # an installation without sources
        return {}
    found = re.findall(r'^    (\w+): [^\n]+\n    """(.*?)"""', source, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def _flag(option: Field[Any], kind: Any) -> tuple[str, Any, Any]:
    """The same option, but None where it is not typed."""
    default = option.default
    words = {True: "on", False: "off"}
    shown = "" if default in (None, ()) else f" [default: {words[default] if isinstance(default, bool) else default}]"
    is_list = typing.get_origin(kind) is tuple
    parameter = Parameter(
        help=_help_texts().get(option.name, "") + shown,
        group=_GROUP,
        show_default=False,
        negative=() if is_list else None,
    )
    return option.name, Annotated[kind | None, parameter], field(default=None)


def _make() -> type:
    kinds = typing.get_type_hints(TrainConfig)
    flags = [_flag(option, kinds[option.name]) for option in fields(TrainConfig)]
    made = make_dataclass("TrainFlags", flags, frozen=True, kw_only=True)
    made.__module__ = __name__  # classes of the standard library are no options to cyclopts, and it would count as one
    return made


TrainFlags: Any = _make()
"""A dataclass with the fields of `TrainConfig`, each None until it is typed."""
