"""A table of one's own, measured on three tasks, and what a search finds with as many measurements as random codes.

    python benchmarks/ncp_own_tasks.py --data ROOT --jobs 2       # three hours on two cores; resumable

ROOT holds the folders cifar10 and camvid. Candidates are multi-resolution networks of 8 or 16 channels with one or two
units and modules; each is trained briefly on CIFAR-10 (4000 images), CamVid (64x85) and clips of wandering digits.

1. "random": 160 codes, measured.
2. "proposed": the first 40 of them, and six times 10 that the search proposes for the sum of the three tasks.
3. The best of the first hundred random codes, of all of them and of the proposed by the sum of the three metrics, each
   in units of its spread among the random codes, are trained anew with three other seeds. So is what a search finds
   for all three tasks, and for each alone: in a hundred measurements (random, or proposed) and in 160 (random, or
   the first hundred and the 60 that were proposed).

The table stands in results/ncp_own_tasks/ (with it the measurement goes on anywhere), the rest in
results/ncp_own_tasks.json, drawn in docs/images/ncp_own_tasks.png.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from record import machine, write_record
from tenfold.jobs import Processes, run_jobs
from tenfold.search import CandidateSpace, NcpConfig, Target, TaskOrder, measure, read_table, search_ncp
from tenfold.search.measuring import measure_one
from tenfold.train import TrainConfig

HERE = Path(__file__).parent
TABLE, RESULTS = HERE / "results" / "ncp_own_tasks", HERE / "results" / "ncp_own_tasks.json"
PICTURE = HERE.parent / "docs" / "images" / "ncp_own_tasks.png"
SPACE = CandidateSpace.multires(channels=16, counts=2)
TASKS = (
    TaskOrder(kind="classify", options={"data": "cifar10", "subset": 4000}, train={"epochs": 4}),
    TaskOrder(kind="segment", options={"data": "camvid", "image_size": 64}, train={"epochs": 8, "batch_size": 16}),
    TaskOrder(kind="recognize", options={"frames": 2}, train={"epochs": 6}),
)
METRICS = {"classify": "top1", "segment": "miou", "recognize": "top1"}
CONFIG = TrainConfig(epochs=4, batch_size=32, lr=0.05, weight_decay=1e-4, eval_epochs=100, device="cpu")
RANDOM, HUNDRED, FIRST, PROPOSED = 160, 100, 40, 10
SEEDS = (1, 2, 3)


def score(values: Any, drawn: Any) -> Any:
    """The sum of the metrics (N, 3), each in units of its spread among the random codes."""
    return ((values - drawn.mean(0)) / drawn.std(0)).sum(1)


def metrics(table: Any) -> Any:
    """(N, 3), in the order of METRICS."""
    return np.stack([table.column(f"{task}/{metric}") for task, metric in METRICS.items()], 1)


def part(table: Any, chosen: list[tuple[int, ...]]) -> Any:
    """The table as it would be with these codes alone."""
    wanted = set(chosen)
    rows = [row for row, code in enumerate(table.codes) if tuple(map(int, code)) in wanted]
    columns = {task: {name: values[rows] for name, values in one.items()} for task, one in table.metrics.items()}
    costs = {name: values[rows] for name, values in table.costs.items()}
    return replace(table, codes=table.codes[rows], metrics=columns, costs=costs)


def draw(record: dict[str, Any]) -> None:
    """The best sum so far against measurements."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="networks measured", ylabel="best sum of three metrics, in their spreads")
    for name in ("random", "proposed"):
        best = np.maximum.accumulate(record[name]["scores"])
        axes.plot(np.arange(1, len(best) + 1), best, label=f"{name} codes")
    axes.axvline(FIRST, color="grey", lw=0.8, ls=":")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(PICTURE, dpi=150)


def measured(count: int, further: list[tuple[int, ...]], jobs: int) -> Any:
    """The table with so many random codes and those that were proposed."""

    def tell(done: int, total: int, row: dict[str, Any]) -> None:
        told = {name: round(row["values"].get(f"{name}/{metric}", np.nan), 3) for name, metric in METRICS.items()}
        print(f"{done}/{total} {row['error'] or told}", flush=True)

    started = (TABLE / "measure.json").exists()
    path = measure(
        SPACE, TASKS, count=count, further=further, config=CONFIG, out=TABLE, jobs=jobs, resume=started, tell=tell
    )
    return read_table(path)


def main() -> None:
    """Do what is missing, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10 and camvid")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["TENFOLD_DATA"] = str(arguments.data.resolve())
    table = measured(RANDOM, [], arguments.jobs)
    targets = [Target(name=f"{task}/{metric}") for task, metric in METRICS.items()]
    chosen: list[tuple[int, ...]] = [tuple(map(int, code)) for code in table.codes[:FIRST]]
    while len(chosen) < HUNDRED:
        config = NcpConfig(caution=-1.0, proposals=PROPOSED, cost_weights=(0.0,), seed=len(chosen))
        # What was proposed before and stands in the table already must be proposed again when the run goes on.
        chosen += [one.code for one in search_ncp(part(table, chosen), targets, config=config).proposed]
        table = measured(RANDOM, chosen[FIRST:], arguments.jobs)
    everything = {tuple(map(int, code)): row for row, code in enumerate(table.codes)}
    values = metrics(table)
    drawn = values[:RANDOM]
    scores = score(values, drawn)
    record: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
    record |= {"command": "ncp_own_tasks.py", "machine": machine()}
    record["random"] = {"scores": scores[:RANDOM].tolist()}
    record["proposed"] = {"scores": [float(scores[everything[code]]) for code in chosen]}
    drawn_codes = [tuple(map(int, code)) for code in table.codes[:RANDOM]]
    finalists = {
        "best of 100 random codes": drawn_codes[int(scores[:HUNDRED].argmax())],
        "best of 160 random codes": drawn_codes[int(scores[:RANDOM].argmax())],
        "best proposed code": max(chosen, key=lambda code: scores[everything[code]]),
    }
    for where, rows in (
        ("100 random codes", part(table, drawn_codes[:HUNDRED])),
        ("40 random and 60 proposed", part(table, chosen)),
        ("160 random codes", part(table, drawn_codes)),
        ("100 random and 60 proposed", part(table, [*drawn_codes[:HUNDRED], *chosen])),
    ):
        for name, wanted in {"all three": targets, **{one.name.partition("/")[0]: [one] for one in targets}}.items():
            finalists[f"found in {where} for {name}"] = search_ncp(rows, wanted).best.code
    record["finalists"] = {name: list(code) for name, code in finalists.items()}
    record["spread"] = {"mean": drawn.mean(0).tolist(), "std": drawn.std(0).tolist()}
    draw(record)
    done = {(tuple(run["code"]), run["seed"]) for run in record["runs"]}
    orders = {
        (code, seed): (SPACE, dict(zip(SPACE.choices, code, strict=True)), list(TASKS), replace(CONFIG, seed=seed))
        for seed in SEEDS
        for code in dict.fromkeys(finalists.values())
        if (code, seed) not in done
    }
    for (code, seed), result in run_jobs(measure_one, orders, Processes(arguments.jobs)):
        assert result is not None
        found = {name: result["values"].get(f"{name}/{metric}") for name, metric in METRICS.items()}
        record["runs"].append({"code": list(code), "seed": seed, "macs": result["values"].get("cost/macs"), **found})
        write_record(RESULTS, record)
        print(f"{code}, seed {seed}: {found}", flush=True)


if __name__ == "__main__":
    main()
