"""`tenfold search ncp`: from a table of trained candidates to codes within a budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from tenfold.cli.bars import shown_steps
from tenfold.cli.found_recipe import search_settings, write_found_recipe
from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from tenfold.search.code_costs import CodeCosts
    from tenfold.search.ncp import NcpResult
    from tenfold.search.ncp_rounds import FoundCode
    from tenfold.search.origin import MeasuredTask
    from tenfold.search.scoring import Target
    from tenfold.search.tables import Table

_WHAT = Group("What to search", sort_key=1)
_HOW = Group("How to go about it", sort_key=2)
RESULT, PICTURE, PROPOSED = "result.json", "front.png", "proposed.json"
_SETTINGS = ("mode", "lr", "iterations", "cost_weights")
"""Options of the search that have no flag of their own."""
_UNKNOWN = "\N{EN DASH}"
_SHOWN = 10
"""Rows of the front that the screen has room for; result.json has all."""


def ncp(
    table: Annotated[Path, Parameter(group=_WHAT)],
    *,
    target: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())],
    budget: Annotated[str | None, Parameter(group=_WHAT)] = None,
    image: Annotated[str | None, Parameter(group=_WHAT)] = None,
    num_classes: Annotated[int | None, Parameter(group=_WHAT)] = None,
    in_channels: Annotated[int | None, Parameter(group=_WHAT)] = None,
    start: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())] = (),
    predictor: Annotated[str, Parameter(group=_HOW)] = "blend",
    starts: Annotated[int, Parameter(group=_HOW)] = 16,
    caution: Annotated[float | None, Parameter(group=_HOW)] = None,
    propose: Annotated[int, Parameter(group=_HOW)] = 0,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", group=_HOW, negative=())] = (),
    seed: Annotated[int, Parameter(group=_HOW)] = 0,
    out: Annotated[Path, Parameter(name=("--out", "-o"), group=_HOW)] = Path("runs/ncp"),
    as_json: Annotated[bool, Parameter(name="--json", group=_HOW, negative=())] = False,
) -> None:
    """Propagate network codes towards targets, within a budget.

    Learns from a table of trained candidates (NAS-Bench-MR, NAS-Bench-201, or one that `tenfold search measure` made),
    and looks for codes that are best at the targets. Killed, the same command goes on. Leaves result.json, the Pareto
    front as a picture, and a recipe (found.toml) that trains the found network: tenfold fit --recipe FOLDER/found.toml.

    Args:
        table: .npz or .parquet.
        target: a task of the table, such as seg, or TASK/METRIC; repeat it for several, with weights as seg=2, below
            zero where less is better.
        budget: upper limits for one image, on macs and params, such as macs=2G,params=5M.
        image: height x width by which the cost is counted, such as 128x128; default: that of the first target's task.
        num_classes: by which the cost is counted; default: likewise.
        in_channels: by which the cost is counted; default: likewise.
        start: a code to start from, its numbers with commas; or the folder of another search, such as one for another
            task, whose best code is meant; repeat it for several.
        predictor: mlp (the authors'), ensemble, gp, gp-warped, boosting, lightgbm, catboost or blend.
        starts: how many codes each round starts from.
        caution: how many deviations are taken from each estimate before it counts; 0 believes the mean, below 0 they
            are added. Default: 1, with --propose -1.
        propose: so many codes that the table lacks and that are worth measuring, in proposed.json, which
            `tenfold search measure --codes` takes.
        settings: a further option of the search: mode (continuous, winner-takes-all or both), lr, iterations,
            cost_weights; such as --set mode=continuous --set cost_weights=[0,0.1].
        seed: of predictors and starts.
        out: the folder for what is done and found.
        as_json: print one JSON object with the found codes.
    """
    from tenfold.cost import Budget
    from tenfold.search.ncp import search_ncp
    from tenfold.search.scoring import NcpConfig, Target
    from tenfold.search.tables import read_table

    opened, targets = read_table(table), [Target.parse(one) for one in target]
    config = NcpConfig(
        predictor=predictor,
        starts=starts,
        caution=(-1.0 if propose else 1.0) if caution is None else caution,
        proposals=propose,
        seed=seed,
        **search_settings(settings, _SETTINGS),
    )
    counted_by = {
        "image": None if image is None else _sides(image),
        "num_classes": num_classes,
        "in_channels": in_channels,
    }
    costs = _costs(opened, targets, {name: value for name, value in counted_by.items() if value is not None})
    with shown_steps() as tell:
        result = search_ncp(
            opened,
            targets,
            budget=Budget.parse(budget) if budget else None,
            costs=costs,
            config=config,
            starts=[_start(one, opened) for one in start] or None,
            run_dir=out,
            notice=tell,
        )
    written = _write(result, out, [one.name for one in targets], opened.measured_task(targets[0].name))
    if as_json:
        write_json({**written, "counted_by": None if costs is None else costs.to_dict(), **_plain(result)})
        return
    to_stdout(_front_table(result))
    if costs is not None:
        height, width = costs.image
        to_stderr(f"\n[dim]costs of one image of {height}x{width} pixels, {costs.num_classes} classes[/]")
    to_stderr("\n".join(f"{name:<9} {path}" for name, path in written.items()))
    if "recipe" in written:
        task = opened.measured_task(targets[0].name)
        data = "" if task is not None and task.options else " --data FOLDER"
        to_stderr(f"[dim]next: tenfold fit --recipe {written['recipe']}{data}[/]")


def _costs(table: Table, targets: Sequence[Target], given: dict[str, Any]) -> CodeCosts | None:
    """By what codes are counted: on the first target's task, but for what was given."""
    costs = table.costs_of(targets[0].name)
    if costs is None and given:
        raise UsageError(
            f"--{next(iter(given)).replace('_', '-')}: nothing is known of what a code of {table.space.name} costs. "
            "Leave it out."
        )
    return None if costs is None else replace(costs, **given)


def _sides(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not height.isdecimal() or not width.isdecimal():
        raise UsageError(f"--image {text!r} is not HEIGHTxWIDTH in pixels, such as 128x128.")
    return int(height), int(width)


def _start(text: str, table: Table) -> list[int | float]:
    """A code: its numbers, the authors' text, or the best code of another search."""
    from tenfold.models.multires_code import parse_code
    from tenfold.search.code_spaces import MULTIRES

    path = Path(text)
    if path.exists():
        path = path / RESULT if path.is_dir() else path
        try:
            return list(json.loads(path.read_text(encoding="utf-8"))["best"]["code"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--start {text}: {path} holds no result of a search ({error}).") from error
    if table.space is MULTIRES:
        return list(parse_code(text))
    try:
        return [float(part) for part in text.strip("[] ").split(",")]
    except ValueError as error:
        raise UsageError(
            f"--start {text!r} is not a code: give its numbers with commas, or the folder of another search."
        ) from error


def _plain(result: NcpResult) -> dict[str, Any]:
    return {
        "best": asdict(result.best),
        "start": asdict(result.start),
        "front": [asdict(one) for one in result.front],
        "proposed": [asdict(one) for one in result.proposed],
        "asked": result.asked,
        "seconds": result.seconds,
    }


def _write(result: NcpResult, out: Path, targets: list[str], task: MeasuredTask | None) -> dict[str, Path]:
    from tenfold.files import write_text

    files = {"result": out / RESULT, "picture": out / PICTURE}
    write_text(files["result"], json.dumps(_plain(result), indent=1) + "\n")
    _draw(result, files["picture"], " + ".join(targets))
    if result.proposed:
        files["proposed"] = out / PROPOSED
        write_text(files["proposed"], json.dumps([one.code for one in result.proposed]) + "\n")
    if result.best.architecture is not None:
        kind, options = (None, {}) if task is None else (task.kind, task.options)
        files["recipe"] = write_found_recipe(out, result.best.architecture, kind, options)
    return files


def _draw(result: NcpResult, path: Path, title: str) -> None:
    """The front: score against cost, with the best code of the table."""
    from matplotlib.figure import Figure

    from tenfold.files import written_whole

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="multiply-adds, millions", ylabel="cautious score, spreads above the mean")
    axes.set_title(f"Codes found for {title}", fontsize=11)
    for codes, style, label in (
        (result.front, {"marker": "o", "color": "#2563a8"}, "found"),
        (
            [result.start],
            {"marker": "*", "color": "#c2571a", "markersize": 12, "linestyle": "none"},
            "best of the table",
        ),
    ):
        macs = [one.costs.get("macs", 0) / 1e6 for one in codes]
        axes.plot(macs, [one.score for one in codes], label=label, **style)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with written_whole(path) as part:
        figure.savefig(part, format="png", dpi=150)


def _front_table(result: NcpResult) -> RichTable:
    from rich.table import Table as RichTable

    from tenfold.cost import format_amount

    names = list(result.best.estimates)
    shown = RichTable(box=None, pad_edge=False)
    for title in ("", *names, *(f"{name} in the table" for name in names), "Score", "MACs", "Params"):
        shown.add_column(title, justify="left" if not title else "right")

    def add(label: str, one: FoundCode) -> None:
        estimates = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in one.estimates.values()]
        measured = [f"{one.measured[name]:.2f}" if name in one.measured else _UNKNOWN for name in names]
        costs = [format_amount(one.costs[name]) if name in one.costs else _UNKNOWN for name in ("macs", "params")]
        shown.add_row(label, *estimates, *measured, f"{one.score:.2f}", *costs)

    step = -(-len(result.front) // _SHOWN)
    for one in result.front[::-1][::step][::-1]:  # the last one, the best, is always among them
        add("best" if one.code == result.best.code else "front", one)
    add("table", result.start)
    return shown
