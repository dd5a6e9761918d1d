"""`fit`: from a network, a task, methods and a budget to an artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold import quant
from tenfold.cost import Budget, Profile, interleaved, profile
from tenfold.errors import BudgetError, CheckpointError, DataError, UsageError
from tenfold.export.artifact import write_artifact
from tenfold.files import write_text
from tenfold.methods import Method
from tenfold.tasks import Task
from tenfold.train import machine
from tenfold.train.batch_norm import restore_batch_norm, synchronize_batch_norm
from tenfold.train.checkpoints import CheckpointFolder, Found
from tenfold.train.config import FREE_TO_CHANGE, TrainConfig
from tenfold.train.display import Display
from tenfold.train.distributed import World, broadcast_tensors, joined_world, sum_over_world
from tenfold.train.evaluation import evaluate_in
from tenfold.train.interrupts import stop_requests
from tenfold.train.journal import Journal
from tenfold.train.loop import Loop
from tenfold.train.random_states import seed_everything, untouched_random_states
from tenfold.train.report import write_report
from tenfold.train.run import Run


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a training leaves behind."""

    run_dir: Path
    """The run folder."""
    artifact: Path
    """The network as one file, for `load` and for export."""
    network: nn.Module
    """The finished network in eval mode, on the CPU."""
    metrics: dict[str, float]
    """Its metrics on the evaluation data, such as top1 (0 to 1), and "loss"."""
    report: dict[str, Any]
    """The content of report.json."""


def fit(
    network: nn.Module,
    task: Task,
    methods: Sequence[Method] = (),
    budget: Budget | None = None,
    *,
    config: TrainConfig | None = None,
    run_dir: str | Path,
    resume: bool = False,
    float_metrics: Mapping[str, float] | None = None,
    command: Sequence[str] | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train a network under a budget; leave an artifact and a report in the run folder.

    The folder then holds `config.json` (everything that was asked), `metrics.jsonl`, `checkpoints/`,
    `artifact.safetensors`, `report.json` and `report.html`. A run that was killed goes on with `resume=True` and the same
    arguments, and ends as if it had never been killed. Under `torchrun`, all processes call this with the same arguments.

    Args:
        network: what to train; any module. It is changed.
        task: data, loss and metrics.
        methods: what happens to the network meanwhile, in this order.
        budget: what the finished network may cost.
        config: the training's options; None takes the defaults.
        run_dir: the run folder; made if it is not there.
        resume: go on with the run in `run_dir` (from the start, if it was killed before its first checkpoint).
        float_metrics: metrics of the float network to compare with, for the report.
        command: what to type to repeat this; None takes this process's command line.
        quiet: show nothing.

    Returns:
        The finished network, its metrics, and where the files are. The same in every process.

    Raises:
        UsageError: if an argument does not fit, or `run_dir` holds a run and `resume` is not set.
        BudgetError: if the budget is out of reach, or the finished network does not keep it.
        CheckpointError: if the run cannot be resumed: its checkpoints are damaged, or of other arguments.
        NonFiniteLossError: if the loss became NaN or infinite.
        Interrupted: if SIGINT or SIGTERM asked to stop; everything is saved.
        StorageError: if a file could not be written.
    """
    config = config or TrainConfig()
    run_dir = Path(run_dir)
    with joined_world(config.device) as world, untouched_random_states(world.device), _determinism(config):
        if config.batch_size % world.size:
            raise UsageError(
                f"batch_size = {config.batch_size} cannot be shared evenly by {world.size} processes; take a multiple."
            )
        job = _Job(task, tuple(methods), budget, config, run_dir, world, quiet)
        job.open_folder(resume=resume)
        job.attach(network)
        run = job.train(command=list(command or machine.command_line()))
        return job.finish(run, float_metrics=float_metrics, command=list(command or machine.command_line()))


class _Job:
    """One call of `fit`, in its three acts: attach, train, finish."""

    def __init__(
        self,
        task: Task,
        methods: Sequence[Method],
        budget: Budget | None,
        config: TrainConfig,
        run_dir: Path,
        world: World,
        quiet: bool,
    ) -> None:
        self._task = task
        self._methods = methods
        self._budget = budget
        self._config = config
        self._run_dir = run_dir
        self._world = world
        self._shown = world.is_first and not quiet
        self._checkpoints = CheckpointFolder(run_dir / "checkpoints")
        self._found: Found | None = None
        self._notes: list[str] = []
'''
