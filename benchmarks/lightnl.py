"""LightNL against the conventional non-local block: multiply-adds, time, accuracy; and what AutoNL finds.

The claims (arXiv 2004.01961): LightNL costs some 400 times less than conventional blocks in MobileNetV2 and helps as
much; a search finds better places than hand-set ones.

    python benchmarks/lightnl.py --data CIFAR_FOLDER         # about an hour on two cores; resumable

Trainings are on 16x16 CIFAR-10 images, 6000 to train on and all 10,000 to judge by. First one small network with
conventional blocks, with LightNL and without, at the same places. Then for each seed a search, whose found network is
trained from scratch, beside the same backbone without LightNL, and with blocks placed by hand (every block, a quarter
of the channels, the dearest left out until it costs no more than what was found). Recorded in results/lightnl.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "lightnl.json"
SEEDS = (0, 1, 2)
SIDE, SUBSET, EPOCHS, SEARCH_EPOCHS = 16, 6000, 20, 10
BUDGET = 3_000_000
"""Multiply-adds of the found network at 16x16; the supernet has 5.2 million."""
BLOCKS = (
    (8, 1, 16, 0), (16, 1, 24, 0), (16, 1, 48, 0), (24, 2, 0, 48), (24, 1, 72, 0), (40, 2, 0, 96), (40, 1, 120, 0),
    (64, 1, 0, 160),
)  # fmt: skip
"""Output channels, stride, atoms of kernel size 3 and 5 of the small network."""
NAMES = (
    "small, no blocks",
    "small, LightNL",
    "small, conventional",
    "found",
    "found, LightNL taken out",
    "found, placed by hand",
)
# MobileNetV2 at 224x224: side and channels of the map behind each projection.
PLACES = (
    (112, 16), *((56, 24),) * 2, *((28, 32),) * 3, *((14, 64),) * 4, *((14, 96),) * 3, *((7, 160),) * 3, (7, 320),
)  # fmt: skip
LARGEST_TIMED = 56  # all pairs of places of a 112x112 map take 630 MB


def costs() -> dict[str, Any]:
    """Extra multiply-adds in MobileNetV2, from the conventional block to LightNL, in all and by place."""
    from tenfold.layers.nonlocal_block import non_local_macs

    rows = [{"side": side, "channels": c, **non_local_macs(c, side, side)} for side, c in PLACES]
    names = [name for name in rows[0] if name not in ("side", "channels")]
    totals = {name: int(sum(row[name] for row in rows)) for name in names}
    distinct = {(row["side"], row["channels"]): row for row in rows}
    return {
        "totals": totals,
        "factor": round(totals["conventional"] / totals["LightNL"], 1),
        "places": [
            {"side": side, "channels": c, "factor": round(row["conventional"] / row["LightNL"], 1)}
            for (side, c), row in distinct.items()
        ],
    }


def times(rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of each block for one image, in turns."""
    import torch

    from tenfold.cost import interleaved
    from tenfold.layers.lightnl import LightNonLocal
    from tenfold.layers.nonlocal_block import NonLocalBlock

    torch.set_num_threads(1)
    rows = []
    for side, channels in dict.fromkeys(PLACES):
        if side > LARGEST_TIMED:
            continue
        blocks = {
            "conventional": NonLocalBlock(channels),
            "cheaper order": NonLocalBlock(channels, order="auto"),
            "LightNL": LightNonLocal(channels, ratio=0.25, stride=2 if side > 14 else 1),
        }
        x = torch.randn(1, channels, side, side)
        with torch.inference_mode():
            timings = interleaved({n: partial(b.eval(), x) for n, b in blocks.items()}, rounds=rounds)
        plain = timings["LightNL"].median_ms
        rows.append(
            {
                "side": side,
                "channels": channels,
                "median_ms": {name: round(timing.median_ms, 4) for name, timing in timings.items()},
                "ratio": {name: round(timing.median_ms / plain, 2) for name, timing in timings.items()},
            }
        )
        print(rows[-1], flush=True)
    return rows


def train(network: Any, name: str, seed: int, settings: argparse.Namespace, methods: Any = (), **limits: int) -> Any:
    """Train one network; returns its report."""
    import torch

    from tenfold import Budget, fit, tasks
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    task = tasks.create("classify", data=settings.data, image_size=SIDE, subset=settings.subset)
    config = TrainConfig(
        epochs=settings.search_epochs if methods else settings.epochs,
        batch_size=100,
        lr=0.1,
        warmup_epochs=0.5,
        weight_decay=1e-4,
        clip_grad=5.0,
        ema_decay=0.99,
        seed=seed,
        device="cpu",
        eval_epochs=settings.epochs,
    )
    place = Path(settings.work) / f"{name}-{seed}".replace(" ", "-").replace(",", "")
    budget = Budget(**limits) if limits else None
    return fit(network, task, list(methods), budget, config=config, run_dir=place, quiet=True, resume=True).report


def search(seed: int, settings: argparse.Namespace) -> dict[str, Any]:
    """The table of blocks that a search finds, and how long it took; searched if that is not on the disk yet."""
    from tenfold import build
    from tenfold.methods import AutoNL

    path = Path(settings.work) / f"search-{seed}.json"
    if not path.exists():
        import torch

        torch.manual_seed(seed)
        network = build("autonl_supernet_tiny", num_classes=10)
        report = train(network, "search", seed, settings, [AutoNL(search_share=1.0)], macs=BUDGET)
        found = report["found"]["autonl"]
        content = {"options": found["architecture"]["options"], "seconds": report["seconds"], "macs": found["macs"]}
        write_record(path, content)
    content = json.loads(path.read_text())
    return dict(content)


def network_of(name: str, seed: int, settings: argparse.Namespace) -> Any:
    """A fresh network."""
    import torch

    from tenfold import build
    from tenfold.layers.atomic import FusedAtomicBlock
    from tenfold.layers.nonlocal_block import NonLocalBlock

    torch.manual_seed(seed)
    if name.startswith("small"):
        ratio = 0.25 if name == "small, LightNL" else 0.0
        table = [[*row, 0.0, ratio, 1] for row in BLOCKS]
        network = build("autonl", num_classes=10, blocks=table, stem=16, tail=256, stride=1, dropout=0.0)
        if name == "small, conventional":
            for block in network.modules():
                if isinstance(block, FusedAtomicBlock):
                    block.attention = NonLocalBlock(block.project.conv.out_channels)
        return network
    options = search(seed, settings)["options"]
    if name == "found, LightNL taken out":
        options["blocks"] = [[*row[:5], 0.0, 1] for row in options["blocks"]]
    elif name == "found, placed by hand":
        options["blocks"] = placed_by_hand(options)
    return build("autonl", **options)


def placed_by_hand(options: dict[str, Any]) -> list[list[float]]:
    """The found backbone with LightNL behind every block, less the dearest, within the found multiply-adds."""
    from tenfold import build, profile

    shape = (3, SIDE, SIDE)
    limit = profile(build("autonl", **options), shape).macs
    table = [[*row[:5], 0.25 if row[2] + row[3] else 0.0, 1] for row in options["blocks"]]

    def macs(rows: list[list[float]]) -> int:
        return profile(build("autonl", **{**options, "blocks": rows}), shape).macs

    while macs(table) > limit:
        without = {
            i: [[*r[:5], 0.0, 1] if i == j else r for j, r in enumerate(table)] for i, row in enumerate(table) if row[5]
        }
        table = min(without.values(), key=macs)
    return table


def run(name: str, seed: int, settings: argparse.Namespace) -> dict[str, Any]:
    """One training; returns its record."""
    network = network_of(name, seed, settings)
    report = train(network, name, seed, settings)
    cost = report["cost"]["after"]
    blocks = (report["architecture"] or {}).get("options", {}).get("blocks", [])
    return {
        "name": name,
        "seed": seed,
        "top1": report["metrics"]["final"]["top1"],
        "macs": cost["macs"],
        "params": cost["params"],
        "lightnl": sum(bool(row[5]) for row in blocks),
        "seconds": report["seconds"],
    }


def main() -> None:
    """Count, time, then run the trainings that are not recorded yet, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 (train.tar.xz and test.tar.xz)")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-lightnl"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--search-epochs", type=int, default=SEARCH_EPOCHS)
    parser.add_argument("--subset", type=int, default=SUBSET)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rounds", type=int, default=15)
    settings = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    Path(settings.work).mkdir(parents=True, exist_ok=True)
    record = json.loads(settings.results.read_text()) if settings.results.exists() else {"runs": []}
    if "times" not in record:
        with ProcessPoolExecutor(1) as pool:
            record |= {"costs": pool.submit(costs).result(), "times": pool.submit(times, settings.rounds).result()}
    runs = record["runs"]
    done = {(entry["name"], entry["seed"]) for entry in runs}
    jobs = [(name, seed) for seed in settings.seeds for name in NAMES if (name, seed) not in done]
    facts = {
        "side": SIDE,
        "subset": settings.subset,
        "epochs": settings.epochs,
        "search_epochs": settings.search_epochs,
    }
    with ProcessPoolExecutor(settings.processes, max_tasks_per_child=1) as pool:
        found = list(pool.map(partial(search, settings=settings), settings.seeds))
        facts |= {"budget": BUDGET, "search_seconds": [round(one["seconds"]) for one in found]}
        futures = [pool.submit(run, name, seed, settings) for name, seed in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            entry = future.result()
            runs.append(entry)
            runs.sort(key=lambda one: (NAMES.index(one["name"]), one["seed"]))
            write_record(settings.results, {"machine": machine(), **facts, **record})
            print(f"{number}/{len(jobs)} {entry['name']} seed {entry['seed']}: {entry['top1']}", flush=True)


if __name__ == "__main__":
    main()
