"""What long work shows on a terminal: a bar for each thing that is counted, or the step that it is at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenfold.cli.output import console, is_first_process, to_stderr

Show = Callable[[str, int, int | None], None]
"""What is done, how many are done, and how many there are; None where that is not known."""


@contextmanager
def shown_bars(width: int) -> Iterator[Show | None]:
    """Bars on a terminal; None in a pipe.

    Args:
        width: characters for the names of what is done.
    """
    if not _on_terminal():
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


@contextmanager
def shown_steps() -> Iterator[Callable[[str], None]]:
    """Tell the step that work is at: on a terminal one line with the seconds so far, in a pipe a line for each."""
    if not _on_terminal():
        yield lambda text: to_stderr(f"[dim]{text}[/]")
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        transient=True,
    ) as line:
        task = line.add_task("starting", total=None)
        yield lambda text: line.update(task, description=text)


def _on_terminal() -> bool:
    return is_first_process() and sys.stderr.isatty()
