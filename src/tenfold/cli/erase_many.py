"""`tenfold erase` for many clips: each is one job; none is dropped, none is done twice."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.cli.bars import shown_bars
from tenfold.cli.erase_order import EraseOrder, EraseStopped
from tenfold.cli.failures import FAILED
from tenfold.cli.output import plain, to_stderr, write_json
from tenfold.errors import TenfoldError, UsageError
from tenfold.jobs import TRIES, Processes, RayCluster, run_jobs

_RECORDS = ".erased"
"""Folder among the results with a file for each that is whole: what it was made from, and the report."""
_OF_THE_MACHINE = ("StorageError", "MemoryError")
"""Failures that may not come again when other jobs are done, or on another machine."""


def erase_many(
    clips: Sequence[Path], folder: Path, order: EraseOrder, where: Processes | RayCluster, *, as_json: bool
) -> int:
    """Erase in many clips, and tell what became of each.

    Args:
        clips: files, or folders of pictures.
        folder: for the results, each named as its clip.
        order: for every clip; its own are clip, out, and masks and tracks out of folders of them.
        where: in processes, or on Ray.
        as_json: also write one JSON object.

    Returns:
        The exit code.

    Raises:
        UsageError: if two clips have one name, or `folder` is a file.
        EraseStopped: if it was asked to stop.
    """
    from tenfold.processor import usable_cpus

    threads = 1
    if isinstance(where, Processes):
        threads = max(1, int(usable_cpus() // where.count))
    orders = {clip: (_order_for(clip, folder, order), threads) for clip in clips}
    _check_names(orders, folder)
    rows: dict[Path, dict[str, Any]] = {}
    try:
        with shown_bars(5) as show, _interrupted_by_sigterm():
            for clip, row in _outcomes(orders, where):
                rows[clip] = row
                if show is not None:
                    show("clips", len(rows), len(orders))
    except KeyboardInterrupt as error:
        raise EraseStopped(
            f"erasing was stopped; {len(rows)} of {len(orders)} clips were looked at. What is filled is kept, and "
            "following begins anew; give the same command again to go on."
        ) from error
    told = [{"clip": clip, "out": orders[clip][0].out, **rows[clip]} for clip in orders]
    states = Counter(row["state"] for row in told)
    if as_json:
        write_json({"out": folder, **{state: states[state] for state in ("done", "kept", "failed")}, "clips": told})
    _tell(told, states, folder)
    return FAILED if states["failed"] else 0


def _outcomes(
    orders: Mapping[Path, tuple[EraseOrder, int]], where: Processes | RayCluster
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What became of each clip; those whose machine ran out of disk or memory are tried once more, after the others."""
    again: dict[Path, tuple[EraseOrder, int]] = {}
    for clip, row in run_jobs(erase_one, orders, where):
        if row is not None and row.get("error", {}).get("type") in _OF_THE_MACHINE:
            again[clip] = orders[clip]
        else:
            yield clip, row or _lost(where)
    if again:
        for clip, row in run_jobs(erase_one, again, where):
            yield clip, row or _lost(where)


def _lost(where: Processes | RayCluster) -> dict[str, Any]:
    advice = "Try it again with fewer --jobs"
    if isinstance(where, RayCluster):
        advice = "See that the cluster's machines have the memory for it (`ray status`), and try it again"
    return _failed(
        f"the process that worked on it was lost {TRIES} times, killed for want of memory perhaps. {advice}; what is "
        "filled is kept."
    )


def erase_one(order: EraseOrder, threads: int) -> dict[str, Any]:
    """Erase in one clip, unless that was done before; what a worker does.

    Returns:
        `state`: "done", "kept" from a run before, or "failed"; with `error`, else with the report.
    """
    from tenfold.video.erase_work import stamp
    from tenfold.video.threads import limit_threads

    limit_threads(threads)
    record = order.out.parent / _RECORDS / f"{order.out.name}.json"
    try:
        asked = order.asked()
        kept = _kept(record)
        if order.resume and kept.get("asked") == asked and kept.get("result") == stamp(order.out):
            return {"state": "kept", **kept["report"]}
        report = plain(order.carry_out(threads=threads).to_dict())
        _keep(record, {"asked": asked, "result": stamp(order.out), "report": report})
    except TenfoldError as error:
        return _failed(str(error), type(error).__name__)
    except MemoryError:
        return _failed("there was not enough memory for it. Lower --memory-mb, or try it alone.", "MemoryError")
    except Exception as error:  # one clip must not take the others with it
        message = f"a mistake in Tenfold, please report it: {type(error).__name__}: {error}"
        return _failed(message, type(error).__name__)
    return {"state": "done", **report}


def _failed(message: str, kind: str = "LostWorker") -> dict[str, Any]:
    return {"state": "failed", "error": {"type": kind, "message": message}}


def _kept(record: Path) -> dict[str, Any]:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # not done, or not known to be
    return kept if isinstance(kept, dict) else {}


def _keep(record: Path, facts: dict[str, Any]) -> None:
    from tenfold.files import write_text

    write_text(record, json.dumps(facts) + "\n")


def _order_for(clip: Path, folder: Path, order: EraseOrder) -> EraseOrder:
    from tenfold.data.video_writing import MUXERS

    if clip.is_dir():
        name, ending = clip.name, ""
    else:
        name, ending = clip.stem, clip.suffix if clip.suffix.lower() in MUXERS else ".mp4"
    what = replace(order.what, masks=_of_clip(order.what.masks, name), tracks=_of_clip(order.what.tracks, name))
    return replace(order, clip=clip, out=folder / f"{name}{ending}", what=what).with_whole_paths()


def _of_clip(place: Path | None, name: str) -> Path | None:
    """What a folder holds under the name of a clip; a file is for all clips."""
    if place is None or not place.is_dir():
        return place
    found = (entry for entry in sorted(place.iterdir()) if name in (entry.name, entry.stem))
    return next(found, place / name)


def _check_names(orders: dict[Path, tuple[EraseOrder, int]], folder: Path) -> None:
    from tenfold.files import check_keeps

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; the results of many clips need a folder.")
    first: dict[Path, Path] = {}
    for clip, (order, _) in orders.items():
        check_keeps(order.out, [clip])
        other = first.setdefault(order.out, clip)
        if other != clip:
            raise UsageError(
                f"{other} and {clip} would both become {order.out.name}. Rename one, or give them to two commands with "
                "an --out each."
            )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _tell(rows: Sequence[dict[str, Any]], states: Counter[str], folder: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("Clip", overflow="fold")
    for heading in ("", "Frames", "Copied", "Made up", "Seconds"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    outcomes = {"done": "[green]done[/]", "kept": "[dim]done before[/]", "failed": "[red]failed[/]"}
    for row in rows:
        numbers = ["", "", "", ""]
        if row["state"] != "failed":
            shares = [f"{row[name]:.1%}" if row["hole_pixels"] else "" for name in ("copied_share", "invented_share")]
            numbers = [str(row["frames"]), *shares, f"{row['seconds']:.1f}"]
        table.add_row(Text(str(row["clip"])), outcomes[row["state"]], *numbers)
    to_stderr(table)
    for row in rows:
        if row["state"] == "failed":
            to_stderr(Text.assemble((str(row["clip"]), "bold red"), f": {row['error']['message']}"))
    kept = f", {states['kept']} of them before" if states["kept"] else ""
    failed = f", [red]{states['failed']} failed[/]" if states["failed"] else ""
    to_stderr(f"[bold]{states['done'] + states['kept']}[/] of {len(rows)} clips done{kept}{failed}", Text(str(folder)))
