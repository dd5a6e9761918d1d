"""One training under way: everything that changes while it goes on, and how to save and restore it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from tenfold.batches import Batch, placed
from tenfold.errors import CheckpointError, UsageError
from tenfold.methods import Method
from tenfold.train.config import TrainConfig
from tenfold.train.distributed import World, average_gradients, broadcast_tensors, gather_over_world
from tenfold.train.mixing import Mixing
from tenfold.train.optimizers import create_optimizer
from tenfold.train.random_states import random_states, restore_random_states
from tenfold.train.schedules import create_schedule
from tenfold.train.state_tree import pack, unpack
from tenfold.train.surgery import cut_training

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Run:
    """The state of a training, as methods see it in `step_end`.

    Args:
        network: attached, on the world's device, in the memory format that it trains in.
        methods: attached to the network.
        config: the options.
        world: this process and its companions.
        steps_per_epoch: optimiser steps in one epoch.
        mixing: mixes the images of a batch and their targets; None for none.

    Attributes:
        network: the network that trains.
        average: its weight average (`.module` is a network), or None.
        optimizer: holds every parameter of `network`.
        schedule: sets the learning rate before every update.
        scaler: of the loss, for fp16.
        step: optimiser steps done, in all.
        epoch: epochs finished.
        batch: batches done in the epoch under way.
        last_lr: learning rate of the last update.
        curves: one row for each finished epoch.
        best: the row of the best epoch by the task's main metric, or None.
        loss_sum: losses of the epoch under way added up.
        seconds: time spent training and evaluating, in all lives of the run.
        epoch_seconds: the same for the epoch under way.
        data_seconds: time spent waiting for data in the epoch under way.
        cuts: descriptions of all that has been removed from the network meanwhile, in order.
    """

    def __init__(
        self,
        network: nn.Module,
        methods: Sequence[Method],
        config: TrainConfig,
        world: World,
        *,
        steps_per_epoch: int,
        mixing: Mixing | None = None,
    ) -> None:
        self.network = network
        self.methods = methods
        self.config = config
        self.world = world
        self.steps_per_epoch = steps_per_epoch
        self.optimizer = create_optimizer(network, config)
        self.schedule = create_schedule(self.optimizer, config, steps_per_epoch)
        self.average = (
            None
            if config.ema_decay is None
            else ModelEmaV3(network, decay=config.ema_decay, use_warmup=config.ema_warmup)
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self.forward = torch.compile(network) if config.compile else network
        self.mixing = mixing
        self.step = 0
        self.epoch = 0
        self.batch = 0
        self.last_lr = self.lr
        self.curves: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self.loss_sum = 0.0
        self.seconds = 0.0
        self.epoch_seconds = 0.0
        self.data_seconds = 0.0
        self.cuts: list[dict[str, Any]] = []

    @property
    def total_steps(self) -> int:
        """Optimiser steps that the whole training takes."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the weight average if there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def is_best(self) -> bool:
        """Whether the epoch that has just ended is the best so far."""
        return self.best is not None and self.batch == 0 and self.best["step"] == self.step

    def autocast(self) -> AbstractContextManager[Any]:
        """The number format of the forward pass."""
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=_DTYPES[self.config.precision])

    def place(self, inputs: Batch) -> Batch:
        """Put a batch of inputs where, and in the memory format in which, the network wants it."""
        return placed(inputs, self.world.device, channels_last=self.config.channels_last)

    def cut(self, description: Mapping[str, Any]) -> None:
        """Remove channels and modules from the network, its average and the optimiser's state, and tell the methods.

        All processes must call it together, with the same description.

        Args:
            description: as `tenfold.quant.cut_channels` takes it.
        """
        average = None if self.average is None else self.average.module
        cut_training(self.network, description, average=average, optimizer=self.optimizer)
        self.cuts.append(dict(description))
        for network in (self.network, *([] if average is None else [average])):
            network.cuts = [*getattr(network, "cuts", []), dict(description)]
        if self.config.compile:
            self.forward = torch.compile(self.network)
        for method in self.methods:
            method.network_cut(self.network)

    def advance(self, loss: float) -> None:
        """Count a step whose update is done, and let the averages and the schedule follow."""
        self.step += 1
        self.batch += 1
        self.loss_sum += loss
        self.last_lr = self.lr
        for method in self.methods:
            method.step_end(self)
        if self.average is not None:
            self.average.update(self.network, step=self.step if self.config.ema_warmup else None)
        self.schedule.step_update(self.step)

    @property
    def evaluates_now(self) -> bool:
        """Whether the epoch under way ends with an evaluation."""
        return (self.epoch + 1) % self.config.eval_epochs == 0 or self.epoch + 1 == self.config.epochs

    def end_epoch(self, metrics: Mapping[str, float] | None, main_metric: str) -> dict[str, float]:
        """Count a finished epoch, evaluated or not; returns its row in the curves."""
        evaluated = {"eval_loss" if name == "loss" else name: value for name, value in (metrics or {}).items()}
        row = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.last_lr,
            "train_loss": self.loss_sum / max(1, self.batch),
            **evaluated,
            "seconds": self.epoch_seconds,
            "data_seconds": self.data_seconds,
        }
        self.curves.append(row)
        if evaluated and (self.best is None or row[main_metric] > self.best[main_metric]):
            self.best = row
        self.epoch += 1
        self.batch = 0
        self.loss_sum = self.epoch_seconds = self.data_seconds = 0.0
        return row

    def status(self) -> dict[str, str]:
        """What the methods have to show, beside the metrics."""
        return {name: text for method in self.methods for name, text in method.status().items()}

    def share_buffers(self) -> None:
        """Give every process the first one's batch-norm statistics; each gathers them from its own part of the data."""
        broadcast_tensors(self.network.buffers(), self.world)
        if self.average is not None:
            broadcast_tensors(self.average.module.buffers(), self.world)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over all processes, for methods that train something of their own."""
        average_gradients(parameters, self.world)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the training goes on. All processes must call it together."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "cuts": self.cuts,
            "methods": [method.state_dict() for method in self.methods],
            "random": self._all_random_states(),
            "position": {name: getattr(self, name) for name in _POSITION},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; the network is cut as it was cut then.

        Raises:
            CheckpointError: if the state is that of another network.
        """
        try:
            for description in state.get("cuts", ()):
                self.cut(description)
            for method, one in zip(self.methods, state["methods"], strict=True):
                method.load_state_dict(one)
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            for method in self.methods:
                method.resumed(self)
        except (RuntimeError, ValueError, KeyError, UsageError) as error:
            raise CheckpointError(f"the checkpoint does not fit this network: {error}") from error
        for name in _POSITION:
            setattr(self, name, state["position"][name])
        self.schedule.step_update(self.step)
        restore_random_states(state["random"][self.world.rank], self.world.device)

    def _all_random_states(self) -> list[Any]:
        mine = random_states(self.world.device)
        if self.world.size == 1:
            return [mine]
        # Only tensors travel: the plain parts go as the bytes of their JSON, padded to one length.
        skeleton, tensors = pack(mine)
        text = torch.zeros(2**14, dtype=torch.uint8)
        encoded = json.dumps(skeleton).encode()
        text[: len(encoded)] = torch.tensor(list(encoded), dtype=torch.uint8)
        texts = gather_over_world(text, self.world)
        gathered = {name: gather_over_world(tensor, self.world) for name, tensor in tensors.items()}
        return [
            unpack(
                json.loads(bytes(texts[rank].tolist()).rstrip(b"\0")),
                {name: every[rank] for name, every in gathered.items()},
            )
            for rank in range(self.world.size)
        ]


_POSITION = (
    "step",
    "epoch",
    "batch",
    "last_lr",
    "curves",
    "best",
    "loss_sum",
    "seconds",
    "epoch_seconds",
    "data_seconds",
)
