"""What the experiments on small CIFAR-10 images share: the network, where it starts, and a queue of trainings.

The setting is "two stages" of sat_cifar10.py: a pre-activation ResNet-20 on 16x16 images, 6000 to train on and all
10,000 to judge by, started from clamped and scaled float weights (SAT's first stage), one for each seed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sat_cifar10
from record import machine, write_record

if TYPE_CHECKING:
    from tenfold.methods import Method

SETTING = "two stages"
SEEDS = (0, 1, 2)
RATE = 0.03
Job = tuple[str, int]
"""The name of a run and its seed."""


def start_of(seed: int, data: str, work: str) -> Path:
    """The float network that all runs of a seed start from; trained if it is not there."""
    if not sat_cifar10.has_files(work, (SETTING, "sat float", seed)):
        sat_cifar10.run(SETTING, "sat float", seed, data, work)
    return sat_cifar10.folder_of(work, SETTING, "sat float", seed) / "artifact.safetensors"


def mobile_start_of(seed: int, data: str, work: str) -> Path:
    """A small MobileNetV2, trained in float, that runs of a seed start from; trained if it is not there."""
    from tenfold import fit, models, tasks
    from tenfold.train import TrainConfig

    place = Path(work) / f"mobilenet-float-{seed}"
    if not (place / "artifact.safetensors").exists():
        import torch

        torch.manual_seed(seed)
        task = tasks.create("classify", data=data, image_size=16, subset=6000)
        config = TrainConfig(epochs=15, batch_size=100, lr=0.1, weight_decay=4e-5, seed=seed, device="cpu")
        fit(models.build("mobilenet_v2_tiny"), task, config=config, run_dir=place, quiet=True, resume=True)
    return place / "artifact.safetensors"


def train_mobile(name: str, method: Method, seed: int, data: str, work: str, *, epochs: int) -> dict[str, Any]:
    """Train one MobileNetV2 from the float start of its seed; returns the report."""
    import torch

    from tenfold import fit, load, models, tasks
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    network = models.build("mobilenet_v2_tiny")
    network.load_state_dict(load(mobile_start_of(seed, data, work)).state_dict())
    task = tasks.create("classify", data=data, image_size=16, subset=6000)
    config = TrainConfig(
        epochs=epochs, batch_size=100, lr=0.02, weight_decay=4e-5, calibration_batches=5, seed=seed, device="cpu"
    )
    place = Path(work) / f"{name}-{seed}".replace(" ", "-").replace(",", "")
    return fit(network, task, [method], config=config, run_dir=place, quiet=True, resume=True).report


def train(
    name: str, method: Method, seed: int, data: str, work: str, *, epochs: int, cycles: int = 1, **changes: Any
) -> dict[str, Any]:
    """Train one network from the float start of its seed, with changes to the options; returns the report."""
    import torch

    from tenfold import fit, load, models, tasks
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    options = sat_cifar10.SETTINGS[SETTING]
    task = tasks.create("classify", data=data, image_size=options["image_size"], subset=options["subset"], pixels=True)
    network = models.build(options["model"], num_classes=10, stem_norm=options["stem_norm"])
    network.load_state_dict(load(start_of(seed, data, work)).state_dict())
    config = TrainConfig(
        epochs=epochs,
        cycles=cycles,
        batch_size=100,
        lr=RATE,
        weight_decay=4e-5,
        calibration_batches=options["calibration"],
        seed=seed,
        device="cpu",
        **changes,
    )
    place = Path(work) / f"{name}-{seed}".replace(" ", "-").replace(",", "")
    return fit(network, task, [method], config=config, run_dir=place, quiet=True, resume=True).report


def run_all(
    results: Path,
    names: Sequence[str],
    run: Callable[[str, int, str, str], dict[str, Any]],
    facts: dict[str, Any],
    description: str,
    start_for: Callable[[str], Callable[[int, str, str], Path]] = lambda name: start_of,
) -> None:
    """Run what is not recorded yet, two trainings at a time, and record each as it ends.

    Args:
        results: the JSON file.
        names: of the runs.
        run: (name, seed, data folder, work folder) -> its record.
        facts: of the experiment, recorded beside the runs.
        description: for --help.
        start_for: name of a run -> what trains the network that it starts from.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 (train.tar.xz and test.tar.xz)")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-sat-cifar10"))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = json.loads(results.read_text())["runs"] if results.exists() else []
    done = {(entry["name"], entry["seed"]) for entry in runs}
    jobs = [(name, seed) for seed in SEEDS for name in names if (name, seed) not in done]
    with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
        starts = dict.fromkeys((start_for(name), seed) for name, seed in jobs)
        for future in [pool.submit(start, seed, arguments.data, arguments.work) for start, seed in starts]:
            future.result()
        futures = [pool.submit(run, name, seed, arguments.data, arguments.work) for name, seed in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            entry = future.result()
            runs.append(entry)
            order = {
                name: number for number, name in enumerate(names)
            }  # runs of the past, under other names, come last
            runs.sort(key=lambda one: (order.get(one["name"], len(order)), one["name"], one["seed"]))
            write_record(results, {"machine": machine(), **facts, "runs": runs})
            print(f"{number}/{len(jobs)} {entry['name']} seed {entry['seed']}: {entry['top1']}", flush=True)
