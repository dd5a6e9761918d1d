"""Learned bits against the same bits everywhere, at the same BitOPs and at the same bytes.

The claim (arXiv 2007.02017): under the budget of a uniform network, learned bits give higher accuracy, by layer and
more so by kernel; the gain is largest for weights alone at 2 bits.

    python benchmarks/fracbits_cifar10.py --data CIFAR_FOLDER        # twenty minutes on two cores; resumable

Uniform and learned bits train for as many epochs, of which learned bits search for four fifths. What the finished
network costs is counted, never above the budget. Every run is recorded in results/fracbits_cifar10.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_cifar10 import run_all, train

EPOCHS = 6
RESULTS = Path(__file__).parent / "results" / "fracbits_cifar10.json"
BUDGETS: dict[str, dict[str, Any]] = {
    "BitOPs of 3 bits": {"like": 3},
    "bytes of 2 bits, weights only": {"like": 2, "weight_only": True, "w_range": (1, 8)},
}
KINDS = ("uniform", "by layer", "by kernel")
NAMES = tuple(f"{budget}: {kind}" for budget in BUDGETS for kind in KINDS)


def run(name: str, seed: int, data: str, work: str) -> dict[str, Any]:
    """One training; returns accuracy, cost, and for learned bits how much of the budget they use."""
    from tenfold.methods import SAT, FracBits

    budget, kind = name.split(": ")
    options = BUDGETS[budget]
    if kind == "uniform":
        a_bits = 32 if options.get("weight_only") else options["like"]
        report = train(
            name, SAT(w_bits=options["like"], a_bits=a_bits, scheme="original"), seed, data, work, epochs=EPOCHS
        )
    else:
        method = FracBits(**options, weight_bits=kind.removeprefix("by "))
        report = train(name, method, seed, data, work, epochs=EPOCHS)
    found = report.get("found", {}).get("fracbits", {})
    cost = report["cost"]["after"]
    return {
        "name": name,
        "seed": seed,
        "top1": report["metrics"]["final"]["top1"],
        "bitops": cost["bitops"],
        "bytes": cost["bytes"],
        "used": found.get("used"),
        "curve": [row["top1"] for row in report["curves"]],
        "seconds": report["seconds"],
    }


if __name__ == "__main__":
    run_all(RESULTS, NAMES, run, {"epochs": EPOCHS, "budgets": BUDGETS}, __doc__.splitlines()[0])
