"""A class for each pixel of CamVid: float, 8 bits, 4 bits, and learned bits at the BitOPs of 4 bits.

The claim (arXiv 1912.10207, arXiv 2007.02017, for classifiers): scale-adjusted training keeps at 8 bits, and nearly at
4 bits, what float has, and learned bits are better than the same bits everywhere at the same BitOPs. Here the methods
meet another task, unchanged.

    python benchmarks/camvid.py --data CAMVID_FOLDER        # about 25 minutes on two cores; resumable

MobileNetV2 of half the width under LR-ASPP, images of 240x180 from scratch, judged on the test part: mean intersection
over union. The quantized networks start from the float one of their seed. Each is exported as `compact` and `fast`, the
files are judged on the same images, and timed in turns with the float file. Recorded in results/camvid.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from record import machine, write_record

if TYPE_CHECKING:
    from tenfold.methods import Method

RESULTS = Path(__file__).parent / "results" / "camvid.json"
SEEDS = (0,)
FLOAT = "float"
NAMES = (FLOAT, "SAT, 8 bits", "SAT, 4 bits", "FracBits, BitOPs of 4 bits")
BITS_RATE = 10.0
"""How much faster than weights bits learn: in a training so short they would move by half of one otherwise."""
SETTING = {"width": 0.5, "head": "lraspp", "head_channels": 64, "batch_size": 8, "float_epochs": 30, "epochs": 10}
RATES = {True: 0.05, False: 0.02}
"""Learning rate, by whether the network is the float one."""
PROFILES = ("compact", "fast")


def method_of(name: str) -> Method:
    """The method of a run; the float network is clamped and scaled, as SAT's first stage."""
    from tenfold.methods import SAT, FracBits

    if name.startswith("FracBits"):
        return FracBits(like=4, bits_rate=BITS_RATE, kappa=1.0)
    bits = 32 if name == FLOAT else int(name.split()[1])
    return SAT(w_bits=bits, a_bits=bits)


def folder_of(work: str, name: str, seed: int) -> Path:
    """Where a run keeps its files."""
    return Path(work) / f"{name}-{seed}".replace(" ", "-").replace(",", "")


def run(name: str, seed: int, data: str, work: str, subset: int | None, epochs: int | None) -> dict[str, Any]:
    """One training with its exports; returns its record."""
    import torch

    from tenfold import fit, load, models, tasks
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = tasks.create("segment", data=data, pixels=True, eval_part="test", subset=subset)
    network = models.build(
        "segmenter",
        num_classes=task.describe()["num_outputs"],
        network="mobilenet_v2",
        options={"width": SETTING["width"]},
        head=SETTING["head"],
        head_channels=SETTING["head_channels"],
    )
    is_float = name == FLOAT
    if not is_float:
        network.load_state_dict(load(folder_of(work, FLOAT, seed) / "artifact.safetensors").state_dict())
    config = TrainConfig(
        epochs=epochs or SETTING["float_epochs" if is_float else "epochs"],
        batch_size=SETTING["batch_size"],
        eval_batch_size=16,
        eval_epochs=5,
        lr=RATES[is_float],
        calibration_batches=0 if is_float else 5,
        seed=seed,
        device="cpu",
    )
    place = folder_of(work, name, seed)
    result = fit(network, task, [method_of(name)], config=config, run_dir=place, quiet=True, resume=True)
    return {
        "name": name,
        "seed": seed,
        "metrics": result.report["metrics"]["final"],
        "cost": result.report["cost"]["after"],
        "used": result.report.get("found", {}).get("fracbits", {}).get("used"),
        "curve": [row["miou"] for row in result.report["curves"] if "miou" in row],
        "seconds": round(result.report["seconds"]),
        "files": exported(place, data, ["float"] if is_float else PROFILES),
    }


def exported(place: Path, data: str, profiles: Any) -> dict[str, Any]:
    """Export a network, and judge each file on the same images; by profile."""
    from tenfold import export
    from tenfold.cli.evaluate import evaluation_batches
    from tenfold.cli.export import export_artifact

    found = {}
    for profile in profiles:
        path = place / f"{profile}.onnx"
        report = export_artifact(place, path, profile, data=data, images=32)
        batches = evaluation_batches(export.read_task(path), data, 1)
        scores = export.evaluate(path, batches, engine="onnxruntime", threads=1)
        found[profile] = {
            "bytes": report.file_bytes,
            "same_answer": report.top1_agreement,
            "integer_layers": sum(layer.runs == "integer" for layer in report.layers),
            "layers": len(report.layers),
            "miou": scores.metrics["miou"],
        }
    return found


def timed(work: str, seed: int) -> list[dict[str, Any]]:
    """Milliseconds of each file, in turns with the float file."""
    from tenfold.export import bench

    files = {(FLOAT, "float"): folder_of(work, FLOAT, seed) / "float.onnx"}
    files |= {
        (name, profile): folder_of(work, name, seed) / f"{profile}.onnx" for name in NAMES[1:] for profile in PROFILES
    }
    rows = bench(list(files.values()), engine="onnxruntime", threads=1, rounds=9)
    return [
        {
            "name": name,
            "profile": profile,
            "median_ms": round(row.timing.median_ms, 3),
            "speedup": round(row.speedup, 2),
        }
        for (name, profile), row in zip(files, rows, strict=True)
    ]


def main() -> None:
    """Run what is not recorded yet, the float networks first, two at a time; then time the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, help="folder with CamVid: train/ and test/, images/ and masks/ in each"
    )
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-camvid"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--subset", type=int, help="train on so many images, to see that everything works")
    parser.add_argument("--epochs", type=int, help="epochs of every run, likewise")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work, results = arguments.work, arguments.results
    record = json.loads(results.read_text()) if results.exists() else {"runs": []}
    # A run whose files are gone is made again: the others start from them, and all are timed.
    runs = [one for one in record["runs"] if any(folder_of(work, one["name"], one["seed"]).glob("*.onnx"))]
    done = {(one["name"], one["seed"]) for one in runs}
    todo = [(name, seed) for name in NAMES for seed in SEEDS if (name, seed) not in done]
    work_on = partial(run, data=arguments.data, work=work, subset=arguments.subset, epochs=arguments.epochs)

    def write(times: list[dict[str, Any]]) -> None:
        runs.sort(key=lambda one: (NAMES.index(one["name"]), one["seed"]))
        write_record(results, {"machine": machine(), **SETTING, "runs": runs, "times": times})

    for is_float in (True, False):
        jobs = [job for job in todo if (job[0] == FLOAT) == is_float]
        with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
            futures = [pool.submit(work_on, *job) for job in jobs]
            for number, future in enumerate(as_completed(futures), 1):
                one = future.result()
                runs.append(one)
                write([])
                print(
                    f"{number}/{len(jobs)} {one['name']} seed {one['seed']}: {one['metrics']['miou']:.4f}", flush=True
                )
    write(timed(work, SEEDS[0]))


if __name__ == "__main__":
    main()
