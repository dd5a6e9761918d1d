"""From what was typed to a recipe, and from a recipe to the network, task, methods and budget that `fit` takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.cli.values import parse_like, parse_widths
from tenfold.errors import MissingDataError, UsageError
from tenfold.train.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from torch import nn

    from tenfold.cost import Budget
    from tenfold.methods import Method
    from tenfold.tasks import Task

RUN_RECIPE = "recipe.toml"
"""Where a run folder keeps the recipe that it was made by."""


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What the command line says about a training, as far as it says anything."""

    recipe: Path | None = None
    quick: bool = False
    model: str | None = None
    head: str | None = None
    task: str | None = None
    data: str | None = None
    methods: Sequence[str] = ()
    bits: str | None = None
    like: str | None = None
    budget: str | None = None
    task_options: dict[str, Any] | None = None
    train: Sequence[str] = ()
    settings: Sequence[str] = ()


def resolve_recipe(typed: Typed) -> Recipe:
    """Lay what was typed over the recipe, or over the defaults.

    Raises:
        MissingDataError: if the recipe is not there.
        UsageError: if anything is not allowed; all problems of the recipe in one message.
    """
    overrides: list[str] = []
    if typed.recipe is None or typed.task:
        overrides.append(f"task.kind={json.dumps(typed.task or 'classify')}")
    for name, value in {"data": typed.data, **(typed.task_options or {})}.items():
        if value is not None:
            overrides.append(f"task.{name}={json.dumps(value)}")
    if typed.model:
        # The whole table: options of the recipe's model mean nothing to another one.
        overrides.append(f"model={{kind = {json.dumps(typed.model)}}}")
    if typed.head:
        overrides.append(f"model.head={json.dumps(typed.head)}")
    if typed.budget:
        overrides.append(f"budget={json.dumps(typed.budget)}")
    overrides += _method_overrides(typed)
    recipe = load_recipe(typed.recipe, overrides=[*overrides, *typed.train, *typed.settings], quick=typed.quick)
    recipe = _with_one_budget(recipe, typed)
    if recipe.model is None:
        raise UsageError(
            "which network? Say --model NAME (`tenfold models` lists them) or --recipe NAME (`tenfold recipes list`)."
        )
    if recipe.task is None:
        raise UsageError("what is the network for? Say --task classify or --task segment, and --data FOLDER.")
    return recipe


def _with_one_budget(recipe: Recipe, typed: Typed) -> Recipe:
    """Let a budget on bits that was typed, --budget or --like, take the place of the recipe's of the other form."""
    parts = (recipe.budget or "").split(",")
    on_bits = [part for part in parts if part.partition("=")[0].strip() in ("bitops", "bytes")]
    if typed.like and not typed.budget and on_bits:
        return replace(recipe, budget=",".join(part for part in parts if part not in on_bits) or None)
    if typed.budget and not typed.like and on_bits and not any(".like=" in one for one in typed.settings):
        methods = (
            replace(method, options={name: value for name, value in method.options.items() if name != "like"})
            for method in recipe.methods
        )
        return replace(recipe, methods=tuple(methods))
    return recipe


def _method_overrides(typed: Typed) -> list[str]:
    if typed.methods:
        kinds = list(typed.methods)
        tables = [{"kind": kind, **options} for kind, options in zip(kinds, _bit_options(typed, kinds), strict=True)]
        return [f"methods=[{', '.join(_inline(table) for table in tables)}]"]
    if typed.bits is None and typed.like is None:
        return []
    recipe = load_recipe(typed.recipe, quick=typed.quick) if typed.recipe else None
    options = _bit_options(typed, [method.kind for method in recipe.methods] if recipe else [])
    return [f"methods.{i}.{key}={json.dumps(value)}" for i, one in enumerate(options) for key, value in one.items()]


def _bit_options(typed: Typed, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """What --bits and --like mean for each method: one width, a list of them, or the budget of a uniform network."""
    from tenfold import methods

    widths = parse_widths(typed.bits) if typed.bits else []
    like = None if typed.like is None else parse_like(typed.like)
    found: list[dict[str, Any]] = []
    for kind in kinds:
        known = methods.list_options(kind)
        if widths and "bits" in known:
            found.append({"bits": [w if w == a else [w, a] for w, a in widths]})
        elif widths and "w_bits" in known:
            if len(widths) > 1:
                raise UsageError(f"--bits {typed.bits}: the method {kind} has one bit-width. Use --method adabits.")
            found.append({"w_bits": widths[0][0], "a_bits": widths[0][1]})
        elif like is not None and "like" in known:
            found.append({"like": like})
        else:
            found.append({})
    if widths and not any("bits" in one or "w_bits" in one for one in found):
        raise UsageError(
            f"--bits {typed.bits} needs a method that is told its bits. Say --method sat, or --method adabits for "
            "several. (fracbits learns its bits: give it --budget bitops=…, or --like uniform:3.)"
        )
    if like is not None and not any("like" in one for one in found):
        raise UsageError(f"--like {typed.like} needs a method that learns its bits. Say --method fracbits.")
    return found


def _inline(table: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) + "}"


def recipe_of_run(run: Path) -> Path:
    """The recipe that a run folder was made by.

    Raises:
        MissingDataError: if there is none.
    """
    path = run / RUN_RECIPE
    if not path.is_file():
        raise MissingDataError(f"{run} holds no {RUN_RECIPE}, so it is no run that `tenfold fit` made. Check the path.")
    return path


def weights_of_run(run: Path) -> str | None:
    """The file of weights that a run started from, if it did."""
    try:
        words = [str(word) for word in json.loads((run / "config.json").read_text(encoding="utf-8"))["command"]]
    except (OSError, ValueError, KeyError):
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--weights="):
            return word.partition("=")[2]
        if word == "--weights":
            return following
    return None


def default_folder(recipe: Recipe, name: str | None) -> Path:
    """Where a run goes when nobody says: runs/ and the recipe's name, or the model's and the methods'."""
    assert recipe.model is not None
    if name is None:
        parts = [recipe.model.kind]
        for method in recipe.methods:
            told = [method.options.get(key) for key in ("w_bits", "a_bits", "like")] + method.options.get("bits", [])
            parts.append(method.kind + "".join(f"-{width}" for width in told if width is not None))
        name = "-".join(parts)
    return Path("runs") / "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def make_task(recipe: Recipe) -> Task:
    """The task of a recipe; opens its data."""
    from tenfold import tasks

    assert recipe.task is not None
    return tasks.create(recipe.task.kind, **recipe.task.options)


def make_network(recipe: Recipe, task: Task) -> nn.Module:
    """The network of a recipe, with as many outputs and input channels as the task has, for each pixel if need be.

    Its first weights are drawn by the recipe's seed, so that the same recipe starts from the same network.
    """
    import torch

    from tenfold import models

    assert recipe.model is not None
    torch.manual_seed(recipe.train.seed)
    takes = models.facts(recipe.model.kind).takes
    if takes != task.takes:
        raise UsageError(
            f"the model {recipe.model.kind!r} takes {takes}s, but the task {task.name!r} gives {task.takes}s. "
            "`tenfold models` lists all models."
        )
    if takes == "window":  # it has neither classes nor channels to choose
        return models.build(recipe.model.kind, **recipe.model.options)
    fitting = {"num_classes": task.describe()["num_outputs"], "in_channels": task.input_shape[0]}
    name, options = recipe.model.kind, {**fitting, **recipe.model.options}
    if task.per_pixel:
        name, options = models.for_pixels(name, options)
    return models.build(name, **options)


def make_methods(recipe: Recipe) -> list[Method]:
    """The methods of a recipe."""
    from tenfold import methods

    return [methods.create(choice.kind, **choice.options) for choice in recipe.methods]


def make_budget(recipe: Recipe) -> Budget | None:
    """The budget of a recipe."""
    from tenfold.cost import Budget

    return Budget.parse(recipe.budget) if recipe.budget else None
