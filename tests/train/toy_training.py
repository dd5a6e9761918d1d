"""A task and networks so small that a whole training takes a moment."""

from __future__ import annotations

import json
import signal

import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from tenfold.tasks import Task
from tenfold.train import TrainConfig
from tenfold.train.checkpoints import read_checkpoint

CLASSES = 4
SIDE = 8


def call_handler(number):
    """Call the handler of a signal: one that is sent may arrive a step later, if the kernel hands it to another thread.
    `test_interrupts.py` sends some."""
    signal.getsignal(number)(number, None)


class ToyTask(Task):
    """Noisy images of a bright quadrant; the class is which one. Every batch is a pure function of its coordinates."""

    name = "toy"
    input_shape = (1, SIDE, SIDE)
    main_metric = "top1"

    def __init__(self, train_images=64, eval_images=33, *, poisoned_step=None, interrupted_step=None, short=False):
        self.train_images, self.eval_images = train_images, eval_images
        self.poisoned_step = poisoned_step  # the step (from 1) whose batch holds a NaN
        self.interrupted_step = interrupted_step  # the step (from 1) in which `signal` arrives
        self.signal = signal.SIGTERM
        self.short = short  # gives one batch less than announced

    def batches_per_epoch(self, batch_size, world_size=1):
        return self.train_images // (batch_size * world_size)

    def train_batches(self, *, epoch, batch_size, seed, start=0, rank=0, world_size=1, workers=0):
        together = batch_size * world_size
        steps = self.batches_per_epoch(batch_size, world_size)
        for step in range(start, steps - self.short):
            inputs, targets = make_images(together, 1_000_003 * seed + 1009 * epoch + step)
            if self.poisoned_step == epoch * steps + step + 1:
                inputs[-1] = float("nan")
            if self.interrupted_step == epoch * steps + step + 1:
                call_handler(self.signal)
            mine = slice(rank * batch_size, (rank + 1) * batch_size)
            yield inputs[mine], targets[mine]

    def eval_batches(self, *, batch_size, rank=0, world_size=1, workers=0):
        inputs, targets = make_images(self.eval_images, 77)
        inputs, targets = inputs[rank::world_size], targets[rank::world_size]
        for first in range(0, len(targets), batch_size):
            yield inputs[first : first + batch_size], targets[first : first + batch_size]

    def loss(self, outputs, targets, *, label_smoothing=0.0):
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def metrics(self):
        return MetricCollection({"top1": MulticlassAccuracy(CLASSES, average="micro")})

    def example(self, batch_size=1):
        return make_images(batch_size, 78)[0]

    def describe(self):
        return {"task": self.name, "labels": [str(i) for i in range(CLASSES)], "num_outputs": CLASSES}


def make_images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    inputs = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    half = SIDE // 2
    for image, target in zip(inputs, targets.tolist(), strict=True):
        top, left = half * (target // 2), half * (target % 2)
        image[:, top : top + half, left : left + half] += 1.0
    return inputs, targets


def toy_network(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32, CLASSES),
    )


def toy_config(**changes):
    options = {"epochs": 2, "batch_size": 16, "lr": 0.1, "device": "cpu", "seed": 3, "log_steps": 1}
    return TrainConfig(**{**options, **changes})


def metric_lines(run_dir):
    """The journal without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in {"seconds", "data_seconds", "data_share"}} for line in lines]


def assert_same_end(one, other):
    """Two runs ended bit for bit alike."""
    assert (one / "artifact.safetensors").read_bytes() == (other / "artifact.safetensors").read_bytes()
    assert metric_lines(one) == metric_lines(other)
    last = [max((run / "checkpoints").glob("step_*")).name for run in (one, other)]
    assert last[0] == last[1]
    for name in (last[0], "best.safetensors"):
        states = [read_checkpoint(run / "checkpoints" / name) for run in (one, other)]
        for part in ("network", "average", "optimizer", "scaler", "methods", "random", "identity"):
            assert_same_tree(states[0][part], states[1][part])


def assert_same_tree(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_tree(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same_tree(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
