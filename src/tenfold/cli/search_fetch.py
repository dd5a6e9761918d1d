"""`tenfold search fetch`: a published table of trained candidates, as a file that `tenfold search ncp` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json


def fetch(
    *,
    tasks: Annotated[tuple[str, ...], Parameter(name="--task", negative=())] = (),
    files: Path | None = None,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("nas_bench_mr.parquet"),
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Fetch NAS-Bench-MR: what 2507 multi-resolution networks reach on eight tasks.

    The authors' files (BSD-2-Clause; they ask to be asked before commercial use) are pickles; they are read without
    running anything that is in them, and written as one Parquet file.

    Args:
        tasks: one of cls-50-1000, cls-50-100, cls-10-1000, cls-10c, seg, seg-4x, video, video-p; repeat it for several.
            Default: all.
        files: where the authors' files are kept, as TASK/trainval.pkl; those that are there are not fetched. Default:
            Tenfold's cache.
        out: the table to write.
        as_json: print one JSON object.
    """
    from tenfold.data.cache import cache_folder
    from tenfold.errors import UnknownNameError, UsageError
    from tenfold.search.nas_bench_mr import TASKS, fetch_nas_bench_mr, read_authors_files
    from tenfold.search.tables import write_table

    if out.suffix != ".parquet":
        raise UsageError(f"--out {out} must end in .parquet.")
    for task in tasks:
        if task not in TASKS:
            raise UnknownNameError("task of NAS-Bench-MR", task, TASKS)
    wanted = list(dict.fromkeys(tasks or TASKS))
    folder = files or cache_folder() / "nas_bench_mr"
    to_stderr(f"[dim]{len(wanted)} files of NAS-Bench-MR in {folder}[/]")
    fetch_nas_bench_mr(folder, wanted)
    table = read_authors_files(folder, wanted)
    write_table(table, out)
    if as_json:
        write_json({"table": out, "candidates": len(table.codes), "tasks": wanted})
        return
    to_stdout(f"{len(table.codes)} candidates in {out}")
    to_stderr(f"[dim]next: tenfold search ncp {out} --target {wanted[0]}[/]")
