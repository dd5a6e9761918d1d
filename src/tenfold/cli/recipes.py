"""`tenfold recipes`: whole trainings in one file each, found where the package keeps them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

import tenfold
from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.errors import MissingDataError, UnknownNameError, UsageError

app = App(
    name="recipes",
    help="List, show or copy the recipes: whole trainings in one file.",
    help_format="plaintext",
    result_action="return_value",
)

_SUFFIX = ".toml"


def recipe_folder() -> Path:
    """The folder with the recipes: inside the installed package, or beside it in a source tree.

    Raises:
        MissingDataError: if there is none.
    """
    package = Path(tenfold.__file__).resolve().parent
    for folder in (package / "_recipes", package.parents[1] / "recipes"):
        if folder.is_dir():
            return folder
    raise MissingDataError("the recipes did not come along with this installation. Install tenfold again.")


def list_recipes() -> dict[str, Path]:
    """All recipes by name: the path below the folder, without its suffix."""
    folder = recipe_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob(f"*{_SUFFIX}"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe, by its name or its own path.

    Raises:
        MissingDataError: if it is a path that is not there.
        UnknownNameError: if it is a name that is not known.
    """
    if name.endswith((_SUFFIX, ".json")) or "/" in name:
        path = Path(name)
        if path.is_file():
            return path
        if name not in list_recipes():
            raise MissingDataError(
                f"there is no recipe file {name}. `tenfold recipes list` shows those that come along."
            )
    known = list_recipes()
    if name not in known:
        raise UnknownNameError("recipe", name, known, hint="`tenfold recipes list` shows all.")
    return known[name]


def summary(path: Path) -> str:
    """What a recipe does: the first line of its opening comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip()


@app.command(name="list")
def list_all(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List the recipes that come along.

    Args:
        as_json: print one JSON object.
    """
    found = list_recipes()
    if as_json:
        write_json({"recipes": [{"name": n, "summary": summary(p), "path": str(p)} for n, p in found.items()]})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("Name", style="bold", no_wrap=True)
    table.add_column("What it does", style="dim")
    for name, path in found.items():
        table.add_row(name, summary(path))
    to_stdout(table)
    to_stderr(
        "\n[dim]`tenfold recipes show NAME` prints one, `tenfold fit --recipe NAME` runs it, "
        "`--quick` tries it out in a minute.[/]"
    )


app.default(list_all)


@app.command
def show(name: str, /) -> None:
    """Print a recipe, with the comment that says how to run it and what to expect.

    Args:
        name: its name, or a path.
    """
    text = find_recipe(name).read_text(encoding="utf-8")
    if not sys.stdout.isatty():
        sys.stdout.write(text)  # as it is, so that it may become a file
        return
    from rich.syntax import Syntax

    to_stdout(Syntax(text, "toml", theme="ansi_dark", background_color="default", word_wrap=True))


@app.command
def copy(name: str, to: Path | None = None, /) -> None:
    """Copy a recipe, to change it.

    Args:
        name: its name.
        to: the file to write; default: one of the same name here.
    """
    source = find_recipe(name)
    target = to or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError(
            f"{target} is there already. Remove it, or give another name: tenfold recipes copy {name} FILE"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    to_stderr(f"Copied to [bold]{target}[/]. Run it: tenfold fit --recipe {target}")
    to_stdout(str(target))
