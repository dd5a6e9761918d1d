"""`tenfold search measure`: a table of what many candidates reach on one's own tasks."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.train_flags import TrainFlags, overrides
from tenfold.cli.values import parse_settings
from tenfold.errors import UsageError, require

if TYPE_CHECKING:
    from tenfold.search import TaskOrder

_WHAT = Group("What to measure", sort_key=1)
_HOW = Group("How to go about it", sort_key=2)


def measure(
    *,
    model: Annotated[str, Parameter(group=_WHAT)] = "multires",
    vary: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())] = (),
    on: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())] = ("classify",),
    count: Annotated[int, Parameter(group=_WHAT)] = 100,
    codes: Annotated[Path | None, Parameter(group=_WHAT)] = None,
    channels: Annotated[int, Parameter(group=_WHAT)] = 128,
    counts: Annotated[int, Parameter(group=_WHAT)] = 4,
    image_size: Annotated[int | None, Parameter(group=_WHAT)] = None,
    subset: Annotated[int | None, Parameter(group=_WHAT)] = None,
    jobs: Annotated[int, Parameter(group=_HOW)] = 1,
    where: Annotated[Literal["processes", "ray"], Parameter(group=_HOW)] = "processes",
    code_seed: Annotated[int, Parameter(group=_HOW)] = 0,
    out: Annotated[Path, Parameter(name=("--out", "-o"), group=_HOW)] = Path("runs/measure"),
    resume: Annotated[bool, Parameter(group=_HOW, negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", group=_HOW, negative=())] = False,
    train: Annotated[TrainFlags | None, Parameter(name="*")] = None,
) -> None:
    """Train many candidates briefly, and keep a table of what each reached.

    Leaves table.parquet: a row for each candidate with its code, the metrics on every task, its cost, and signals from
    before and early in the training.

    Args:
        model: multires (codes of 27 numbers), or any model with options to vary.
        vary: an option and its values, such as --vary width=0.25,0.5,1; may be repeated. Not for multires.
        on: a task and its data, such as --on classify=FOLDER --on segment=FOLDER; default: classify, on the digits.
            Options of the task and of its training follow behind commas: segment=FOLDER,image_size=64,epochs=20.
        count: candidates to draw. A larger number with --resume adds to those that are there.
        codes: a JSON list of codes to measure as well, such as the proposed.json of `tenfold search ncp --propose`;
            with --resume they are added to those that are there.
        channels: largest number of channels in codes of multires, a multiple of 8.
        counts: largest number of modules, and of units of a branch, in codes of multires, 1 to 4.
        image_size: side of the networks' input in pixels.
        subset: train on so many images only.
        jobs: trainings at a time, each on one core.
        where: in processes of this machine, or as tasks of Ray; RAY_ADDRESS names its cluster.
        code_seed: of the codes.
        out: the folder.
        resume: go on with the measurement in the folder.
        as_json: print one JSON object.
        train: the options of each training.
    """
    from tenfold.search import CandidateSpace
    from tenfold.search import measure as measure_all
    from tenfold.train import load_recipe

    if model == "multires":
        if vary:
            raise UsageError("--vary does not go with --model multires, whose code varies. Leave it out.")
        space = CandidateSpace.multires(channels, counts)
    else:
        space = CandidateSpace(model=model, choices=dict(map(_choices, vary)))
    shared = {"image_size": image_size, "subset": subset}
    tasks = [_task(one, {name: value for name, value in shared.items() if value is not None}) for one in on]

    began, finished = time.perf_counter(), itertools.count(1)

    def tell(done: int, total: int, row: dict[str, Any]) -> None:
        left = round((time.perf_counter() - began) / next(finished) * (total - done))
        values = {name: value for name, value in row["values"].items() if "/" in name and not name.startswith("cost/")}
        told = row["error"] or ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
        to_stderr(f"{done}/{total}  {told}" + (f"  [dim]{timedelta(seconds=left)} left[/]" if left else ""))

    table = measure_all(
        space,
        tasks,
        count=count,
        further=_codes(codes) if codes else (),
        config=load_recipe(overrides=overrides(train)).train,
        out=out,
        where=where,
        jobs=jobs,
        seed=code_seed,
        resume=resume,
        tell=tell,
    )
    rows = require("pyarrow.parquet", "search").read_metadata(table).num_rows
    if as_json:
        write_json({"table": table, "candidates": rows})
    else:
        to_stdout(f"{rows} candidates in {table}")


def _task(text: str, shared: dict[str, Any]) -> TaskOrder:
    """Read "KIND", "KIND=DATA" or "KIND=DATA,NAME=VALUE,..."; what is no option of trainings is one of the task."""
    from tenfold.search import TaskOrder
    from tenfold.train import TrainConfig

    first, *settings = text.split(",")
    kind, _, data = first.partition("=")
    trained = {one.name for one in fields(TrainConfig)}
    options = {**shared, **({"data": data} if data else {})}
    given = parse_settings(settings, flag=f"--on {text!r}:")
    return TaskOrder(
        kind=kind,
        options=options | {name: value for name, value in given.items() if name not in trained},
        train={name: value for name, value in given.items() if name in trained},
    )


def _codes(path: Path) -> list[list[int | float]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--codes: cannot read {path}: {error}. Give a JSON list of codes.") from error
    if not isinstance(found, list) or not all(
        isinstance(code, list) and all(type(value) in (int, float) for value in code) for code in found
    ):
        raise UsageError(f"--codes: {path} is not a JSON list of codes, each a list of numbers.")
    return found


def _choices(text: str) -> tuple[str, Sequence[int | float]]:
    name, equals, values = text.partition("=")
    try:
        found = [json.loads(value) for value in values.split(",")]
    except ValueError:
        found = []
    if not (name and equals and found) or any(type(one) not in (int, float) for one in found):
        raise UsageError(f"--vary {text!r} is not allowed. Write an option and its numbers, such as width=0.25,0.5,1.")
    if len(set(found)) < len(found):
        raise UsageError(f"--vary {text!r} names a value twice; keep one of them.")
    return name, found
