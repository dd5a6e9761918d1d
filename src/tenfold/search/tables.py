"""Tables of trained candidates: codes, and what each reached on one task or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import DataError, MissingDataError, UnknownNameError, require
from tenfold.files import written_whole
from tenfold.search.code_spaces import MULTIRES, NAS_BENCH_201, Codes, CodeSpace

Array = NDArray[np.float64]
OFFICIAL_SEED = 233
_VALIDATION_SHARE = 0.2


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
    """Task -> metric -> values (N,), higher is better; NaN where a candidate was not measured on the task. The first
    metric of a task is its main one."""
    costs: Mapping[str, Array] = field(default_factory=dict)
    """Cost -> values (N,), as the table states them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", self.space.check(self.codes, "code of row"))
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
    `ops` (N, 6), `acc`, `flops_m`, `params_m`, as `.npz`. Parquet: one column for each of the 27 numbers of a code and
    columns named `TASK/METRIC`.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it cannot be read, lacks columns, or holds values that are no metrics.
        MissingExtraError: if a Parquet file is given and pyarrow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(
            f"there is no table at {path}. Give a .npz or .parquet file; docs/ncp.md says how to get NAS-Bench-MR."
        )
    if path.suffix == ".parquet":
        return _from_columns(_parquet_columns(path), path)
    if path.suffix != ".npz":
        raise DataError(f"{path} is no table: its name must end in .npz or .parquet. Pickles are not read.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy raises errors of many kinds on a damaged file, or one with pickled objects
        raise DataError(f"could not read the table {path}: {error} Only plain arrays are read.") from error
    return _from_columns(columns, path)


def write_table(table: Table, path: str | Path) -> None:
    """Write a table as Parquet, whole or not at all: the numbers of the codes, then `TASK/METRIC`.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        StorageError: if it could not be written.
    """
    require("pyarrow", "search")
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, NDArray[np.generic]] = {name: table.codes[:, at] for at, name in enumerate(table.space.names)}
    columns |= {f"{task}/{metric}": v for task, found in table.metrics.items() for metric, v in found.items()}
    columns |= {f"cost/{name}": values for name, values in table.costs.items()}
    with written_whole(path) as part:
        made = pyarrow.table(columns).replace_schema_metadata({"space": table.space.name})
        pyarrow.parquet.write_table(made, part, compression="zstd")


def _parquet_columns(path: Path) -> dict[str, NDArray[np.generic]]:
    require("pyarrow", "search")
    import pyarrow.parquet

    try:
        read = pyarrow.parquet.read_table(path)
        return {name: read.column(name).to_numpy() for name in read.column_names}
    except Exception as error:  # pyarrow raises errors of many kinds on a damaged file
        raise DataError(f"could not read the table {path}: {error}") from error


def _from_columns(columns: Mapping[str, NDArray[np.generic]], path: Path) -> Table:
    if "ops" in columns:
        _demand(columns, ("acc",), path)
        costs = {name: _numbers(columns[name], name, path) for name in ("flops_m", "params_m") if name in columns}
        accuracy = {"imagenet16-120": {"top1": _numbers(columns["acc"], "acc", path)}}
        return Table(space=NAS_BENCH_201, codes=_whole(columns["ops"], path), metrics=accuracy, costs=costs)
    if "codes" in columns:
        codes = columns["codes"]
    else:
        names = next((space.names for space in (NAS_BENCH_201, MULTIRES) if space.names[-1] in columns), MULTIRES.names)
        _demand(columns, names, path)
        codes = np.stack([columns[name] for name in names], 1)
    space = NAS_BENCH_201 if codes.ndim == 2 and codes.shape[1] == len(NAS_BENCH_201.names) else MULTIRES
    metrics: dict[str, dict[str, Array]] = {}
    costs = {}
    for name, values in columns.items():
        task, slash, metric = name.partition("/")
        if slash and task == "cost":
            costs[metric] = _numbers(values, name, path)
        elif slash:
            metrics.setdefault(task, {})[metric] = _numbers(values, name, path)
        elif name in ("flops_g", "params_m"):
            costs[name] = _numbers(values, name, path)
    if not metrics:
        raise DataError(
            f"the table {path} has no column named TASK/METRIC, such as seg/mIoU. It has: {', '.join(columns)}."
        )
    return Table(space=space, codes=_whole(codes, path), metrics=metrics, costs=costs)


def _demand(columns: Mapping[str, object], names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DataError(
            f"the table {path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
            f"It has: {', '.join(columns)}."
        )


def _whole(codes: NDArray[np.generic], path: Path) -> Codes:
    """Codes as whole numbers; NaN and text are refused before they become some number."""
    if codes.dtype.kind not in "iuf" or not np.isfinite(codes.astype(np.float64)).all():
        raise DataError(f"the table {path} holds codes that are no numbers, or are NaN. A code is whole numbers.")
    return codes  # type: ignore[return-value]


def _numbers(values: NDArray[np.generic], name: str, path: Path) -> Array:
    if values.dtype.kind not in "iuf":
        raise DataError(f"column {name} of the table {path} holds {values.dtype}, not numbers.")
    return values.astype(np.float64)


def _check_column(name: str, values: Array, count: int) -> None:
    if values.shape != (count,):
        raise DataError(f"column {name} of the table has shape {values.shape}; there are {count} codes.")
    if np.isinf(values).any():
        raise DataError(f"column {name} of the table holds infinity in row {int(np.isinf(values).argmax())}.")
