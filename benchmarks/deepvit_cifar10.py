"""DeepViT against the plain vision transformer at several depths, and re-attention put into a network of timm.

The claim (arXiv 2103.11886): plain vision transformers stop to gain from depth because the attention maps of their
blocks become alike; mixing the maps of the heads keeps them different. All see the same images, epochs and schedule:

- "vit": plain;
- "deepvit": re-attention in all blocks, as the authors start it;
- "deepvit, identity": the same, with the mixing started as the identity, and so what the batch norm alone does;
- "timm": a small vision transformer of timm, trained;
- "timm, longer": that one trained for as many epochs again;
- "timm, re-attention": that one with re-attention put into its deeper half, trained for as many epochs again.

Of every network the similarity of maps and features is measured on evaluation images, as `tenfold analyze collapse`
does.

    python benchmarks/deepvit_cifar10.py --data CIFAR_FOLDER        # resumable; --dry-run lists what is left to do

Every run is recorded in results/deepvit_cifar10.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any

from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "deepvit_cifar10.json"
SEEDS = (0, 1, 2)
DEPTHS = (8, 24)
OURS = ("vit", "deepvit", "deepvit, identity")
TIMM = ("timm", "timm, longer", "timm, re-attention")
TIMM_DEPTH, CHANGED = 12, tuple(range(6, 12))
FACTS = {"epochs": 12, "image": 32, "patch": 8, "subset": 10_000, "batch": 128, "lr": 1e-3, "analyzed": 64}


def timm_network() -> Any:
    """A vision transformer of timm at toy size."""
    from timm.models import VisionTransformer

    return VisionTransformer(
        img_size=FACTS["image"],
        patch_size=FACTS["patch"],
        embed_dim=64,
        depth=TIMM_DEPTH,
        num_heads=4,
        mlp_ratio=3,
        num_classes=10,
    )


def network_for(kind: str, depth: int, seed: int, task: Any, work: str) -> Any:
    """The network to train."""
    import torch

    from tenfold import build, reattention

    torch.manual_seed(seed)
    if kind in OURS:
        options = {"depth": depth, "patch_size": FACTS["patch"]}
        if kind == "vit":
            return build("vit_tiny", **options)
        return build("deepvit_tiny", **options, theta="identity" if "identity" in kind else "random")
    network = timm_network()
    if kind != "timm":
        network.load_state_dict(torch.load(folder_of(work, "timm", depth, seed) / "trained.pt", weights_only=True))
    if kind.endswith("re-attention"):
        reattention(network, CHANGED, images=task.example(128))
    return network


def folder_of(work: str, kind: str, depth: int, seed: int) -> Path:
    """Where a run keeps its files."""
    return Path(work) / f"{kind}-{depth}-{seed}".replace(" ", "-").replace(",", "")


def analyzed(network: Any, task: Any) -> dict[str, Any]:
    """What `tenfold analyze collapse` says, without the matrices."""
    from tenfold.analysis import analyze_collapse

    batches = (inputs for inputs, _ in task.eval_batches(batch_size=FACTS["analyzed"]))
    found = analyze_collapse(network, [next(batches)])
    neighbours = {
        kind: [maps.matrix[at][at + 1] for at in range(len(found.blocks) - 1)] for kind, maps in found.maps.items()
    }
    return {
        "neighbours": neighbours,
        "mean_neighbour": {kind: mean(values) for kind, values in neighbours.items()},
        "similar_blocks": {kind: maps.similar_blocks for kind, maps in found.maps.items()},
        "heads": {kind: maps.heads for kind, maps in found.maps.items()},
        "entropy": found.entropy,
        "features_to_last": found.features_to_last,
        "between_tokens": found.between_tokens,
    }


def run(kind: str, depth: int, seed: int, data: str, work: str, steps: int | None = None) -> dict[str, Any]:
    """Train one network and return its record; with `steps`, a smoke test of so many steps."""
    import torch

    from tenfold import fit, tasks
    from tenfold.methods import NormCalibration
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    batch = FACTS["batch"]
    subset = FACTS["subset"] if steps is None else steps * batch
    task = tasks.create("classify", data=data, image_size=FACTS["image"], subset=subset)
    epochs = FACTS["epochs"] if steps is None else 1
    config = TrainConfig(
        epochs=epochs,
        batch_size=batch,
        lr=FACTS["lr"],
        optimizer="adamw",
        weight_decay=0.05,
        warmup_epochs=1 if epochs > 1 else 0,
        clip_grad=1.0,
        seed=seed,
        device="cpu",
        eval_epochs=4,
    )
    place = folder_of(work, kind, depth, seed)
    result = fit(
        network_for(kind, depth, seed, task, work),
        task,
        [NormCalibration(batches=10)],
        config=config,
        run_dir=place,
        quiet=True,
        resume=True,
    )
    torch.save(result.network.state_dict(), place / "trained.pt")
    report = result.report
    return {
        "kind": kind,
        "depth": depth,
        "seed": seed,
        "top1": result.metrics["top1"],
        "curve": [row["top1"] for row in report["curves"] if "top1" in row],
        "train_loss": [row["train_loss"] for row in report["curves"]],
        "macs": report["cost"]["after"]["macs"],
        "params": report["cost"]["after"]["params"],
        "seconds": report["seconds"],
        "collapse": analyzed(result.network, task),
    }


def main() -> None:
    """Run what is not recorded yet; networks of timm go on from the trained ones after all others are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 (train.tar.xz and test.tar.xz)")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-deepvit-cifar10"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=FACTS["epochs"])
    parser.add_argument("--dry-run", action="store_true", help="say what would run")
    parser.add_argument("--steps", type=int, help="smoke test: one run of each kind with so many steps, not recorded")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    FACTS["epochs"] = arguments.epochs
    jobs = [(kind, depth, seed) for seed in SEEDS for depth in DEPTHS for kind in OURS]
    jobs += [(kind, TIMM_DEPTH, seed) for seed in SEEDS for kind in TIMM]
    if arguments.steps:
        with tempfile.TemporaryDirectory() as work:
            for job in [(kind, DEPTHS[-1], 0) for kind in OURS] + [(kind, TIMM_DEPTH, 0) for kind in TIMM]:
                record = run(*job, arguments.data, work, arguments.steps)
                shown = {kind: round(value, 3) for kind, value in record["collapse"]["mean_neighbour"].items()}
                print(f"{job}: top1 {record['top1']:.3f}, {record['seconds']:.0f} s, {shown}", flush=True)
        return
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    done = {(one["kind"], one["depth"], one["seed"]) for one in runs}
    left = [job for job in jobs if job not in done]
    if arguments.dry_run:
        print("\n".join(map(str, left)))
        return
    for later in (False, True):
        chosen = [job for job in left if (job[0] in TIMM[1:]) == later]
        with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
            futures = [pool.submit(_run_with, FACTS, job, arguments.data, arguments.work) for job in chosen]
            for number, future in enumerate(as_completed(futures), 1):
                last = future.result()
                runs.append(last)
                runs.sort(key=lambda one: jobs.index((one["kind"], one["depth"], one["seed"])))
                write_record(RESULTS, {"machine": machine(), **FACTS, "runs": runs})
                print(
                    f"{number}/{len(chosen)} {last['kind']} {last['depth']} {last['seed']}: {last['top1']}", flush=True
                )


def _run_with(facts: dict[str, Any], job: tuple[str, int, int], data: str, work: str) -> dict[str, Any]:
    """`run` in another process, which does not know what was said on the command line."""
    FACTS.update(facts)
    return run(*job, data, work)


if __name__ == "__main__":
    main()
