"""One network at 8, 4 and 2 bits against three networks, and the other ways to get one.

The claim (arXiv 1912.09666): joint training matches networks that were trained for one width each, private clipping
levels (S-CL) help the lowest width, training one width after another from high to low comes close, from low to high
destroys the low widths, and direct adaptation fails at distant widths.

    python benchmarks/adabits_cifar10.py --data CIFAR_FOLDER         # two hours on two cores; resumable

Each width gets eight epochs: eight for a single one, for each stage of a progressive training, and as many passes over
each batch in joint training as there are widths. A progressive network has then been updated three times as often as
the others, and short trainings profit from that; so individual networks and joint training are there with 24 epochs,
too, as many updates as in a progressive training. Every run is recorded in results/adabits_cifar10.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_cifar10 import RATE, run_all, train

WIDTHS = (8, 4, 2)
EPOCHS = 8
LONGER = ", 24 epochs"
EARLIER = (
    "Tried before: three epochs a width at rate 0.01. So gentle a training moves the weights too little for the order "
    "of the widths to matter: from low to high kept 40.0 % at two bits (seed 0)."
)
RESULTS = Path(__file__).parent / "results" / "adabits_cifar10.json"
NAMES = (
    *(f"individual {bits}" for bits in WIDTHS),
    "joint",
    "joint, shared level",
    "direct",
    "descending",
    "ascending",
    *(f"individual {bits}{LONGER}" for bits in WIDTHS),
    f"joint{LONGER}",
    "joint at 8, 4, 3",
    "joint at 8, 4, 3, learned bits",
)
MIXED_WIDTHS = (8, 4, 3)
"""Of the last two: do bits of their own for each layer at each width bring anything, at the BitOPs of equal bits?"""
SEARCH = {"search_share": 0.8, "bits_rate": 10.0, "kappa": 1.0}
"""Bits learn so much faster than weights: a short training moves them too little otherwise (fracbits_cifar10.py)."""


def run(name: str, seed: int, data: str, work: str) -> dict[str, Any]:
    """One training; returns its accuracy at each width that it has."""
    from tenfold.methods import SAT, AdaBits

    is_progressive = name in ("descending", "ascending")
    epochs = EPOCHS * len(WIDTHS) if is_progressive or name.endswith(LONGER) else EPOCHS
    if name.startswith("individual"):
        bits = int(name.removesuffix(LONGER).split()[1])
        report = train(name, SAT(w_bits=bits, a_bits=bits), seed, data, work, epochs=epochs)
        top1 = {str(bits): report["metrics"]["final"]["top1"]}
    elif name.startswith("joint at"):
        method = AdaBits(bits=MIXED_WIDTHS, **(SEARCH if name.endswith("learned bits") else {}))
        report = train(name, method, seed, data, work, epochs=epochs)
        top1 = {row["name"]: row["metrics"]["top1"] for row in report["settings"]}
    else:
        method = AdaBits(bits=WIDTHS, training=name.split(",")[0], private_levels=name != "joint, shared level")
        cycles = len(WIDTHS) if is_progressive else 1
        report = train(name, method, seed, data, work, epochs=epochs, cycles=cycles)
        top1 = {row["name"]: row["metrics"]["top1"] for row in report["settings"]}
    return {"name": name, "seed": seed, "top1": top1, "seconds": report["seconds"]}


if __name__ == "__main__":
    facts = {"widths": list(WIDTHS), "epochs": EPOCHS, "lr": RATE, "earlier": EARLIER}
    run_all(RESULTS, NAMES, run, facts, __doc__.splitlines()[0])
