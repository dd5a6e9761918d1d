"""AutoSpace: networks found in an evolved space against those found in the hand-made one, at equal cost.

The claim (arXiv 2103.11833): a space that was evolved holds better networks than the one that people drew. Both
searches see the same images for the same number of steps and must keep the same limit on multiply-adds; what they find
is trained anew, in the same way:

- "evolved": rounds of evolution for half of the steps, then a network is chosen in the evolved space;
- "hand-made": all of the steps choose a network among kernels of 3, 5, 7 and expansions of 3, 6, and whether a block is
  there;
- "random": no search at all: what untrained scores choose in the hand-made space within the limit.

    python benchmarks/autospace_cifar10.py --data CIFAR_FOLDER      # some five hours on one core; resumable
    python benchmarks/autospace_cifar10.py --data CIFAR_FOLDER --try FOLDER   # minutes, to see that it works

Every run is recorded in results/autospace_cifar10.json, with the seconds of the search: a step of the evolved search
has other cells than one of the hand-made, so equal steps are not quite equal times.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "autospace_cifar10.json"
KINDS = ("evolved", "hand-made", "random")


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    seeds: tuple[int, ...] = (0, 1, 2)
    macs: int = 2_500_000
    image: int = 16
    subset: int = 10_000
    search_epochs: int = 16
    train_epochs: int = 30
    rounds: int = 10
    batch: int = 128


TRIAL = Size(seeds=(0,), subset=320, search_epochs=2, train_epochs=1, rounds=2, batch=32)


def random_network(task: Any, macs: int, seed: int) -> Any:
    """A choice in the hand-made space by scores that nothing has trained, within the limit."""
    import torch

    from tenfold import Budget
    from tenfold.models.autospace import TINY
    from tenfold.search import AutoSpace, CellSpace
    from tenfold.search.supernet import cell_supernet, mixed_blocks

    torch.manual_seed(seed)
    method, images = AutoSpace(rounds=0), task.example(16)
    network = cell_supernet(TINY, capacity=method.capacity, space=CellSpace(), num_classes=10, in_channels=3)
    method.attach(network, Budget(macs=macs), images)
    for block in mixed_blocks(network).values():
        torch.nn.init.normal_(block.scores)
    return method.finish(network, iter([images])).architecture


def run(kind: str, seed: int, data: str, size: Size, folder: Path) -> dict[str, Any]:
    """Search, train what was found, and say how good it is. What a killed run has done is not done again."""
    import torch

    from tenfold import Budget, build, fit, tasks
    from tenfold.search import AutoSpace, search_autospace
    from tenfold.train import TrainConfig

    task = tasks.create("classify", data=data, image_size=size.image, subset=size.subset)
    seconds, report = 0.0, {}
    if kind == "random":
        architecture = random_network(task, size.macs, seed)
    else:
        found = search_autospace(
            task,
            Budget(macs=size.macs),
            method=AutoSpace(rounds=size.rounds if kind == "evolved" else 0),
            config=TrainConfig(
                epochs=size.search_epochs, batch_size=size.batch, lr=0.1, warmup_epochs=1, seed=seed, device="cpu"
            ),
            run_dir=folder / f"{kind}-{seed}-search",
            resume=True,
        )
        architecture, seconds = found.architecture, found.result.report["seconds"]
        report = found.result.report["found"]["autospace"]
    torch.manual_seed(seed)
    config = TrainConfig(epochs=size.train_epochs, batch_size=size.batch, lr=0.1, seed=seed, device="cpu")
    done = fit(build(architecture), task, config=config, run_dir=folder / f"{kind}-{seed}-train", resume=True)
    return {
        "kind": kind,
        "seed": seed,
        "top1": done.metrics["top1"],
        "macs": done.report["cost"]["after"]["macs"],
        "params": done.report["cost"]["after"]["params"],
        "search_seconds": seconds,
        "architecture": architecture.to_dict(),
        "space": report.get("space", []),
    }


def main() -> None:
    """Do what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the CIFAR-10 folder")
    parser.add_argument("--runs", type=Path, default=Path("runs/autospace_cifar10"), help="where unfinished runs stand")
    parser.add_argument("--try", dest="trial", type=Path, help="a tiny trial, recorded in this folder only")
    words = parser.parse_args()
    size = TRIAL if words.trial else Size()
    results = words.trial / "trial.json" if words.trial else RESULTS
    runs = json.loads(results.read_text())["runs"] if results.exists() else []
    for seed in size.seeds:
        for kind in KINDS:
            if any((one["kind"], one["seed"]) == (kind, seed) for one in runs):
                continue
            folder = words.trial or words.runs
            runs.append(run(kind, seed, words.data, size, folder))
            write_record(results, {"size": vars(size), "machine": machine(), "runs": runs})
            print(f"{kind}, seed {seed}: {runs[-1]['top1']:.4f} at {runs[-1]['macs']:,} multiply-adds", flush=True)


if __name__ == "__main__":
    main()
