"""Bars of work on frames: one for each thing that is done, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenfold.cli.output import console, is_first_process

Show = Callable[[str, int, int | None], None]
"""What is done, how many are done, and how many there are; None where that is not known."""


@contextmanager
def shown_bars(width: int) -> Iterator[Show | None]:
    """Bars on a terminal; None in a pipe.

    Args:
        width: characters for the names of what is done.
    """
    if not (is_first_process() and sys.stderr.isatty()):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"{{task.description:>{width}}}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True) as bars:
        work: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in work:
                work[what] = bars.add_task(what, total=total)
            bars.update(work[what], completed=done, total=total)

        yield show
