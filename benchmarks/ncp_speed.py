"""What the authors' way of searching costs beside ours: one perceptron after another, one start after another.

    python benchmarks/ncp_speed.py --table nas_bench_mr.npz        # five minutes on a quiet core

- "five perceptrons": trained one after another, and side by side as one network with five members (20 epochs each);
- "16 starts": propagated one after another, 70 steps of the authors' length, and all at once, along the authors'
  perceptron and along our process; both ways must visit the same codes;
- every predictor's fit beside the authors' perceptron (200 epochs), on the official 2005 rows.

In turns; recorded in results/ncp_speed.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from record import beside, machine, write_record
from tenfold.cost import interleaved
from tenfold.search import create_predictor, read_table
from tenfold.search.predictors import MlpPredictor, Predictor
from tenfold.search.propagation import Standard, propagate
from tenfold.search.tables import official_split

RESULTS = Path(__file__).parent / "results" / "ncp_speed.json"
TASK, STARTS, MEMBERS = "seg", 16, 5
FITTED = ("mlp", "ensemble", "gp", "gp-warped", "lightgbm", "blend")


def compared(straight: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Both in turns."""
    return beside(interleaved({"straight": straight, "ours": ours}, rounds=rounds), "straight")


def propagations(predictor: Predictor, codes: Any, rounds: int) -> dict[str, Any]:
    """One start after another, and all at once; how many of the codes visited are the same."""
    standard = Standard.of(predictor.space.to_points(codes))
    starts = predictor.space.random(STARTS, np.random.default_rng(0))

    def objective(x: torch.Tensor) -> torch.Tensor:
        return predictor.at(x * standard.std + standard.mean)[0]

    def go(some: Any) -> Any:
        return propagate(objective, predictor.space, some, standard).codes

    singly = np.concatenate([go(starts[at : at + 1]) for at in range(STARTS)], 1)
    same = float((singly == go(starts)).all(2).mean())
    timed = compared(lambda: [go(starts[at : at + 1]) for at in range(STARTS)], lambda: go(starts), rounds)
    return {**timed, "same_codes": same}


def main() -> None:
    """Time all and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="nas_bench_mr.npz")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = read_table(arguments.table)
    rows = table.rows(TASK, official_split(len(table.codes))[0])
    codes, values = table.codes[rows], table.column(TASK)[rows]

    def perceptrons(members: int, seed: int) -> None:
        MlpPredictor(table.space, seed, members=members, epochs=20).fit(codes, values)

    found = {
        "five perceptrons": compared(
            lambda: [perceptrons(1, seed) for seed in range(MEMBERS)], lambda: perceptrons(MEMBERS, 0), arguments.rounds
        )
    }
    print(found, flush=True)
    seconds: dict[str, list[float]] = {}
    fitted: dict[str, Predictor] = {}
    for turn in range(2):
        for kind in FITTED:
            began = time.process_time()
            fitted[kind] = create_predictor(kind, table.space, turn).fit(codes, values)
            seconds.setdefault(kind, []).append(time.process_time() - began)
            print(f"{kind}: {seconds[kind][-1]:.1f} s", flush=True)
    for kind in ("mlp", "gp"):
        found[f"16 starts along {kind}"] = propagations(fitted[kind], codes, arguments.rounds)
        print(kind, found[f"16 starts along {kind}"], flush=True)
    fits = {kind: min(each) for kind, each in seconds.items()}
    facts = {"rounds": arguments.rounds, "rows": len(rows), "task": TASK, "threads": 1}
    write_record(RESULTS, {"machine": machine(), **facts, "results": found, "fit_seconds": fits})


if __name__ == "__main__":
    main()
