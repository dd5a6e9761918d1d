"""`tenfold search autospace`: evolve a space of cells, and find a network in it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from tenfold.cli.found_recipe import search_settings, write_found_recipe
from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.train_flags import TrainFlags, overrides
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from tenfold.search import AutoSpace
    from tenfold.train import TrainConfig

_WHAT = Group("What to search", sort_key=1)
_HOW = Group("How to go about it", sort_key=2)


def autospace(
    *,
    data: Annotated[str | None, Parameter(group=_WHAT)] = None,
    task: Annotated[str, Parameter(group=_WHAT)] = "classify",
    budget: Annotated[str | None, Parameter(group=_WHAT)] = None,
    skeleton: Annotated[Literal["tiny", "small", "imagenet"], Parameter(group=_WHAT)] = "tiny",
    head: Annotated[Literal["lraspp", "multires"], Parameter(group=_WHAT)] = "lraspp",
    space: Annotated[str, Parameter(group=_WHAT)] = "evolve",
    image_size: Annotated[int | None, Parameter(group=_WHAT)] = None,
    subset: Annotated[int | None, Parameter(group=_WHAT)] = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", group=_HOW, negative=())] = (),
    out: Annotated[Path, Parameter(name=("--out", "-o"), group=_HOW)] = Path("runs/autospace"),
    resume: Annotated[bool, Parameter(group=_HOW, negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", group=_HOW, negative=())] = False,
    train: Annotated[TrainFlags | None, Parameter(name="*")] = None,
) -> None:
    """Evolve a space of cells and find a network in it that keeps a budget.

    Leaves a run folder with the report (cells drawn), the learned space (space.json), and a recipe (found.toml) that
    trains the found network from the start: tenfold fit --recipe FOLDER/found.toml.

    Args:
        data: a folder of images, torchvision:NAME, or a folder inside TENFOLD_DATA; default: the embedded digits.
        task: what the network is for: classify, or segment, where it gets a head.
        budget: upper limits for one image, on macs and params, such as macs=20M,params=200k.
        skeleton: widths, numbers and strides of the blocks: tiny (32x32 images), small or imagenet.
        head: for segment: lraspp (light) or multires (all feature maps).
        space: evolve one; hand-made (inverted residuals with kernels 3, 5, 7 and expansions 3, 6); published (the
            authors', for the skeleton imagenet); or the folder of a search that has evolved one.
        image_size: side of the network's input in pixels; for segment its short side.
        subset: train on so many images only.
        settings: an option of the search, such as --set rounds=20 --set kept=6; see docs/autospace.md.
        out: the run folder.
        resume: go on with the search in the run folder; all else must be as it was.
        as_json: print one JSON object with the found architecture, costs and files.
        train: the options of the supernet's training.
    """
    from tenfold.cli.preparation import prepare_for_training

    prepare_for_training()
    from tenfold import tasks
    from tenfold.cost import Budget
    from tenfold.search import search_autospace

    options = {"data": data, "image_size": image_size, "subset": subset}
    options = {name: value for name, value in options.items() if value is not None}
    opened = tasks.create(task, **options)
    limits = Budget.parse(budget) if budget else None
    config = _config(train)
    method = _method(space, settings)
    found = search_autospace(
        opened, limits, method=method, skeleton=skeleton, head=head, config=config, run_dir=out, resume=resume
    )
    recipe = write_found_recipe(out, found.architecture, opened.name, options, budget)
    files = {"run": out, "recipe": recipe, "report": out / "report.html", "artifact": found.result.artifact}
    chosen = found.result.report["found"][method.name]["chosen"]
    if as_json:
        cost = found.result.report["cost"]["after"]
        write_json({**files, "architecture": found.architecture.to_dict(), "cost": cost, "space": found.space})
        return
    to_stdout(_cells_table(chosen))
    to_stderr(f"\nreport    {files['report']}\n[dim]next: tenfold fit --recipe {recipe}[/]")


def _config(train: object | None) -> TrainConfig:
    from tenfold.train import load_recipe

    return load_recipe(overrides=overrides(train)).train


def _method(space: str, given: tuple[str, ...]) -> AutoSpace:
    from tenfold.search import AutoSpace, read_space

    settings = search_settings(given, [one.name for one in fields(AutoSpace) if one.init and one.name != "space"])
    if space == "evolve":
        return AutoSpace(**settings)
    if "rounds" in settings:
        raise UsageError(f"--set rounds={settings['rounds']} does not go with --space {space}: nothing is evolved.")
    if space == "hand-made":
        return AutoSpace(**settings, rounds=0)
    return AutoSpace(**settings, space=read_space(space))


def _cells_table(chosen: dict[str, Any]) -> Table:
    from rich.table import Table

    from tenfold.cost import format_amount

    title = f"{format_amount(chosen['macs'])} multiply-adds, {format_amount(chosen['params'])} parameters"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("Block")
    table.add_column("Cell")
    for heading in ("Probability", "Offered"):
        table.add_column(heading, justify="right")
    rows = zip(chosen["genes"], chosen["probabilities"], chosen["offered"], strict=True)
    for number, (gene, share, offered) in enumerate(rows, 1):
        table.add_row(str(number), gene, f"{share:.0%}", str(offered))
    return table
