"""What a search leaves for `tenfold fit`: its options checked by name, and the recipe that trains what was found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.cli.values import parse_settings

if TYPE_CHECKING:
    from tenfold.models import Architecture

FOUND_RECIPE = "found.toml"
"""The recipe in a search's folder that trains what was found."""
_OF_THE_TASK = {"num_classes", "in_channels"}
"""Options of networks that `fit` gives by itself."""


def search_settings(settings: Sequence[str], known: Collection[str]) -> dict[str, Any]:
    """Options of a search that have no flag of their own, from "NAME=VALUE".

    Raises:
        UnknownNameError: if the search has no such option.
    """
    from tenfold.errors import UnknownNameError

    found = parse_settings(settings)
    for name in found:
        if name not in known:
            raise UnknownNameError("option of the search", name, known)
    return found


def write_found_recipe(
    folder: Path,
    architecture: Architecture,
    task: str | None,
    options: Mapping[str, Any],
    budget: str | None = None,
) -> Path:
    """Write how the found network is trained from the start.

    Args:
        folder: of the search.
        architecture: of the network.
        task: what it is for, a name of the task registry; None where that is not known.
        options: of the task.
        budget: that it keeps.
    """
    from tenfold.train.recipe import Choice, Recipe, write_recipe

    shape = {name: value for name, value in architecture.to_dict()["options"].items() if name not in _OF_THE_TASK}
    recipe = Recipe(
        model=Choice(kind=architecture.name, options=shape),
        task=None if task is None else Choice(kind=task, options=dict(options)),
        budget=budget,
    )
    write_recipe(recipe, folder / FOUND_RECIPE)
    return folder / FOUND_RECIPE
