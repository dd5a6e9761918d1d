"""Trains small networks as one of several processes; started by torchrun from `test_groups.py`.

Usage: torchrun … group_program.py FOLDER. The first call of `fit` joins the group of processes.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from inpainting_data import TinyFiller
from tenfold import Budget, build, tasks
from tenfold.errors import NonFiniteLossError
from tenfold.methods import AdaBits, Adversarial, AutoNL
from tenfold.train import Interrupted, TrainConfig, fit
from train.toy_training import CLASSES, ToyTask, call_handler, toy_config, toy_network

RANK = int(os.environ.get("RANK", "0"))


def train_plain(run_dir):
    """What one process can train as well: no batch norm, no random numbers."""
    torch.manual_seed(RANK)  # other weights in each process: the first one's must win
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)
    )
    config = toy_config(epochs=2, clip_grad=1.0, ema_decay=0.9, log_steps=2)
    return fit(network, ToyTask(), config=config, run_dir=run_dir, quiet=True)


def train_at_several_widths(run_dir):
    """Three passes a batch with private clipping levels; without batch norm, as `train_plain`."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
    config = toy_config(epochs=2, ema_decay=0.9, lr=0.02)
    return fit(network, ToyTask(), [AdaBits(bits=(8, 4, 2))], config=config, run_dir=run_dir, quiet=True)


def train_interrupted(folder):
    """Whole, then interrupted in the second process only, and resumed; with batch norm, dropout and mixup."""
    config = toy_config(epochs=2, ema_decay=0.9, mixup=0.3)
    fit(toy_network(), ToyTask(), config=config, run_dir=folder / "whole", quiet=True)
    task = ToyTask(interrupted_step=6 if RANK == 1 else None)
    try:
        fit(toy_network(), task, config=config, run_dir=folder / "parts", quiet=True)
    except Interrupted as stopped:
        (folder / f"interrupted_{RANK}").write_text(str(stopped.step))
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        sys.exit("the signal handler was not put back")
    result = fit(toy_network(), ToyTask(), config=config, run_dir=folder / "parts", resume=True, quiet=True)
    (folder / f"metrics_{RANK}").write_text(repr(result.metrics))


def train_searching(folder):
    """A search, whole, and interrupted before and after its decision in the second process only, and resumed."""
    config = toy_config(epochs=3, lr=0.02, ema_decay=0.9)

    def train(name, step=None, resume=False):
        torch.manual_seed(RANK)
        network = build("autonl_supernet_tiny", num_classes=CLASSES, in_channels=1)
        task = ToyTask(interrupted_step=step if RANK == 1 else None)
        place = folder / name
        fit(network, task, [AutoNL()], Budget(macs=600e3), config=config, run_dir=place, quiet=True, resume=resume)

    train("search_whole")
    for step in (5, 9):
        with suppress(Interrupted):
            train("search_parts", step, resume=True)
    train("search_parts", resume=True)


def train_inpainting(folder):
    """Windows of video and an adversary, whole, and interrupted in the second process only, and resumed."""
    config = TrainConfig(epochs=2, batch_size=4, optimizer="adamw", lr=0.003, device="cpu", ema_decay=0.9)

    def train(name, step=None, resume=False):
        torch.manual_seed(RANK)
        task = tasks.create(
            "inpaint",
            data=str(folder / "data/clips"),
            photographs=str(folder / "data/stills"),
            image_size=32,
            lengths=[2, 3],
            holes="stationary",
            eval_clips=["judged"],
            eval_fraction=0.0,
        )
        loss, calls = task.loss, []

        def interrupting(*arguments, **options):
            calls.append(1)
            if len(calls) == step and RANK == 1:
                call_handler(signal.SIGTERM)
            return loss(*arguments, **options)

        task.loss = interrupting
        method = Adversarial(channels=4, weight=0.1)
        place = folder / name
        return fit(TinyFiller(), task, [method], config=config, run_dir=place, quiet=True, resume=resume).metrics

    (folder / f"filled_{RANK}").write_text(repr(train("inpaint_whole")))
    with suppress(Interrupted):
        train("inpaint_parts", 3)
    train("inpaint_parts", resume=True)


def train_broken(folder):
    """A loss that breaks in the second process stops both."""
    task = ToyTask(poisoned_step=3 if RANK == 1 else None)
    try:
        fit(toy_network(), task, config=toy_config(), run_dir=folder / "broken", quiet=True)
    except NonFiniteLossError:
        (folder / f"broken_{RANK}").touch()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_plain(Path(sys.argv[1]) / "plain")
    train_at_several_widths(Path(sys.argv[1]) / "widths")
    train_interrupted(Path(sys.argv[1]))
    train_searching(Path(sys.argv[1]))
    train_inpainting(Path(sys.argv[1]))
    train_broken(Path(sys.argv[1]))
