"""Recipes: what to train, on what, by which methods, for which budget, and how; as a file and as a dataclass.

This is the border at which text becomes typed values, and the only place that uses pydantic.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tenfold.errors import MissingDataError, UsageError
from tenfold.files import write_text
from tenfold.train.config import TrainConfig, broken_rules


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several kinds, with its options: in a file, a table with a `kind`."""

    kind: str
    """A name that the registry of its kind knows."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments for it; the registry checks them."""

    def to_dict(self) -> dict[str, Any]:
        """The table."""
        return {"kind": self.kind, **self.options}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that `fit` needs to be told."""

    model: Choice | None = None
    """The network: a name of the model registry and its options."""
    task: Choice | None = None
    """What it is for: a name of the task registry and its options, among them `data`."""
    methods: tuple[Choice, ...] = ()
    """What happens to the network while it trains, in this order."""
    budget: str | None = None
    """What it may cost, such as "macs=50M,bytes=300k"."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it trains."""

    def to_dict(self) -> dict[str, Any]:
        """The tables of the file, everything resolved; what is not set is left out."""
        tables: dict[str, Any] = {
            "budget": self.budget,
            "model": self.model and self.model.to_dict(),
            "task": self.task and self.task.to_dict(),
            "methods": [method.to_dict() for method in self.methods],
            "train": {name: value for name, value in self.train.to_dict().items() if value is not None},
        }
        return {name: value for name, value in tables.items() if value not in (None, [])}


@dataclass(kw_only=True)
class _File:
    """The tables of a file, as pydantic checks them."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    budget: str | None = None
    model: dict[str, Any] | None = None
    task: dict[str, Any] | None = None
    methods: list[dict[str, Any]] = field(default_factory=list)
    train: dict[str, Any] = field(default_factory=dict)


_FILE: TypeAdapter[_File] = TypeAdapter(_File)
_TRAIN: TypeAdapter[TrainConfig] = TypeAdapter(TrainConfig, config=None)


def load_recipe(path: str | Path | None = None, *, overrides: Sequence[str] = (), quick: bool = False) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file, or JSON with the same tables; None starts from the defaults. It may name one other file that
            it `extends`, and may have a table `quick` with changes for a run of less than a minute.
        overrides: changes such as "train.lr=0.1", "methods.0.w_bits=3" or "budget=bytes=300k", applied last. The value
            is read as TOML, and as plain text if it is none.
        quick: whether to apply the table `quick`.

    Raises:
        MissingDataError: if a file is not there.
        UsageError: if a file is not TOML, or anything in it is unknown or not allowed; all problems in one message.
    """
    tables: dict[str, Any] = {} if path is None else _read_extended(Path(path))
    changes = tables.pop("quick", {})
    if quick:
        if not isinstance(changes, dict) or not changes:
            raise UsageError(f"{path} has no quick mode: it lacks a table [quick] with the changes for it.")
        tables = _merged(tables, changes)
    problems: list[str] = []
    for override in overrides:
        _apply(override, tables, problems)
    recipe = _validated(tables, problems)
    if problems or recipe is None:
        where = "this recipe" if path is None else str(path)
        raise UsageError(f"{where} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
    return recipe


def write_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe with everything resolved, as TOML or, where the name ends in .json, as JSON.

    Raises:
        StorageError: if it could not be written.
    """
    tables = recipe.to_dict()
    as_json = Path(path).suffix == ".json"
    write_text(path, json.dumps(tables, indent=2) + "\n" if as_json else _toml(tables))


def _read_extended(path: Path) -> dict[str, Any]:
    tables = _read(path)
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    base = _read(path.parent / str(parent))
    if "extends" in base:
        raise UsageError(f"{path} extends {parent}, which extends another file; only one step is allowed.")
    return _merged(base, tables)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no recipe {path}. `tenfold recipes` lists those that come along.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the recipe {path}: {error}") from error
    try:
        tables = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # both decoders' errors derive from it
        raise UsageError(f"{path} is not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    if not isinstance(tables, dict):
        raise UsageError(f"{path} must hold tables (model, task, methods, train), not a {type(tables).__name__}.")
    return tables


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; a table of another kind, and everything that is no table, is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind"):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _apply(override: str, tables: dict[str, Any], problems: list[str]) -> None:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        problems.append(f"override {override!r}: must look like train.epochs=3")
        return
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    place: Any = tables
    for key in keys[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else _item(place, key)
    if isinstance(place, dict):
        place[keys[-1]] = value
    elif isinstance(place, list) and _item(place, keys[-1]) is not None:
        place[int(keys[-1])] = value
    else:
        problems.append(f"override {override!r}: there is nothing at {'.'.join(keys[:-1])} to set it in")


def _item(place: Any, key: str) -> Any:
    return place[int(key)] if isinstance(place, list) and key.isdigit() and int(key) < len(place) else None


def _validated(tables: Mapping[str, Any], problems: list[str]) -> Recipe | None:
    """Check everything; add what is wrong to `problems` and return None if there is something."""
    file = _checked(_FILE, tables, _File, "", problems)
    train = tables.get("train", {})
    config = _checked(_TRAIN, train, TrainConfig, "train.", problems) if isinstance(train, dict) else None
    choices: dict[str, Choice] = {}
    named = {"model": tables.get("model"), "task": tables.get("task")}
    methods = tables.get("methods", [])
    named |= {f"methods.{i}": method for i, method in enumerate(methods if isinstance(methods, list) else [])}
    for name, table in named.items():
        if not isinstance(table, dict):
            continue  # absent, or reported above
        kind = table.get("kind")
        if isinstance(kind, str):
            choices[name] = Choice(kind=kind, options={k: v for k, v in table.items() if k != "kind"})
        else:
            problems.append(f'{name}.kind = {kind!r}: must be a name, such as kind = "…"')
    if file is None or config is None or problems:
        return None
    return Recipe(
        model=choices.get("model"),
        task=choices.get("task"),
        methods=tuple(choices[f"methods.{i}"] for i in range(len(methods))),
        budget=file.budget,
        train=config,
    )


def _checked(adapter: TypeAdapter[Any], values: Mapping[str, Any], kind: type, prefix: str, problems: list[str]) -> Any:
    known = [one.name for one in fields(kind)]
    reported = set()
    try:
        # By way of JSON, where a list may stand for a tuple while everything else stays strict ("3" is not 3).
        result = adapter.validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        result = None
        for one in error.errors(include_url=False):
            if one["type"] == "value_error":
                continue  # ranges, which are checked below, field by field
            name = str(one["loc"][0])
            reported.add(name)
            path = prefix + ".".join(str(part) for part in one["loc"])
            problems.append(_problem(path, name, one, known))
    if kind is TrainConfig:
        for name in values.keys() - set(known) - reported:
            problems.append(_problem(prefix + name, name, {"type": "unexpected_keyword_argument"}, known))
        ranges = broken_rules({name: value for name, value in values.items() if name not in reported})
        problems.extend(prefix + line for line in ranges)
    return result


def _problem(path: str, name: str, error: Mapping[str, Any], known: Sequence[str]) -> str:
    if error["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        return f"{path}: unknown key. " + (
            f"Did you mean {', '.join(near)}?" if near else f"Allowed: {', '.join(known)}."
        )
    allowed = error["msg"].removeprefix("Input should be ")
    return f"{path} = {error['input']!r}: must be {allowed}"


def _toml(tables: Mapping[str, Any]) -> str:
    """TOML of plain values, tables and lists of tables, nested no deeper than a recipe."""
    lines = [f"{key} = {_value(value)}" for key, value in tables.items() if not _is_table(value)]
    for key, value in tables.items():
        if not _is_table(value):
            continue
        head = f"[{key}]" if isinstance(value, dict) else f"[[{key}]]"
        for table in [value] if isinstance(value, dict) else value:
            lines += ["", head, *(f"{name} = {_value(item)}" for name, item in table.items() if item is not None)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and value != [] and isinstance(value[0], dict))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's too.
    return json.dumps(value)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
