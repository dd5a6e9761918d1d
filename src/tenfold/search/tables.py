"""Tables of trained candidates: codes, and what each reached on one task or several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import DataError, MissingDataError, UnknownNameError, UsageError, require
from tenfold.files import written_whole
from tenfold.models import Architecture
from tenfold.search.candidates import CandidateSpace
from tenfold.search.code_costs import CodeCosts
from tenfold.search.code_spaces import MULTIRES, NAS_BENCH_201, Codes, CodeSpace
from tenfold.search.origin import NAS_BENCH_MR, MeasuredTask, Origin

Array = NDArray[np.float64]
OFFICIAL_SEED = 233
_VALIDATION_SHARE = 0.2
_ORIGIN = "tenfold.origin"
"""The entry of a Parquet file that says where its rows come from."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is known of a number of candidates.

    Raises:
        DataError: if codes repeat or metrics do not fit.
        UsageError: if a code lies outside of the space.
    """

    space: CodeSpace
    """Where the codes come from."""
    codes: Codes
    """(N, L)."""
    metrics: Mapping[str, Mapping[str, Array]]
    """Task -> metric -> values (N,); NaN where a candidate was not measured on the task. The first metric of a task is
    its main one."""
    costs: Mapping[str, Array] = field(default_factory=dict)
    """Cost -> values (N,), as the table states them."""
    origin: Origin | None = None
    """What the codes stand for and what the tasks were, where the table says it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", self.space.check(self.codes, "code of row"))
        kept, times = np.unique(self.codes, axis=0, return_counts=True)
        if (times > 1).any():
            code = ", ".join(map(str, self.space.write(kept[int(times.argmax())])))
            raise DataError(f"the code {code} is there {times.max()} times. Keep one row of each.")
        for task, columns in self.metrics.items():
            for metric, values in columns.items():
                _check_column(f"{task}/{metric}", values, len(self.codes))
            missing = np.isnan(np.stack(list(columns.values())))
            if (missing.any(0) & ~missing.all(0)).any():
                row = int((missing.any(0) & ~missing.all(0)).argmax())
                raise DataError(
                    f"row {row} of the table has only some of the metrics of {task} ({', '.join(columns)}). "
                    "A candidate that was measured needs all of them; leave all empty for one that was not."
                )
            if missing.all():
                raise DataError(f"the table has no candidate that was measured on {task}. Remove its columns.")

    def main_metric(self, task: str) -> str:
        """The first metric of a task.

        Raises:
            UnknownNameError: if the table has no such task.
        """
        return next(iter(self._columns(task)))

    def column(self, target: str) -> Array:
        """The values (N,) of a target: a task's main metric ("seg"), or any ("seg/mAcc").

        Raises:
            UnknownNameError: if the table has no such task or metric.
        """
        task, slash, metric = target.partition("/")
        columns = self._columns(task)
        if slash and metric not in columns:
            raise UnknownNameError(f"metric of {task}", metric, columns, hint=f"It has: {', '.join(columns)}.")
        return columns[metric or next(iter(columns))]

    def rows(self, task: str, among: Sequence[int] | NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """Indices of the candidates that were measured on a task, of all or among some, in their order."""
        chosen = np.arange(len(self.codes)) if among is None else np.asarray(among, np.int64)
        return chosen[~np.isnan(self.column(task.partition("/")[0])[chosen])]

    def measured_task(self, target: str) -> MeasuredTask | None:
        """What is known of the task of a target; None where the table does not say it."""
        task = target.partition("/")[0]
        self._columns(task)
        return None if self.origin is None else self.origin.tasks.get(task)

    def costs_of(self, target: str) -> CodeCosts | None:
        """How codes are counted on the task of a target; None where nothing is known of their costs.

        Raises:
            UnknownNameError: if the table has no such task.
        """
        task = self.measured_task(target)
        if task is not None and self.origin is not None:
            return CodeCosts.on(task, self.origin)
        return CodeCosts() if self.space is MULTIRES else None

    def architecture(self, code: Sequence[int], *, per_pixel: bool) -> Architecture | None:
        """The network of a code; None where nothing is known of it but the code."""
        if self.origin is None and self.space is not MULTIRES:
            return None
        origin = self.origin or Origin(candidates=CandidateSpace.multires(), tasks={})
        return origin.architecture(self.space.write(code), per_pixel=per_pixel)

    def _columns(self, task: str) -> Mapping[str, Array]:
        if task not in self.metrics:
            raise UnknownNameError("target", task, self.metrics, hint=f"The table has: {', '.join(self.metrics)}.")
        return self.metrics[task]


def official_split(count: int, seed: int = OFFICIAL_SEED) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation rows as the authors' program draws them.

    Source: arXiv 2103.13253, official code (ncp.md section 5).

    Args:
        count: rows of the table.
        seed: of numpy's legacy generator.

    Returns:
        Indices of 80 % and of 20 % of the rows.
    """
    order = np.random.RandomState(seed).permutation(count)
    held = int(np.ceil(count * _VALIDATION_SHARE))
    return order[held:].astype(np.int64), order[:held].astype(np.int64)


def read_table(path: str | Path) -> Table:
    """Read a table from .npz or .parquet.

    Three forms are known. NAS-Bench-MR: `codes` (N, 27) and columns named `TASK/METRIC`, as `.npz`. NAS-Bench-201:
    `ops` (N, 6), `acc`, `flops_m`, `params_m`, as `.npz`. Parquet: one column for each number of a code and columns
    named `TASK/METRIC`; codes are those of the multi-resolution network, unless the file says what they stand for, as
    those of `tenfold.search.measure` do.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it cannot be read, lacks columns, or holds values that are no codes or no metrics.
        MissingExtraError: if a Parquet file is given and pyarrow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(
            f"there is no table at {path}. Give a .npz or .parquet file, one that `tenfold search measure` made or "
            "that `tenfold search fetch` fetched."
        )
    try:
        if path.suffix == ".parquet":
            return _from_columns(*_read_parquet(path))
        if path.suffix != ".npz":
            raise DataError("its name must end in .npz or .parquet. Pickles are not read.")
        return _from_columns(_read_npz(path), None)
    except (DataError, UsageError) as error:
        raise DataError(f"the table {path} cannot be used: {error}") from error


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy raises errors of many kinds on a damaged file, or one with pickled objects
        # What numpy says of pickles is advice to run them.
        why = "it holds pickled objects" if "pickle" in str(error) else str(error)
        raise DataError(f"{why}. Only plain arrays are read.") from error


def write_table(table: Table, path: str | Path) -> None:
    """Write a table as Parquet, whole or not at all: the numbers of the codes, then `TASK/METRIC`.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        StorageError: if it could not be written.
    """
    written = np.array([table.space.write(code) for code in table.codes])
    columns: dict[str, NDArray[np.generic]] = {name: written[:, at] for at, name in enumerate(table.space.names)}
    columns |= {f"{task}/{metric}": v for task, found in table.metrics.items() for metric, v in found.items()}
    columns |= {f"cost/{name}": values for name, values in table.costs.items()}
    write_columns(columns, path, table.origin)


def write_columns(columns: Mapping[str, Any], path: str | Path, origin: Origin | None) -> None:
    """Write columns as Parquet, whole or not at all, and with them where they come from.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        StorageError: if it could not be written.
    """
    require("pyarrow", "search")
    import pyarrow
    import pyarrow.parquet

    told = {} if origin is None else {_ORIGIN: json.dumps(origin.to_dict(), default=str)}
    with written_whole(path) as part:
        pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(told), part, compression="zstd")


def _read_parquet(path: Path) -> tuple[dict[str, NDArray[np.generic]], Origin | None]:
    require("pyarrow", "search")
    import pyarrow.parquet

    try:
        read = pyarrow.parquet.read_table(path)
        columns = {name: read.column(name).to_numpy() for name in read.column_names}
        told = (read.schema.metadata or {}).get(_ORIGIN.encode())
        origin = None if told is None else json.loads(told)
    except Exception as error:  # pyarrow raises errors of many kinds on a damaged file
        raise DataError(f"could not read the table: {error}") from error
    return columns, None if origin is None else Origin.from_dict(origin)


def _from_columns(columns: Mapping[str, NDArray[np.generic]], origin: Origin | None) -> Table:
    if "ops" in columns:
        _demand(columns, ("acc",))
        costs = {name: _numbers(columns[name], name) for name in ("flops_m", "params_m") if name in columns}
        accuracy = {"imagenet16-120": {"top1": _numbers(columns["acc"], "acc")}}
        return Table(space=NAS_BENCH_201, codes=_whole(columns["ops"]), metrics=accuracy, costs=costs)
    metrics: dict[str, dict[str, Array]] = {}
    costs = {}
    for name, values in columns.items():
        task, slash, metric = name.partition("/")
        if slash and task == "cost":
            costs[metric] = _numbers(values, name)
        elif slash:
            metrics.setdefault(task, {})[metric] = _numbers(values, name)
        elif name in ("flops_g", "params_m"):
            costs[name] = _numbers(values, name)
    if not metrics:
        raise DataError(f"it has no column named TASK/METRIC, such as seg/mIoU. It has: {', '.join(columns)}.")
    space: CodeSpace
    if "codes" in columns:
        codes = _whole(columns["codes"])
        space = NAS_BENCH_201 if codes.ndim == 2 and codes.shape[1] == len(NAS_BENCH_201.names) else MULTIRES
    else:
        known = (one for one in (NAS_BENCH_201, MULTIRES) if one.names[-1] in columns)
        space = next(known, MULTIRES) if origin is None else origin.space
        _demand(columns, space.names)
        codes = space.read(np.stack([_numbers(columns[name], name) for name in space.names], 1), "the code of row")
    if origin is None and space is MULTIRES and metrics.keys() <= NAS_BENCH_MR.tasks.keys():
        origin = NAS_BENCH_MR
    return Table(space=space, codes=codes, metrics=metrics, costs=costs, origin=origin)


def _demand(columns: Mapping[str, object], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DataError(
            f"it lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. It has: {', '.join(columns)}."
        )


def _whole(codes: NDArray[np.generic]) -> Codes:
    """Codes as whole numbers; NaN and text are refused before they become some number."""
    if codes.dtype.kind not in "iuf" or not np.isfinite(codes.astype(np.float64)).all():
        raise DataError("it holds codes that are no numbers, or are NaN. A code is whole numbers.")
    return codes  # type: ignore[return-value]


def _numbers(values: NDArray[np.generic], name: str) -> Array:
    if values.dtype.kind not in "iuf":
        raise DataError(f"column {name} holds {values.dtype}, not numbers.")
    return values.astype(np.float64)


def _check_column(name: str, values: Array, count: int) -> None:
    if values.shape != (count,):
        raise DataError(f"column {name} has shape {values.shape}; there are {count} codes.")
    if np.isinf(values).any():
        raise DataError(f"column {name} holds infinity in row {int(np.isinf(values).argmax())}.")
