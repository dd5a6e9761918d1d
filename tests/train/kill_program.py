"""Kills small trainings with SIGKILL, resumes them, and leaves the run folders for `test_killing.py` to compare.

Usage: python kill_program.py FOLDER KILLS SEED METHOD. Writes FOLDER/whole (never killed), FOLDER/0, … and, on
standard output, one JSON object per kill. Every training is a fork of this process, so that torch is imported once.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

import tenfold.train.checkpoints as checkpoints_module
from inpainting_data import TinyFiller, write_clip, write_photographs
from tenfold import tasks
from tenfold.methods import SAT, AdaBits, Adversarial, FracBits
from tenfold.train import fit
from train.toy_training import ToyTask, toy_config, toy_network

# Two epochs' worth of everything that has a state: quantizers, dropout, mixup, weight average, momentum.
CONFIG = {"epochs": 3, "ema_decay": 0.9, "mixup": 0.3, "checkpoint_steps": 3, "log_steps": 2}
METHODS = {
    "sat": lambda: [SAT(w_bits=4, a_bits=4)],
    # Freezes half-way, so that kills hit the search as well as what comes after it.
    "fracbits": lambda: [FracBits(like=4, weight_bits="kernel", w_range=(1, 8), search_share=0.5)],
    "adabits": lambda: [AdaBits(bits=(8, 4, 3), search_share=0.5)],  # so do its bits at every width
    "adversarial": lambda: [Adversarial(channels=4, weight=0.1)],  # which trains a network of its own
}
FILLING = {"batch_size": 2, "mixup": 0.0, "optimizer": "adamw", "lr": 0.003}
SLOWNESS = 0.1


def train(run_dir, announce=None):
    """Fork a child that trains; with `announce` (a file descriptor) it saves slowly and tells when it does."""
    child = os.fork()
    if child:
        return child
    try:
        if announce is not None:
            slow_down_saving(announce)
        network, task, changes = toy_network(), ToyTask(train_images=160), {}
        if sys.argv[4] == "adversarial":
            torch.manual_seed(0)
            network, task, changes = TinyFiller(), filling_task(Path(sys.argv[1])), FILLING
        config = toy_config(**CONFIG | changes)
        fit(network, task, METHODS[sys.argv[4]](), config=config, run_dir=run_dir, resume=True, quiet=True)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def filling_task(folder):
    """Holes in video simulated from twenty photographs: ten steps an epoch."""
    if not (folder / "data").exists():
        write_photographs(folder / "data/stills", 20)
        write_clip(folder / "data/clips/judged")
    return tasks.create(
        "inpaint",
        data=str(folder / "data/clips"),
        photographs=str(folder / "data/stills"),
        image_size=32,
        lengths=[2, 3],
        holes="stationary",
        eval_clips=["judged"],
        eval_fraction=0.0,
        variants=1,
        cache=str(folder / "data/windows"),
    )


def slow_down_saving(announce):
    save, flush = checkpoints_module.save_file, os.fsync

    def slow_save(tensors, path, metadata):
        save(tensors, path, metadata)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        os.write(announce, b"s")
        time.sleep(SLOWNESS)
        path.write_bytes(content)

    def slow_flush(descriptor):
        flush(descriptor)
        time.sleep(SLOWNESS / 3)

    checkpoints_module.save_file = slow_save
    os.fsync = slow_flush


def kill_at_random(run_dir, rng, seconds):
    """Kill within the first `seconds`; a training that was faster than that is begun anew, and killed earlier."""
    while True:
        child = train(run_dir)
        time.sleep(rng.uniform(0, seconds))
        if finish_off(child):
            return True
        shutil.rmtree(run_dir)
        seconds /= 2


def kill_while_saving(run_dir, save):
    reader, writer = os.pipe()
    child = train(run_dir, announce=writer)
    os.close(writer)
    for _ in range(save):
        os.read(reader, 1)
    time.sleep(random.uniform(0, 1.5 * SLOWNESS))
    os.close(reader)
    return finish_off(child)


def finish_off(child):
    """Kill a child; returns whether it was still alive."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def complete(run_dir):
    _, status = os.waitpid(train(run_dir), 0)
    if status != 0:
        sys.exit(f"the run in {run_dir} could not be resumed")


def main():
    folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    start = time.monotonic()
    complete(folder / "whole")
    seconds = time.monotonic() - start
    saves = 12  # 30 steps: nine at the interval of 3 that do not end an epoch, and three at the ends of epochs
    for idx in range(kills):
        run_dir = folder / str(idx)
        while_saving = idx % 2 == 1
        # From the second save to the last but one, early ones first: so kills surely hit all phases of a training.
        parts, part = kills // 2, idx // 2
        first, last = 2 + part * (saves - 2) // parts, 1 + (part + 1) * (saves - 2) // parts
        save = rng.randint(first, last)
        killed = kill_while_saving(run_dir, save) if while_saving else kill_at_random(run_dir, rng, seconds)
        checkpoints = run_dir / "checkpoints"
        steps = [int(path.stem.removeprefix("step_")) for path in checkpoints.glob("step_*.safetensors")]
        found = {
            "killed": killed,
            "while_saving": while_saving,
            "half_written": len(list(checkpoints.glob(".*.part"))),
            "checkpoints": len(steps),
            "resumed_at": max(steps, default=0),
        }
        complete(run_dir)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
