"""Shrinking a network and learning its bits in one training, against one after the other.

Both keep the same two budgets, multiply-adds and bytes, and see the same number of images:

- "together": AtomNAS and FracBits in one training;
- "one after the other": AtomNAS for half of the epochs, then FracBits on the network found, with its weights, for the
  other half.

    python benchmarks/atomnas_fracbits.py --data CIFAR_FOLDER        # half an hour on two cores; resumable

Every run is recorded in results/atomnas_fracbits.json.
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

RESULTS = Path(__file__).parent / "results" / "atomnas_fracbits.json"
SEEDS = (0, 1, 2)
KINDS = ("together", "one after the other")
MACS, BYTES = 1_621_040, 40_000
EPOCHS, IMAGE, SUBSET, RATE = 20, 16, 5000, 0.05
BITS_RATE = 10.0
"""Bits learn so much faster than weights: a short training moves them too little otherwise (fracbits_cifar10.py)."""

TRIED = (
    "Together, seed 0, 30 epochs: 24.2 % while bits saved what atoms were about to and inputs lost bits that no budget "
    "counts; 26.2 % (20 epochs) without that, while SAT's last layer took steps a thousand times as large as others."
)


def run(kind: str, seed: int, data: str, work: str) -> dict[str, Any]:
    """Train to both budgets one way or the other; returns the record."""
    import torch

    from tenfold import Budget, build, fit, tasks
    from tenfold.methods import AtomNAS, FracBits, Method
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    task = tasks.create("classify", data=data, image_size=IMAGE, subset=SUBSET)
    folder = Path(work) / f"{kind}-{seed}".replace(" ", "-")

    def train(network: Any, methods: list[Method], budget: Budget, epochs: int, part: str) -> Any:
        return fit(
            network,
            task,
            methods,
            budget,
            config=TrainConfig(
                epochs=epochs,
                batch_size=100,
                lr=RATE,
                weight_decay=4e-5,
                seed=seed,
                device="cpu",
                eval_epochs=5,
            ),
            run_dir=folder / part,
            quiet=True,
            resume=True,
        )

    torch.manual_seed(seed)
    supernet = build("atomnas_supernet_tiny")
    if kind == "together":
        methods = [AtomNAS(), FracBits(bits_rate=BITS_RATE)]
        parts = [train(supernet, methods, Budget(macs=MACS, bytes=BYTES), EPOCHS, "both")]
    else:
        found = train(supernet, [AtomNAS()], Budget(macs=MACS), EPOCHS // 2, "atoms")
        bits = FracBits(bits_rate=BITS_RATE)
        parts = [found, train(found.network, [bits], Budget(bytes=BYTES), EPOCHS - EPOCHS // 2, "bits")]
    cost = parts[-1].report["cost"]["after"]
    return {
        "kind": kind,
        "seed": seed,
        "top1": parts[-1].metrics["top1"],
        "macs": cost["macs"],
        "bytes": cost["bytes"],
        "params": cost["params"],
        "curve": [row["top1"] for part in parts for row in part.report["curves"] if "top1" in row],
        "seconds": round(sum(part.report["seconds"] for part in parts), 1),
    }


def main() -> None:
    """Run what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 (train.tar.xz and test.tar.xz)")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-atomnas-fracbits"))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    done = {(one["kind"], one["seed"]) for one in runs}
    jobs = [(kind, seed) for seed in SEEDS for kind in KINDS if (kind, seed) not in done]
    facts = {"macs": MACS, "bytes": BYTES, "epochs": EPOCHS, "image": IMAGE, "subset": SUBSET, "lr": RATE}
    with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
        futures = [pool.submit(run, *job, arguments.data, arguments.work) for job in jobs]
        for future in as_completed(futures):
            runs.append(future.result())
            runs.sort(key=lambda one: (KINDS.index(one["kind"]), one["seed"]))
            write_record(RESULTS, {"machine": machine(), **facts, "bits_rate": BITS_RATE, "tried": TRIED, "runs": runs})
            print({name: value for name, value in future.result().items() if name != "curve"}, flush=True)


if __name__ == "__main__":
    main()
