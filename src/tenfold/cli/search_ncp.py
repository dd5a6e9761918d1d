"""`tenfold search ncp`: from a table of trained candidates to codes within a budget."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from tenfold.search.ncp import NcpResult
    from tenfold.search.ncp_rounds import FoundCode

_WHAT = Group("What to search", sort_key=1)
_HOW = Group("How to go about it", sort_key=2)
RESULT, PICTURE, PROPOSED = "result.json", "front.png", "proposed.json"
_UNKNOWN = "\N{EN DASH}"
_SHOWN = 10
"""Rows of the front that the screen has room for; result.json has all."""


def ncp(
    table: Annotated[Path, Parameter(group=_WHAT)],
    *,
    target: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())],
    budget: Annotated[str | None, Parameter(group=_WHAT)] = None,
    image: Annotated[str, Parameter(group=_WHAT)] = "128x128",
    num_classes: Annotated[int, Parameter(group=_WHAT)] = 50,
    start: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())] = (),
    predictor: Annotated[str, Parameter(group=_HOW)] = "blend",
    starts: Annotated[int, Parameter(group=_HOW)] = 16,
    caution: Annotated[float | None, Parameter(group=_HOW)] = None,
    propose: Annotated[int, Parameter(group=_HOW)] = 0,
    seed: Annotated[int, Parameter(group=_HOW)] = 0,
    out: Annotated[Path, Parameter(name=("--out", "-o"), group=_HOW)] = Path("runs/ncp"),
    as_json: Annotated[bool, Parameter(name="--json", group=_HOW, negative=())] = False,
) -> None:
    """Propagate network codes towards targets, within a budget.

    Learns from a table of trained candidates (NAS-Bench-MR, NAS-Bench-201, or one that `tenfold search measure` made),
    and looks for codes that are best at the targets. Killed, the same command goes on. Leaves result.json and the
    Pareto front as a picture; the found code trains by `tenfold fit --model multires --set model.code=[…]`.

    Args:
        table: .npz or .parquet.
        target: a task of the table, such as seg, or TASK/METRIC; repeat it for several, with weights as seg=2.
        budget: upper limits for one image, on macs and params, such as macs=2G,params=5M.
        image: height x width by which the cost is counted.
        num_classes: by which the cost is counted.
        start: a code to start from, its numbers with commas; repeat it for several.
        predictor: mlp (the authors'), ensemble, gp, gp-warped, boosting, lightgbm, catboost or blend.
        starts: how many codes each round starts from.
        caution: how many deviations are taken from each estimate before it counts; 0 believes the mean, below 0 they
            are added. Default: 1, with --propose -1.
        propose: so many codes that the table lacks and that are worth measuring, in proposed.json, which
            `tenfold search measure --codes` takes.
        seed: of predictors and starts.
        out: the folder for what is done and found.
        as_json: print one JSON object with the found codes.
    """
    import numpy as np
    from rich.text import Text

    from tenfold.cost import Budget
    from tenfold.search.code_costs import CodeCosts
    from tenfold.search.ncp import search_ncp
    from tenfold.search.scoring import NcpConfig, Target
    from tenfold.search.tables import read_table

    result = search_ncp(
        read_table(table),
        [Target.parse(one) for one in target],
        budget=Budget.parse(budget) if budget else None,
        costs=CodeCosts(image=_sides(image), num_classes=num_classes),
        config=NcpConfig(
            predictor=predictor,
            starts=starts,
            caution=(-1.0 if propose else 1.0) if caution is None else caution,
            proposals=propose,
            seed=seed,
        ),
        starts=np.array([_numbers(one) for one in start]) if start else None,
        run_dir=out,
        notice=lambda text: to_stderr(f"[dim]{text}[/]"),
    )
    written = _write(result, out, [Target.parse(one).name for one in target])
    if as_json:
        write_json({**written, **_plain(result)})
        return
    to_stdout(_front_table(result))
    code = ",".join(map(str, result.best.code))
    to_stderr("\n" + "\n".join(f"{name:<9} {path}" for name, path in written.items()))
    if result.best.costs:
        to_stderr(Text(f"next: tenfold fit --model multires --set 'model.code=[{code}]' --data FOLDER"))


def _sides(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not height.isdecimal() or not width.isdecimal():
        raise UsageError(f"--image {text!r} is not HEIGHTxWIDTH in pixels, such as 128x128.")
    return int(height), int(width)


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.strip("[] ").split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--start {text!r} is not a code: give its whole numbers with commas.")
    return [int(part) for part in parts]


def _plain(result: NcpResult) -> dict[str, Any]:
    return {
        "best": asdict(result.best),
        "start": asdict(result.start),
        "front": [asdict(one) for one in result.front],
        "proposed": [asdict(one) for one in result.proposed],
        "asked": result.asked,
        "seconds": result.seconds,
    }


def _write(result: NcpResult, out: Path, targets: list[str]) -> dict[str, Path]:
    import json

    from tenfold.files import write_text

    files = {"result": out / RESULT, "picture": out / PICTURE}
    write_text(files["result"], json.dumps(_plain(result), indent=1) + "\n")
    _draw(result, files["picture"], " + ".join(targets))
    if result.proposed:
        files["proposed"] = out / PROPOSED
        write_text(files["proposed"], json.dumps([one.code for one in result.proposed]) + "\n")
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


def _front_table(result: NcpResult) -> Table:
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
