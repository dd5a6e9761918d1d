"""What a person sees while a network trains: a live bar, and a table that grows by a row an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Display:
    """Speaks to the standard error stream; without a terminal there is no bar, only a line an epoch.

    Args:
        epochs: epochs in all.
        steps_per_epoch: steps in one epoch.
        first_step: steps done in an earlier life of the run.
        metric: name of the metric to show.
        shown: False says nothing at all.
    """

    def __init__(
        self, *, epochs: int, steps_per_epoch: int, first_step: int = 0, metric: str = "top1", shown: bool = True
    ) -> None:
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._first_step, self._metric = first_step, metric
        self._console = Console(stderr=True, quiet=not shown, highlight=False)
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._wrote_head = False

    def __enter__(self) -> Display:
        if self._console.is_terminal and not self._console.quiet and self._epochs:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            total = self._epochs * self._steps_per_epoch
            self._bar = self._progress.add_task("starting", total=total, completed=self._first_step, facts="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, *, step: int, epoch: int, loss: float, lr: float, data_share: float) -> None:
        """Show a finished step.

        Args:
            step: steps done in all.
            epoch: epochs finished before this step.
            loss: mean loss of the epoch so far.
            lr: learning rate.
            data_share: part of the epoch's time that went into waiting for data, 0 to 1.
        """
        if self._progress is not None:
            facts = f"loss {loss:.4f}  lr {lr:.2e}  data {data_share:.0%}"
            self._progress.update(
                self._bar, completed=step, description=f"epoch {epoch + 1}/{self._epochs}", facts=facts
            )

    def phase(self, name: str) -> None:
        """Show what happens now, when it is not a step."""
        if self._progress is not None:
            self._progress.update(self._bar, description=name)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Add the row of a finished epoch.

        Args:
            row: "epoch" (from 1), "lr", "train_loss", "eval_loss", the metric, "seconds" and "data_seconds".
        """
        if not self._wrote_head and self._console.is_terminal:
            head = ("epoch", "lr", "train loss", "eval loss", self._metric, "time", "data")
            self._console.print(Text("  ".join(f"{name:>10}" for name in head), style="bold"))
            self._wrote_head = True
        share = row["data_seconds"] / row["seconds"] if row["seconds"] else 0.0
        cells = (
            f"{row['epoch']:.0f}/{self._epochs}",
            f"{row['lr']:.2e}",
            f"{row['train_loss']:.4f}",
            f"{row['eval_loss']:.4f}",
            f"{row[self._metric]:.4f}",
            f"{row['seconds']:.1f} s",
            f"{share:.0%}",
        )
        if self._console.is_terminal:
            self._console.print(Text("  ".join(f"{cell:>10}" for cell in cells)))
        else:
            epoch, lr, train_loss, eval_loss, metric, seconds, data = cells
            line = f"epoch {epoch}: lr {lr}, train loss {train_loss}, eval loss {eval_loss}, "
            self._console.print(f"{line}{self._metric} {metric}, {seconds}, data {data}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(text), soft_wrap=True)
