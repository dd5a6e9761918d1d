"""What a person sees while a network trains: a live bar, and a table that grows by a row an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


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
        self._wrote_head = False

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

    def step(self, *, step: int, epoch: int, loss: float, lr: float, data_share: float) -> None:
        """Show a finished step.

        Args:
            step: steps done in all.
            epoch: number of the epoch under way, from 1.
            loss: mean loss of the epoch so far.
            lr: learning rate.
            data_share: part of the epoch's time that went into waiting for data, 0 to 1.
        """
        if self._progress is not None:
            facts = f"loss {loss:.4f}  lr {lr:.2e}  data {data_share:.0%}"
            self._progress.update(self._bar, completed=step, description=f"epoch {epoch}/{self._epochs}", facts=facts)

    def phase(self, name: str) -> None:
        """Show what happens now, when it is not a step."""
        if self._progress is not None:
            self._progress.update(self._bar, description=name, refresh=True)

    def epoch(self, row: Mapping[str, float], status: Mapping[str, str] | None = None) -> None:
        """Add the row of a finished epoch.

        Args:
            row: "epoch" (from 1), "lr", "train_loss", "eval_loss", the metric, "seconds" and "data_seconds".
            status: what methods have to show, as short texts by name.
        """
        cells = {
            "epoch": f"{row['epoch']:.0f}/{self._epochs}",
            "lr": f"{row['lr']:.2e}",
            "train loss": f"{row['train_loss']:.4f}",
            "eval loss": f"{row['eval_loss']:.4f}",
            self._metric: f"{row[self._metric]:.4f}",
            "time": f"{row['seconds']:.1f} s",
            "data": f"{row['data_seconds'] / max(row['seconds'], 1e-9):.0%}",
            **(status or {}),
        }
        if not self._console.is_terminal:
            self.note(", ".join(f"{name} {cell}" for name, cell in cells.items()))
            return
        if not self._wrote_head:
            self._console.print(Text("  ".join(f"{name:>10}" for name in cells), style="bold"))
            self._wrote_head = True
        self._console.print(Text("  ".join(f"{cell:>10}" for cell in cells.values())))

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(text), soft_wrap=True)
