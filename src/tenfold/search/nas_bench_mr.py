"""The authors' files of NAS-Bench-MR: fetched from where they were published, and read without running what is in them.

They are pickles, and a pickle can name any function of any module to be called. So they are read by an unpickler that
knows no name at all: lists, dictionaries, numbers and text come through, anything else is an error.
"""

from __future__ import annotations

import pickle
import shutil
import urllib.request
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from tenfold.errors import DataError, MissingDataError
from tenfold.files import written_whole
from tenfold.search.code_spaces import MULTIRES
from tenfold.search.origin import NAS_BENCH_MR
from tenfold.search.tables import Table

TASKS = tuple(NAS_BENCH_MR.tasks)
METRICS = {"seg": ("mIoU", "mAcc", "aAcc"), "seg-4x": ("mIoU", "mAcc", "aAcc")}
_COMMIT = "5259acdf9876c3adf4b8b1133afc3ac0d1077d65"
_ADDRESS = f"https://raw.githubusercontent.com/dingmyu/NCP/{_COMMIT}/data"
_CLASSIFICATION = ("top1", "top5")
_MOST_BYTES = 100_000_000
_LARGEST = 1e300


def fetch_nas_bench_mr(folder: str | Path, tasks: Sequence[str] = TASKS) -> list[Path]:
    """Fetch the authors' files that are not in a folder yet: `TASK/trainval.pkl`.

    They are under BSD-2-Clause; their authors ask to be asked before commercial use.

    Args:
        folder: where to put them.
        tasks: which.

    Raises:
        MissingDataError: if they cannot be fetched.
        StorageError: if they cannot be written.
    """
    paths = [Path(folder) / task / "trainval.pkl" for task in tasks]
    for task, path in zip(tasks, paths, strict=True):
        if path.is_file():
            continue
        address = f"{_ADDRESS}/{task}/trainval.pkl"
        try:
            answer = urllib.request.urlopen(address, timeout=60)  # noqa: S310 - https
            with answer, written_whole(path) as part, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except URLError as error:
            raise MissingDataError(
                f"could not fetch {address}: {error.reason}. Put the file at {path} yourself, and call again."
            ) from error
    return paths


def read_authors_files(folder: str | Path, tasks: Sequence[str] = TASKS) -> Table:
    """Read the authors' files of some tasks as one table.

    Args:
        folder: holds `TASK/trainval.pkl` for each task.
        tasks: which; all must list the same codes in the same order, as the published ones do.

    Raises:
        MissingDataError: if a file is not there.
        DataError: if a file is no plain pickle, or holds something else than such a table.
        UsageError: if a code lies outside of the space.
    """
    codes: np.ndarray[Any, np.dtype[np.int64]] | None = None
    metrics: dict[str, dict[str, np.ndarray[Any, np.dtype[np.float64]]]] = {}
    costs: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for task in tasks:
        path = Path(folder) / task / "trainval.pkl"
        rows = _checked_rows(read_plain_pickle(path), path, (*METRICS.get(task, _CLASSIFICATION), "flops", "params"))
        found = MULTIRES.check([row["embedding"] for row in rows], f"{path}: code of row")
        if codes is not None and not np.array_equal(codes, found):
            raise DataError(f"{path} does not list the same codes in the same order as the file of {tasks[0]}.")
        codes = found
        metrics[task] = {
            name: np.array([row[name] for row in rows], np.float64) for name in METRICS.get(task, _CLASSIFICATION)
        }
        costs = {
            name: np.array([row[key] for row in rows], np.float64)
            for name, key in (("flops_g", "flops"), ("params_m", "params"))
        }
    if codes is None:
        raise DataError("which tasks? Name at least one.")
    return Table(space=MULTIRES, codes=codes, metrics=metrics, costs=costs, origin=NAS_BENCH_MR)


def read_plain_pickle(path: str | Path) -> Any:
    """Read a pickle that holds nothing but lists, tuples, dictionaries, sets, numbers, text and bytes.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it names a class or a function, is no pickle, or is larger than 100 MB.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"there is no file at {path}. `tenfold search fetch` gets the authors' files.")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path} has {path.stat().st_size} bytes; the authors' files have less than {_MOST_BYTES}.")
    try:
        return _PlainUnpickler(BytesIO(path.read_bytes())).load()
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle raises errors of any kind
        raise DataError(f"could not read {path} as a pickle: {type(error).__name__}: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    """Knows no name, so nothing in a file can be called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise DataError(
            f"is not plain data: it asks for {module_name}.{global_name}, which may run code. It was not read further. "
            "Only lists, dictionaries, numbers and text are allowed; get the file from where it was published."
        )

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("is not plain data: it refers to something outside of the file.")


def _checked_rows(content: Any, path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path} does not hold a list of candidates. Get it from where it was published.")
    for number, row in enumerate(content):
        missing = [name for name in (*names, "embedding") if name not in row]
        if missing:
            raise DataError(f"row {number} of {path} lacks {', '.join(missing)}; it has {', '.join(map(str, row))}.")
        bad = [name for name in names if not isinstance(row[name], int | float) or not abs(row[name]) <= _LARGEST]
        if bad:
            raise DataError(f"row {number} of {path}: {bad[0]} is {row[bad[0]]!r}, not a number.")
    return content
