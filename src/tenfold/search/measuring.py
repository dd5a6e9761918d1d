"""A benchmark of one's own: train many candidates briefly on one's tasks, and keep a table of what each reached.

One candidate is one file, written whole; so a run that was killed goes on with those that are missing, and a worker
that was lost costs its candidate's time and nothing else. What stands in the table of a folder is not measured again
either: the table and the orders beside it are all that need be kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from tenfold.errors import DataError, TenfoldError, UnknownNameError, UsageError, require
from tenfold.files import write_text
from tenfold.jobs import TRIES, Processes, RayCluster, run_jobs
from tenfold.search.candidates import CandidateSpace, code_key
from tenfold.search.origin import MeasuredTask, Origin
from tenfold.search.run_folders import claim, differences
from tenfold.search.tables import write_columns
from tenfold.tasks import registry
from tenfold.train.config import TrainConfig
from tenfold.train.interrupts import Interrupted

TABLE_FILE = "table.parquet"
ORDER_FILE, FURTHER_FILE = "measure.json", "further.json"
Where = Literal["processes", "ray"]
_LOST = f"its worker was lost {TRIES} times"
"""The error of a row that another call tries again: a machine that is gone says nothing about a candidate."""


@dataclass(frozen=True, kw_only=True)
class TaskOrder:
    """A task to measure on."""

    kind: str
    """A name of the task registry; the columns of the table begin with it."""
    options: Mapping[str, Any]
    """Options of it, among them `data`."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the training's configuration that differ on this task, such as epochs."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without an empty `train`."""
        return {name: value for name, value in asdict(self).items() if name != "train" or value}


def measure(
    space: CandidateSpace,
    tasks: Sequence[TaskOrder],
    *,
    count: int,
    further: Sequence[Sequence[int | float]] = (),
    config: TrainConfig,
    out: str | Path,
    where: Where = "processes",
    jobs: int = 1,
    seed: int = 0,
    resume: bool = False,
    tell: Any = None,
) -> Path:
    """Train candidates, each on every task, by the ordinary `fit`, and write the table.

    The table has a column for every number of the code; for each task its metrics as `TASK/METRIC`, signals as
    `TASK.SIGNAL` (before the training, and the metrics after each epoch but the last), and `cost/macs`, `cost/params`
    on the first task. What could not be measured is NaN, and the column `error` says why.

    Args:
        space: where codes are drawn from.
        tasks: of different kinds.
        count: candidates to draw.
        further: codes to measure as well, such as those that `search_ncp` proposed; the folder keeps them, and another
            call adds to them.
        config: of every training, where a task has no other.
        out: folder of the run: `candidates/` with a file for each that is done, and the table.
        where: in processes of this machine, or as tasks of a Ray cluster that this process may join.
        jobs: trainings at a time on this machine; Ray decides by itself.
        seed: of the codes.
        resume: go on with the run in `out`.
        tell: called with (done, count, row) after each candidate.

    Returns:
        The path of the table; a run that is stopped leaves one of what is done.

    Raises:
        UsageError: if an argument does not fit, or `out` holds a run of other arguments.
        UnknownNameError: if a task, or an option of one, does not exist.
        MissingExtraError: if pyarrow, or Ray where it is asked for, is not installed.
        DataError: if no candidate could be measured.
        CheckpointError: if what says how `out` was measured is damaged.
    """
    require("pyarrow", "search")
    if where == "ray":
        require("ray", "ray")
    kinds = [task.kind for task in tasks]
    if not kinds or len(set(kinds)) < len(kinds):
        raise UsageError(f"tasks are {', '.join(kinds) or 'none'}; name at least one, and each once.")
    if count < 1 or jobs < 1:
        raise UsageError(f"count is {count} and jobs is {jobs}; allowed are whole numbers from 1.")
    codes, folder = space.draw(count, seed), Path(out)
    given = [space.check(code) for code in further]
    origin = Origin(candidates=space, tasks={task.kind: _measured_task(task) for task in tasks})
    for task in tasks:
        _config_of(task, config)
    _open_folder(folder, space, tasks, config, seed, resume=resume)
    codes = _with_further(folder, space, codes, given)
    tabled = _tabled_rows(folder / TABLE_FILE, list(codes[0]))
    done = {}
    for at, code in enumerate(codes):
        row = _read_row(_row_file(folder, code), code) or tabled.get(tuple(code_key(code)))
        if row is not None and row["error"] != _LOST:
            done[at] = row
    orders = {at: (space, code, list(tasks), config) for at, code in enumerate(codes) if at not in done}
    try:
        for at, result in run_jobs(measure_one, orders, RayCluster() if where == "ray" else Processes(jobs)):
            row = result or {"code": code_key(codes[at]), "values": {}, "error": _LOST}
            write_text(_row_file(folder, codes[at]), json.dumps(row) + "\n")
            done[at] = row
            if tell is not None:
                tell(len(done), len(codes), row)
    finally:  # a run that is stopped leaves a table of what is done
        rows = [(codes[at], done[at]) for at in sorted(done)]
        has_values = any(row["values"] for _, row in rows)
        if has_values:
            write_columns(_columns(rows), folder / TABLE_FILE, origin)
    if not has_values:
        raise DataError(f"no candidate could be measured. The first said: {rows[0][1]['error']}")
    return folder / TABLE_FILE


def _measured_task(order: TaskOrder) -> MeasuredTask:
    task = registry.create(order.kind, **order.options)  # says what is wrong before any worker starts
    channels, height, width = task.input_shape
    return MeasuredTask(
        kind=order.kind,
        options=order.options,
        image=(height, width),
        in_channels=channels,
        num_classes=task.describe()["num_outputs"],
        per_pixel=task.per_pixel,
    )


def _config_of(order: TaskOrder, config: TrainConfig) -> TrainConfig:
    known = [one.name for one in fields(config)]
    for name in order.train:
        if name not in known:
            raise UnknownNameError("option of a training", name, known)
    return replace(config, **order.train)


def _row_file(folder: Path, code: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(code_key(code)).encode()).hexdigest()[:16]
    return folder / "candidates" / f"{name}.json"


def _with_further(
    folder: Path, space: CandidateSpace, drawn: list[dict[str, int | float]], given: list[dict[str, int | float]]
) -> list[dict[str, int | float]]:
    """The candidates of a folder: those drawn, those given before, and those given now, each once."""
    path = folder / FURTHER_FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        given = [*(space.check(code) for code in kept), *given]
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise UsageError(f"{path} is damaged: {error} Delete it, and give the codes again.") from error
    kept = list({tuple(code.values()): code for code in given}.values())
    if kept:
        write_text(path, json.dumps([list(code.values()) for code in kept]) + "\n")
    return list({tuple(code.values()): code for code in (*drawn, *kept)}.values())


def _open_folder(
    folder: Path, space: CandidateSpace, tasks: Sequence[TaskOrder], config: TrainConfig, seed: int, *, resume: bool
) -> None:
    """Write down what is measured, or see that it is what the folder was made for. More candidates may be asked for."""
    order = {
        "model": space.model,
        "choices": {name: list(values) for name, values in space.choices.items()},
        "tasks": [task.to_dict() for task in tasks],
        "train": config.to_dict(),
        "seed": seed,
    }
    path = folder / ORDER_FILE
    if path.exists() and not resume:
        raise UsageError(
            f"{folder} already holds a measurement. Go on with it by resume (--resume), or choose another."
        )
    if differing := differences(path, order):
        raise UsageError(
            f"{folder} holds a measurement with other {', '.join(differing)}: {path.name} has them. Rows that were "
            "measured differently cannot be compared; use the same, or another folder."
        )
    claim(path, order)


def _read_row(path: Path, code: Mapping[str, Any]) -> dict[str, Any] | None:
    """A finished candidate; None if it is missing, damaged, or another one, and so to be measured again."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return row if row["code"] == code_key(code) and isinstance(row["values"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tabled_rows(path: Path, names: Sequence[str]) -> dict[tuple[float, ...], dict[str, Any]]:
    """The rows of a table that was written before, by their codes; none if it is missing or damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
        found = {}
        for row in rows:
            code, error = [float(row.pop(name)) for name in names], row.pop("error")
            values = {name: value for name, value in row.items() if math.isfinite(value)}
            found[tuple(code)] = {"code": code, "values": values, "error": error}
        return found
    except (OSError, pyarrow.ArrowException, KeyError, TypeError):
        return {}


def measure_one(
    space: CandidateSpace, code: Mapping[str, int | float], tasks: Sequence[TaskOrder], config: TrainConfig
) -> dict[str, Any]:
    """Train one candidate on every task; what a worker does.

    Returns:
        `code`, `values` by column, and `error`: "" or what went wrong.
    """
    import torch

    torch.set_num_threads(1)  # the others have the other cores
    values: dict[str, float] = {}
    errors = []
    for number, order in enumerate(tasks):
        try:
            values |= _measure_on(space, code, order, config, with_cost=number == 0)
        except Interrupted:
            raise
        except TenfoldError as error:
            errors.append(f"{order.kind}: {error}")  # such as a loss that became NaN: that, too, is a result
        except Exception as error:  # one candidate's failure is no reason to end the others
            errors.append(f"{order.kind}: {type(error).__name__}: {error}")
    return {"code": code_key(code), "values": values, "error": "; ".join(errors)}


def _measure_on(
    space: CandidateSpace, code: Mapping[str, int | float], order: TaskOrder, config: TrainConfig, *, with_cost: bool
) -> dict[str, float]:
    import torch

    from tenfold import tasks
    from tenfold.cost import profile
    from tenfold.models import build
    from tenfold.search.signals import zero_cost_signals
    from tenfold.train import fit

    config, task = _config_of(order, config), tasks.create(order.kind, **order.options)
    architecture = space.architecture(code, per_pixel=task.per_pixel)
    torch.manual_seed(config.seed)
    network = build(architecture, num_classes=task.describe()["num_outputs"], in_channels=task.input_shape[0])
    counted = profile(network, task.example())
    found: dict[str, float] = {"cost/macs": counted.macs, "cost/params": counted.params} if with_cost else {}
    batch = next(iter(task.train_batches(epoch=0, batch_size=config.batch_size, seed=config.seed)))
    found |= {f"{order.kind}.{name}": value for name, value in zero_cost_signals(network, task, *batch).items()}
    with tempfile.TemporaryDirectory() as folder:
        result = fit(network, task, config=config, run_dir=Path(folder) / "run", quiet=True)
        curves = result.report["curves"]
    for row in curves[:-1]:
        for name in ("train_loss", task.main_metric):
            if name in row:  # not every epoch need be evaluated
                found[f"{order.kind}.{name}_{row['epoch']:.0f}"] = math.nan if row[name] is None else row[name]
    first = {task.main_metric: result.metrics[task.main_metric]}
    found |= {f"{order.kind}/{name}": value for name, value in {**first, **result.metrics}.items() if name != "loss"}
    return found


def _columns(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """A row for each code and what was measured of it."""
    names = dict.fromkeys(name for _, row in rows for name in row["values"])
    columns: dict[str, list[Any]] = {name: [code[name] for code, _ in rows] for name in rows[0][0]}
    columns |= {name: [float(row["values"].get(name, math.nan)) for _, row in rows] for name in names}
    columns["error"] = [row["error"] for _, row in rows]
    return columns
