"""The training loop: batches, passes, updates; evaluation, metrics and checkpoints around them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from tenfold.batches import Inputs, Targets, call, placed
from tenfold.errors import DataError, NonFiniteLossError
from tenfold.tasks import Task
from tenfold.train.checkpoints import CheckpointFolder
from tenfold.train.display import Display
from tenfold.train.distributed import average_gradients, sum_over_world, wait_for_all
from tenfold.train.evaluation import evaluate_passes
from tenfold.train.interrupts import Interrupted, StopRequest
from tenfold.train.journal import Journal
from tenfold.train.passes import combined_passes, summed_penalty
from tenfold.train.run import Run

# fp16 starts with its loss scaled by 2^16 and halves the scale whenever a gradient overflows: thirty times in a row
# means that the gradients are broken, not large.
_SMALLEST_SCALE = 2.0**-14


class Loop:
    """Drives a `Run` from where it stands to the end of its last epoch.

    Args:
        run: fresh, or restored from a checkpoint.
        task: gives batches, loss and metrics.
        checkpoints: where to save.
        journal: where to record metrics.
        display: where to show them.
        stop: read after every step and every evaluation batch.
        identity: stored in every checkpoint, to recognise the run that it belongs to.
    """

    def __init__(
        self,
        run: Run,
        task: Task,
        *,
        checkpoints: CheckpointFolder,
        journal: Journal,
        display: Display,
        stop: StopRequest,
        identity: dict[str, Any],
    ) -> None:
        self._run = run
        self._task = task
        self._checkpoints = checkpoints
        self._journal = journal
        self._display = display
        self._stop = stop
        self._identity = identity
        self._saved_at = self._counted_until = time.perf_counter()

    def train(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: if asked to stop; everything is saved.
            NonFiniteLossError: if the loss or a weight became NaN or infinite; the checkpoints on disk are good.
            StorageError: if a checkpoint could not be written; the one before it is untouched.
            DataError: if the task gives more or fewer batches than it said.
        """
        run = self._run
        while run.epoch < run.config.epochs:
            run.network.train()
            self._train_epoch()
            metrics = self._evaluate() if run.evaluates_now else None
            self._count_time()
            row = run.end_epoch(metrics, self._task.main_metric)
            self._journal.write("epoch", row)
            self._display.epoch(row, run.status())
            self._save()
            if sum_over_world([bool(self._stop)], run.world)[0]:
                raise self._interrupted()

    def _train_epoch(self) -> None:
        run = self._run
        for inputs, targets in self._timed_batches():
            loss = self._accumulate_gradients(run.place(inputs), placed(targets, run.world.device))
            # One exchange a step keeps all processes of one mind: about the loss, about leaving, about saving.
            wishes = [loss / run.world.size, bool(self._stop), run.world.is_first and self._save_is_overdue()]
            loss, stops, saves = sum_over_world(wishes, run.world)
            if not math.isfinite(loss):
                raise self._non_finite(f"the loss became {loss} in step {run.step + 1}")
            self._update()
            run.advance(loss)
            self._count_time()
            self._tell(loss)
            if stops or saves or self._save_is_scheduled():
                self._save()
            if stops:
                raise self._interrupted()
        if run.batch != run.steps_per_epoch:
            raise DataError(
                f"epoch {run.epoch + 1} had {run.batch} batches, but the task {self._task.name!r} announced "
                f"{run.steps_per_epoch}. Data must not change during a training; check the data folder."
            )

    def _timed_batches(self) -> Iterator[tuple[Inputs, Targets]]:
        """The batches that the epoch still has to come; waiting for them is counted."""
        run, config = self._run, self._run.config
        if run.batch == run.steps_per_epoch:  # saved between the last batch and the evaluation
            return
        batches = iter(
            self._task.train_batches(
                epoch=run.epoch,
                batch_size=config.batch_size // run.world.size,
                seed=config.seed,
                start=run.batch,
                rank=run.world.rank,
                world_size=run.world.size,
                workers=config.workers,
            )
        )
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            run.data_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _accumulate_gradients(self, inputs: Inputs, targets: Targets) -> float:
        """Run every pass over the batch, forward and backward; returns the whole loss, penalties included.

        Gradients of the passes are summed, not averaged (adabits.md section 2.3).
        """
        run = self._run
        if run.mixing is not None:
            assert isinstance(inputs, Tensor)
            assert isinstance(targets, Tensor)  # whole images and their labels: create_mixing sees to it
            inputs, targets = run.mixing(inputs, targets)
        run.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        with ExitStack() as stack:
            for method in run.methods:
                stack.enter_context(method.batch(run.network))
            for one in combined_passes(run.methods, run.network):
                one.enter()
                with run.autocast():
                    outputs = call(run.forward, inputs)
                    loss = self._task.loss(outputs, targets, label_smoothing=run.config.label_smoothing)
                    for term in (method.term(outputs, targets) for method in run.methods):
                        loss = loss if term is None else loss + term
                if one.adjust is not None:
                    loss = one.adjust(outputs, loss)
                loss = loss * one.weight if one.weight != 1 else loss
                run.scaler.scale(loss).backward()
                total += float(loss.detach())
        penalty = summed_penalty(run.methods, run.network)
        if penalty is not None:
            run.scaler.scale(penalty).backward()
            total += float(penalty.detach())
        return total

    def _update(self) -> None:
        """Average the gradients over all processes, clip them, and take the optimiser's step."""
        run = self._run
        average_gradients(run.network.parameters(), run.world)
        if run.config.clip_grad is not None:
            run.scaler.unscale_(run.optimizer)
            torch.nn.utils.clip_grad_norm_(run.network.parameters(), run.config.clip_grad)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        if run.scaler.is_enabled() and run.scaler.get_scale() < _SMALLEST_SCALE:
            raise self._non_finite(f"the gradients overflow in every step up to {run.step + 1}")

    def _evaluate(self) -> dict[str, float]:
        run = self._run
        self._display.phase("evaluating")
        for method in run.methods:
            method.prepare_evaluation(run.evaluated, self._training_images())
        run.share_buffers()
        alone = run.world.size == 1  # with companions, all must make the same number of exchanges
        metrics = evaluate_passes(
            run.evaluated,
            self._task,
            run.methods,
            run.world,
            batch_size=run.config.eval_batch_size,
            workers=run.config.workers,
            should_stop=(lambda: bool(self._stop)) if alone else (lambda: False),
        )
        if metrics is None:
            self._save()
            raise self._interrupted()
        return metrics

    def _training_images(self) -> Iterator[Inputs]:
        run = self._run
        batches = self._task.train_batches(
            epoch=run.epoch,
            batch_size=run.config.batch_size // run.world.size,
            seed=run.config.seed,
            rank=run.world.rank,
            world_size=run.world.size,
        )
        return (run.place(inputs) for inputs, _ in batches)

    def _tell(self, loss: float) -> None:
        run = self._run
        waiting = run.data_seconds / run.epoch_seconds if run.epoch_seconds else 0.0
        mean = run.loss_sum / run.batch
        is_told = run.step % run.config.log_steps == 0
        self._display.step(
            step=run.step,
            epoch=run.epoch + 1,
            loss=mean,
            lr=run.last_lr,
            data_share=waiting,
            status=run.status() if is_told else None,  # in between it is as it was: it may take a look at all weights
        )
        if is_told:
            facts = {"step": run.step, "epoch": run.epoch + 1, "loss": loss, "lr": run.last_lr}
            self._journal.write("step", {**facts, "seconds": run.seconds, "data_share": waiting})

    def _count_time(self) -> None:
        now = time.perf_counter()
        self._run.epoch_seconds += now - self._counted_until
        self._run.seconds += now - self._counted_until
        self._counted_until = now

    def _save_is_overdue(self) -> bool:
        minutes = self._run.config.checkpoint_minutes
        return minutes is not None and time.perf_counter() - self._saved_at >= 60 * minutes

    def _save_is_scheduled(self) -> bool:
        run, interval = self._run, self._run.config.checkpoint_steps
        # The end of the epoch saves anyway.
        return interval is not None and run.step % interval == 0 and run.batch < run.steps_per_epoch

    def _save(self) -> None:
        run = self._run
        if not all(bool(parameter.isfinite().all()) for parameter in run.network.parameters()):
            raise self._non_finite(f"a weight became NaN or infinite by step {run.step}, though the loss was finite")
        state = {**run.state_dict(), "identity": self._identity, "journal_lines": self._journal.lines}
        if run.world.is_first:
            path = self._checkpoints.save(state, run.step)
            if run.is_best:
                self._checkpoints.keep_best(path)
        self._saved_at = time.perf_counter()

    def _interrupted(self) -> Interrupted:
        wait_for_all(self._run.world)  # a launcher ends the others when one leaves; the first may still be writing
        step = self._run.step
        name = self._stop.signal_name or "another process was"
        return Interrupted(step=step, checkpoint=self._checkpoints.path(step), name=name)

    def _non_finite(self, what: str) -> NonFiniteLossError:
        run, newest = self._run, self._checkpoints.newest
        kept = f"The last good checkpoint is {newest}." if newest else "No checkpoint had been written yet."
        hints = ["a lower learning rate (train.lr)", "a longer warm-up (train.warmup_epochs)"]
        if run.config.clip_grad is None:
            hints.append("clipped gradients (train.clip_grad=1)")
        if run.config.precision == "fp16":
            hints.append("bf16 or fp32 instead of fp16 (train.precision)")
        return NonFiniteLossError(
            f"{what} (epoch {run.epoch + 1}, learning rate {run.lr:.3g}). {kept} "
            f"Try {', '.join(hints)}, and look for broken values in the data."
        )
