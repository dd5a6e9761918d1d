"""SAT against plain DoReFa + PACT at 4, 3 and 2 bits, where not every convolution is followed by a batch norm.

The claim (arXiv 1912.10207): clamped weights break the two rules of efficient training unless a batch norm follows each
layer and the last layer has few outputs; scale adjustment and the calibrated gradient repair both, so SAT wins at every
bit-width. CIFAR-10 has ten outputs, so the rule that can bite here is the second one: the pre-activation ResNet has
convolutions that end in the running sum and not in a batch norm.

First and last layer keep 8-bit weights and the first layer reads raw pixels (`sat.md` section 2.4). Images are shrunk
to 16x16, which two CPU cores can train. Both methods get the same images, schedules and seeds.

    python benchmarks/sat_cifar10.py --data CIFAR_FOLDER            # half an hour on two cores; resumable

Every run, good or bad, is recorded in results/sat_cifar10.json, with the settings that were tried before the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from record import machine, write_record

BITS = (4, 3, 2)
METHODS = ("float", "sat float", *(f"{kind} {bits}" for kind in ("qat", "sat") for bits in BITS))
_DATA = {"model": "preresnet20_cifar", "image_size": 16, "subset": 6000}
_FROM_SCRATCH = {**_DATA, "epochs": 8, "lr": 0.05, "stem_norm": True, "calibration": 0, "seeds": [0]}
_TWO_STAGES = {**_DATA, "epochs": 3, "lr": 0.01, "stem_norm": True, "calibration": 5, "seeds": [0, 1, 2]}
SETTINGS: dict[str, dict[str, Any]] = {
    "from scratch, bare stem": {
        **_FROM_SCRATCH,
        "stem_norm": False,
        "why_left": "Raw pixels enter the running sum through a stem without batch norm and drown the blocks, more so "
        "where SAT brings their outputs to unit size.",
    },
    "from scratch": {
        **_FROM_SCRATCH,
        "why_left": "Four bits end below three for both methods: the clipping level of the last layer starts at 10, "
        "its inputs are means around 0.4, so they become zeros and ones, and the level is not learned in 480 steps.",
    },
    "from scratch, calibrated levels": {
        **_FROM_SCRATCH,
        "epochs": 6,
        "calibration": 5,
        "why_left": "The clipping level of the last layer, now small, ran through zero at the learning rate of a "
        "training from scratch.",
    },
    # From here on the paper's own recipe: train float weights first (for SAT clamped and scaled), then start from them.
    "two stages, small last layer": {
        **_TWO_STAGES,
        "why_left": "SAT's float stage does not learn. The last layer starts with deviation 0.01, and with ten outputs "
        "SAT brings it to 0.32: gradients of its weights are multiplied by that ratio, so its learning rate is a "
        "thousand times the others'. With a thousand outputs, for which that start was made, it is ten times.",
    },
    "two stages": {**_TWO_STAGES, "default_linear": True},
}
FLOAT_STAGE = {"epochs": 6, "lr": 0.05}
RESULTS = Path(__file__).parent / "results" / "sat_cifar10.json"


def run(setting: str, method: str, seed: int, data: str, folder: str) -> dict[str, object]:
    """Train one network and return its record."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from tenfold import fit, load, methods, models, tasks
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    options = SETTINGS[setting]
    task = tasks.create("classify", data=data, image_size=options["image_size"], subset=options["subset"], pixels=True)
    network = models.build(options["model"], num_classes=10, stem_norm=options["stem_norm"])
    kind, _, bits = method.rpartition(" ")
    is_float = bits == "float"
    if options.get("default_linear"):  # deviation 0.07
        network.classifier.reset_parameters()
    if setting.startswith("two stages") and not is_float:
        start = folder_of(folder, setting, "float" if kind == "qat" else "sat float", seed) / "artifact.safetensors"
        network.load_state_dict(load(start).state_dict())
    chosen = []
    if kind:
        number = 32 if is_float else int(bits)
        chosen = [methods.create(kind, w_bits=number, a_bits=number, scheme="original")]
    stage = FLOAT_STAGE if is_float and setting.startswith("two stages") else options
    config = TrainConfig(
        epochs=stage["epochs"],
        batch_size=100,
        lr=stage["lr"],
        weight_decay=4e-5,
        calibration_batches=0 if is_float else options["calibration"],
        seed=seed,
        device="cpu",
    )
    place = folder_of(folder, setting, method, seed)
    result = fit(network, task, chosen, config=config, run_dir=place, quiet=True, resume=True)
    return {
        "setting": setting,
        "method": method,
        "seed": seed,
        "top1": result.metrics["top1"],
        "loss": result.metrics["loss"],
        "curve": [epoch["top1"] for epoch in result.report["curves"]],
        "seconds": result.report["seconds"],
    }


def has_files(work: str, job: tuple[str, str, int]) -> bool:
    """Whether a run's artifact is still there."""
    return (folder_of(work, *job) / "artifact.safetensors").exists()


def folder_of(work: str, setting: str, method: str, seed: int) -> Path:
    """Where a run keeps its files."""
    return Path(work) / f"{setting}-{method}-{seed}".replace(" ", "-").replace(",", "")


def main() -> None:
    """Run what is not recorded yet, the float stages first, some trainings at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 (train.tar.xz and test.tar.xz)")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-sat-cifar10"))
    parser.add_argument("--settings", nargs="*", default=["two stages"], choices=list(SETTINGS))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    done = {(entry["setting"], entry["method"], entry["seed"]) for entry in runs}
    # The later runs start from the float stages' files, which may be gone though the results are recorded.
    done = {job for job in done if not job[1].endswith("float") or has_files(arguments.work, job)}
    runs = [
        entry
        for entry in runs
        if entry["setting"] not in arguments.settings or (entry["setting"], entry["method"], entry["seed"]) in done
    ]
    jobs = [
        (setting, method, seed)
        for setting in arguments.settings
        for seed in SETTINGS[setting]["seeds"]
        for method in METHODS
        if (setting, method, seed) not in done
    ]
    for floats in (True, False):
        todo = [job for job in jobs if job[1].endswith("float") == floats]
        with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
            futures = [pool.submit(run, *job, arguments.data, arguments.work) for job in todo]
            for number, future in enumerate(as_completed(futures), 1):
                runs.append(future.result())
                runs.sort(key=lambda entry: (entry["setting"], entry["method"], entry["seed"]))
                write_record(RESULTS, {"machine": machine(), "settings": SETTINGS, "runs": runs})
                last = future.result()
                print(f"{number}/{len(todo)} {last['method']} seed {last['seed']}: {last['top1']:.4f}", flush=True)


if __name__ == "__main__":
    main()
