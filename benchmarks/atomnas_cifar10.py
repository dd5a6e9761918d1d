"""AtomNAS against a narrower MobileNetV2 and against uniform pruning, at the same multiply-adds.

The claim (arXiv 1912.09640): a network that shrinks channel by channel, with kernel sizes mixed, is more accurate than
hand-made ones of the same cost, and needs no second training. All see the same images, epochs and schedule:

- "atomnas": the small supernet, shrunk to the budget while it trains;
- "atomnas, penalties by cost": the same with the paper's penalties, proportional to what atoms cost;
- "uniform": the supernet's table with the same share of each kernel's atoms everywhere, trained from the start;
- "mobilenet_v2": `mobilenet_v2_tiny` with the width that fits the budget;
- "found, from scratch": the architecture that "atomnas" found, trained anew, which is what searching costs is compared
  with.

    python benchmarks/atomnas_cifar10.py --data CIFAR_FOLDER        # an hour on two cores; resumable

Every run is recorded in results/atomnas_cifar10.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "atomnas_cifar10.json"
SEEDS = (0, 1, 2)
BUDGETS = {"1.62M": 1_621_040, "1.17M": 1_172_512}
"""Multiply-adds of MobileNetV2 at two widths, so that all have the same."""
KINDS = ("atomnas", "atomnas, penalties by cost", "uniform", "mobilenet_v2", "found, from scratch")
EPOCHS, IMAGE, SUBSET, RATE = 20, 16, 5000, 0.05
SEARCH_SHARE = 0.4


def network_for(kind: str, budget: str, seed: int) -> Any:
    """The network to start from."""
    from tenfold import build, profile
    from tenfold.models import Architecture

    macs = BUDGETS[budget]
    shape = (3, IMAGE, IMAGE)
    if kind.startswith("atomnas"):
        return build("atomnas_supernet_tiny")
    if kind == "found, from scratch":
        wanted = {"kind": "atomnas", "budget": budget, "seed": seed}
        runs = json.loads(RESULTS.read_text())["runs"]
        found = next(one for one in runs if wanted.items() <= one.items())
        return build(Architecture.from_dict(found["architecture"]))
    if kind == "uniform":
        return uniform(macs)
    width = 1.0
    while profile(network := build("mobilenet_v2_tiny", width=width), shape).macs > macs:
        width = round(width - 0.01, 2)
    return network


def uniform(macs: int) -> Any:
    """The supernet with the same share of every block's atoms, and one more of each kernel where that still fits."""
    from tenfold import build, profile

    table = build("atomnas_supernet_tiny").found_architecture().options

    def network(blocks: list[list[int]]) -> Any:
        return build("atomnas", **{**table, "blocks": blocks})

    def fits(blocks: list[list[int]]) -> bool:
        return profile(network(blocks), (3, IMAGE, IMAGE)).macs <= macs

    def scaled(share: float) -> list[list[int]]:
        return [[c, s, *(max(1, round(share * one)) for one in atoms)] for c, s, *atoms in table["blocks"]]

    share = 1.0
    while not fits(blocks := scaled(share)):
        share -= 0.005
    for index, (channels, stride, *atoms) in enumerate(blocks):
        more = [*blocks[:index], [channels, stride, *(one + 1 for one in atoms)], *blocks[index + 1 :]]
        blocks = more if fits(more) else blocks
    return network(blocks)


def run(kind: str, budget: str, seed: int, data: str, work: str) -> dict[str, Any]:
    """Train one network and return its record."""
    import torch

    from tenfold import Budget, fit, tasks
    from tenfold.methods import AtomNAS
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = tasks.create("classify", data=data, image_size=IMAGE, subset=SUBSET)
    searches = kind.startswith("atomnas")
    started = time.process_time()
    result = fit(
        network_for(kind, budget, seed),
        task,
        [AtomNAS(search_share=SEARCH_SHARE, weighting="cost" if "cost" in kind else "equal", multiple=1)]
        if searches
        else [],
        Budget(macs=BUDGETS[budget]) if searches else None,
        config=TrainConfig(epochs=EPOCHS, batch_size=100, lr=RATE, weight_decay=4e-5, seed=seed, device="cpu"),
        run_dir=Path(work) / f"{kind}-{budget}-{seed}".replace(" ", "-").replace(",", ""),
        quiet=True,
        resume=True,
    )
    report = result.report
    return {
        "kind": kind,
        "budget": budget,
        "seed": seed,
        "top1": result.metrics["top1"],
        "macs": report["cost"]["after"]["macs"],
        "params": report["cost"]["after"]["params"],
        "curve": [row["top1"] for row in report["curves"]],
        "seconds": report["seconds"],
        "cpu_seconds": round(time.process_time() - started, 1),
        "atoms": report["found"]["atomnas"]["trajectory"][-1]["atoms"] if searches else None,
        "architecture": report["found"]["atomnas"]["architecture"] if searches else None,
    }


def main() -> None:
    """Run what is not recorded yet; what was found trains anew after all searches are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 (train.tar.xz and test.tar.xz)")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-atomnas-cifar10"))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    done = {(one["kind"], one["budget"], one["seed"]) for one in runs}
    facts = {"epochs": EPOCHS, "image": IMAGE, "subset": SUBSET, "lr": RATE, "search_share": SEARCH_SHARE}
    for kinds in (KINDS[:-1], KINDS[-1:]):
        jobs = [(k, b, s) for b in BUDGETS for s in SEEDS for k in kinds if (k, b, s) not in done]
        with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
            futures = [pool.submit(run, *job, arguments.data, arguments.work) for job in jobs]
            for number, future in enumerate(as_completed(futures), 1):
                runs.append(future.result())
                runs.sort(key=lambda one: (list(BUDGETS).index(one["budget"]), KINDS.index(one["kind"]), one["seed"]))
                write_record(RESULTS, {"machine": machine(), **facts, "runs": runs})
                last = future.result()
                done_text = f"{last['kind']} {last['budget']} {last['seed']}: {last['top1']}"
                print(f"{number}/{len(jobs)} {done_text}", flush=True)


if __name__ == "__main__":
    main()
