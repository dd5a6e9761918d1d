"""Inpainting: the pixels of holes in video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tenfold.batches import call
from tenfold.data import Draws, prefetch
from tenfold.data.dense import side_by_side
from tenfold.errors import DataError
from tenfold.models.tsam import NetworkArguments
from tenfold.tasks.epochs import check_positive, check_subset, evaluation_rows, training_rows
from tenfold.tasks.inpainting_batches import WindowTargets, stack_windows
from tenfold.tasks.inpainting_objective import Objective
from tenfold.tasks.inpainting_windows import PreparedWindow, WindowMaker
from tenfold.tasks.task import Picture, Task

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Base = Literal["smooth", "none"]

_ILLUSTRATIONS, _SHOWN_FRAMES = 4, 5
_EVALUATION = 2**31 - 1
"""Variant of the windows that are judged: no training reaches it."""
_FLIP, _REVERSE, _START, _LENGTH = range(4)


class Inpainting(Task):
    """Fill what propagation leaves of holes in video; judged by the PSNR of those pixels.

    Args:
        train: makes the windows to learn from.
        evaluation: makes the windows to judge by, each the same every time.
        lengths: frames of a window; each batch takes one of them by lot.
        base: what the answer is added to: the smooth filling of the rest, or nothing.
        objective: the loss.
        variants: different windows made of each row, one an epoch in turn; None makes new ones in every epoch.
        flip: mirror half of the training windows, and turn half of them around in time.
        subset: train on so many rows only; None for all.
        facts: what `describe` tells of the data.

    Raises:
        UsageError: if `subset` is out of range.
        DataError: if there is nothing to train on or to evaluate with.
    """

    name = "inpaint"
    main_metric = "psnr_filled"
    per_pixel = True
    takes = "window"

    def __init__(
        self,
        train: WindowMaker,
        evaluation: WindowMaker,
        *,
        lengths: Sequence[int],
        base: Base = "smooth",
        objective: Objective | None = None,
        variants: int | None = None,
        flip: bool = True,
        subset: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.train, self.evaluation = train, evaluation
        self.input_shape = (3, *train.size)
        self.lengths, self.base, self.objective = tuple(lengths), base, objective or Objective()
        self.variants, self.flip = variants, flip
        self._facts = dict(facts or {})
        self._further_metrics: tuple[Callable[[], Metric], ...] = ()
        count = len(train.sources)
        if not count or not len(evaluation.sources):
            raise DataError("there are no windows to train on, or none to evaluate with; give clips or photographs.")
        check_subset(subset, count)
        self._rows = np.sort(Draws(0, 0, np.arange(count)).order()[:subset])

    @property
    def train_size(self) -> int:
        """Windows in an epoch, after `subset`."""
        return len(self._rows)

    @property
    def eval_size(self) -> int:
        """Windows to judge by, of all ranks together."""
        return len(self.evaluation.sources)

    def train_batches(
        self,
        *,
        epoch: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> Iterator[tuple[NetworkArguments, WindowTargets]]:
        """Batches of one epoch; all windows of a batch have the same length, on all ranks.

        Args:
            epoch: counted from 0; each has an order and variations of its own.
            batch_size: windows that one rank gets in a step.
            seed: of the training.
            start: first step to give; those before cost nothing.
            rank: number of this process, from 0.
            world_size: number of processes.
            workers: threads that work ahead; the result does not depend on it.

        Raises:
            UsageError: if an argument is out of range.
            DataError: naming the file that cannot be read.
        """
        batches = training_rows(
            self._rows,
            epoch=epoch,
            batch_size=batch_size,
            seed=seed,
            start=start,
            rank=rank,
            world_size=world_size,
        )
        variant = epoch if self.variants is None else epoch % self.variants

        def make(numbered: tuple[int, np.ndarray[Any, np.dtype[np.int64]]]) -> tuple[NetworkArguments, WindowTargets]:
            step, rows = numbered
            length = self.lengths[int(Draws(seed, epoch, np.array([step])).integers(_LENGTH, len(self.lengths))[0])]
            draws = Draws(seed, epoch, rows)
            firsts = draws.integers(_START, self.train.frames - length + 1).tolist()
            turns = zip(draws.uniform(_FLIP) < 0.5, draws.uniform(_REVERSE) < 0.5, strict=True)
            windows = [
                self._varied(self.train(row, variant, seed).cut(first, length), *turn)
                for row, first, turn in zip(rows.tolist(), firsts, turns, strict=True)
            ]
            return stack_windows(windows, smooth_base=self.base == "smooth")

        return prefetch(make, enumerate(batches, start), workers)

    def eval_batches(
        self, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[NetworkArguments, WindowTargets]]:
        """This rank's windows to judge by, in order, whole.

        Raises:
            UsageError: if an argument is out of range.
            DataError: naming the file that cannot be read.
        """
        batches = evaluation_rows(self.eval_size, batch_size=batch_size, rank=rank, world_size=world_size)
        return prefetch(lambda rows: self._judged(rows.tolist()), batches, workers)

    def loss(self, outputs: Tensor, targets: WindowTargets, *, label_smoothing: float = 0.0) -> Tensor:
        """See `tenfold.tasks.inpainting_objective.Objective`.

        Args:
            outputs: what the network gave, (B, T, 3, H, W).
            targets: of the batch.
            label_smoothing: without meaning here; there are no labels.
        """
        return self.objective(outputs, targets)

    def metrics(self) -> MetricCollection:
        """See `tenfold.tasks.inpainting_metrics.FillingQuality`; and what `judge_by` asked for."""
        from torchmetrics import MetricCollection

        from tenfold.tasks.inpainting_metrics import FillingQuality

        return MetricCollection([FillingQuality(), *(make() for make in self._further_metrics)])

    def judge_by(self, *metrics: Callable[[], Metric]) -> None:
        """Measure more from now on.

        Args:
            metrics: each makes a metric of the network's answer and `WindowTargets`, such as those of
                `tenfold.tasks.inpainting_perception`.
        """
        self._further_metrics = metrics

    def example(self, batch_size: int = 1) -> NetworkArguments:
        """Training windows of the shortest length; the same each time, repeated where there are too few."""
        check_positive(batch_size=batch_size)
        rows = np.resize(Draws(0, 0, self._rows).order(), batch_size)
        shortest = min(self.lengths)
        windows = [self.train(row, 0, 0).cut(0, shortest) for row in rows.tolist()]
        return stack_windows(windows, smooth_base=False)[0]

    def illustrate(self, network: nn.Module) -> Sequence[Picture]:
        """Strips of frames: true, with what is left white, filled smoothly, and by the network."""
        pictures = []
        device = next(network.parameters()).device
        for row in np.linspace(0, self.eval_size - 1, min(_ILLUSTRATIONS, self.eval_size)).round().astype(int).tolist():
            inputs, targets = self._judged([row])
            with torch.no_grad():
                answer = call(network, NetworkArguments(*(one.to(device) for one in inputs))).cpu()
            left = torch.where(targets.rest, torch.ones_like(targets.given), targets.given)
            strips = [_strip(one) for one in (targets.truth, left, targets.given, targets.composited(answer))]
            caption = f"{self.evaluation.sources.name(row)}: true, left by propagation, filled smoothly, by the network"
            pictures.append(Picture(caption, _below(strips)))
        return pictures

    def describe(self) -> dict[str, Any]:
        """A JSON object: task, frames, base, loss, holes, flow; and what the numbers were measured on."""
        return {
            "task": self.name,
            "frame_size": list(self.input_shape[1:]),
            "lengths": list(self.lengths),
            "base": self.base,
            "objective": self.objective.to_dict(),
            "variants": self.variants,
            "flip": self.flip,
            **self._facts,
            "data": {
                **self._facts.get("data", {}),
                "train_windows": self.train_size,
                "eval_windows": self.eval_size,
            },
        }

    def _judged(self, rows: Sequence[int]) -> tuple[NetworkArguments, WindowTargets]:
        windows = [self.evaluation(row, _EVALUATION, 0) for row in rows]
        return stack_windows(windows, smooth_base=self.base == "smooth")

    def _varied(self, window: PreparedWindow, mirror: bool, turn: bool) -> PreparedWindow:
        if self.flip and mirror:
            window = window.mirrored()
        return window.reversed() if self.flip and turn else window


def _strip(frames: Tensor) -> Image.Image:
    """Some frames of the first window, side by side."""
    shown = np.linspace(0, frames.shape[1] - 1, min(_SHOWN_FRAMES, frames.shape[1])).round().astype(int)
    pixels = (frames[0, shown].clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return side_by_side([Image.fromarray(one) for one in pixels])


def _below(strips: Sequence[Image.Image]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(one) for one in strips]))
