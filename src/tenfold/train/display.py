"""What a person sees while a network trains: a live bar, and a table that grows by a row an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

# What a table leaves out first where the terminal is narrow; the files of the run have it all.
_DISPENSABLE = ("data", "lr", "time", "train loss")
# Columns at their widest, so that later rows do not need more room than the first.
_LEAST_WIDTHS = {"lr": 8, "train loss": 10, "eval loss": 9, "time": 8, "data": 4}
_GAP = 2
_LEAST_BAR = 8


class Display:
    """Speaks to the standard error stream; without a terminal there is no bar, only a line an epoch.

    Args:
        metric: name of the metric to show.
        shown: False says nothing at all.
    """

    def __init__(self, *, metric: str, shown: bool = True) -> None:
        self._metric = metric
        self._console = Console(stderr=True, quiet=not shown, highlight=False)
        self._epochs = 0
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._head: list[str] = []
        self._widths: dict[str, int] = {}
        self._status: Mapping[str, str] = {}

    @contextmanager
    def live(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> Iterator[None]:
        """Show a bar for the time of the block, if there is a terminal to show it on.

        Args:
            epochs: epochs in all.
            steps_per_epoch: steps in one epoch.
            first_step: steps done in an earlier life of the run.
        """
        self._epochs = epochs
        if not self._console.is_terminal or self._console.quiet:
            yield
            return
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True, expand=True) as self._progress:
            total = epochs * steps_per_epoch
            self._bar = self._progress.add_task("starting", total=total, completed=first_step, facts="")
            try:
                yield
            finally:
                self._progress.update(self._bar, visible=False)
        self._progress = None

    def step(
        self,
        *,
        step: int,
        epoch: int,
        loss: float,
        lr: float,
        data_share: float,
        status: Mapping[str, str] | None = None,
    ) -> None:
        """Show a finished step.

        Args:
            step: steps done in all.
            epoch: number of the epoch under way, from 1.
            loss: mean loss of the epoch so far.
            lr: learning rate.
            data_share: part of the epoch's time that went into waiting for data, 0 to 1.
            status: what methods have to show, as short texts by name; None: what they showed last.
        """
        if self._progress is None:
            return
        self._status = self._status if status is None else status
        description = f"epoch {epoch}/{self._epochs}"
        total = f"{self._progress.tasks[0].total or 0:.0f}"
        # Beside the facts: the epoch, a bar, the steps done and in all, the time left, and a space between each.
        room = self._console.width - len(description) - _LEAST_BAR - (2 * len(total) + 1) - len("0:00:00") - 4
        facts = {"loss": f"{loss:.4f}", **self._status, "lr": f"{lr:.2e}", "data": f"{data_share:.0%}"}
        # The cost against its budget stands last in a method's status, and matters most of it.
        shown = _fitting(facts, ["loss", *reversed(list(self._status)), "lr", "data"], room)
        self._progress.update(self._bar, completed=step, description=description, facts=shown)

    def phase(self, name: str) -> None:
        """Show what happens now, when it is not a step."""
        if self._progress is not None:
            self._progress.update(self._bar, description=name, refresh=True)

    def epoch(self, row: Mapping[str, float], status: Mapping[str, str] | None = None) -> None:
        """Add the row of a finished epoch.

        Args:
            row: "epoch" (from 1), "lr", "train_loss", "seconds" and "data_seconds"; if it was evaluated, "eval_loss"
                and the metric.
            status: what methods have to show, as short texts by name.
        """

        def evaluated(name: str) -> str:
            return f"{row[name]:.4f}" if name in row else ""

        cells = {
            "epoch": f"{row['epoch']:.0f}/{self._epochs}",
            "lr": f"{row['lr']:.2e}",
            "train loss": f"{row['train_loss']:.4f}",
            "eval loss": evaluated("eval_loss"),
            self._metric: evaluated(self._metric),
            "time": f"{row['seconds']:.1f} s",
            "data": f"{row['data_seconds'] / max(row['seconds'], 1e-9):.0%}",
            **(status or {}),
        }
        self._status = status or {}
        if not self._console.is_terminal:
            self.note(", ".join(f"{name} {cell}" for name, cell in cells.items() if cell))
            return
        for name, cell in cells.items():
            least = 2 * len(f"{self._epochs}") + 1 if name == "epoch" else _LEAST_WIDTHS.get(name, 0)
            self._widths[name] = max(self._widths.get(name, least), len(name), len(cell))
        shown = self._columns(cells)
        if shown != self._head:
            self._print_line({name: name for name in shown}, "bold")
            self._head = shown
        self._print_line({name: cells[name] for name in shown})

    def _columns(self, names: Iterable[str]) -> list[str]:
        """The columns that the terminal has room for."""
        shown = list(names)
        for name in _DISPENSABLE:
            if sum(self._widths[one] + _GAP for one in shown) - _GAP > self._console.width and name in shown:
                shown.remove(name)
        return shown

    def _print_line(self, cells: Mapping[str, str], style: str = "") -> None:
        text = (" " * _GAP).join(f"{cell:>{self._widths[name]}}" for name, cell in cells.items())
        self._console.print(Text(text, style), no_wrap=True, overflow="ellipsis")

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(text), soft_wrap=True)


def _fitting(facts: Mapping[str, str], ranking: Iterable[str], room: int) -> str:
    """As many of the facts as there is room for, chosen by their rank, in their own order.

    Example:
        >>> _fitting({"loss": "1.5", "3x3": "612", "macs": "12 M"}, ["loss", "macs", "3x3"], 20)
        'loss 1.5  macs 12 M'
    """
    chosen, left = set[str](), room
    for name in ranking:
        length = len(f"{name} {facts[name]}")
        if length > left:
            break
        chosen.add(name)
        left -= length + _GAP
    return (" " * _GAP).join(f"{name} {text}" for name, text in facts.items() if name in chosen)
