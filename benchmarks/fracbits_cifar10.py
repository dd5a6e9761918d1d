"""Learned bits against the same bits everywhere, at the same BitOPs and at the same bytes.

The claim (arXiv 2007.02017): under the budget of a uniform network, learned bits give higher accuracy, by layer and
more so by kernel; the gain is largest for weights alone at 2 bits. The gain comes from layers that differ: a small
MobileNetV2 has cheap depthwise layers that need bits and dear pointwise ones that do not; the ResNet's are all alike.

    python benchmarks/fracbits_cifar10.py --data CIFAR_FOLDER        # two hours on two cores; resumable

Uniform and learned bits train for as many epochs, of which learned bits search for four fifths. What the finished
network costs is counted, never above the budget. Every run is recorded in results/fracbits_cifar10.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_cifar10 import mobile_start_of, run_all, start_of, train, train_mobile

EPOCHS = 8
RESULTS = Path(__file__).parent / "results" / "fracbits_cifar10.json"
BUDGETS: dict[str, dict[str, Any]] = {
    "BitOPs of 3 bits": {"like": 3},
    "bytes of 2 bits, weights only": {"like": 2, "weight_only": True, "w_range": (1, 8)},
}
FASTER = ", faster bits"
BITS_RATE = 10.0
"""Bits that learn at the rate of the weights move by half a bit in the 390 steps that the search has here; in the
paper's 155,000 steps they get anywhere. "Faster bits" learn at ten times the rate."""
TOGETHER = " and layer"
"""Bits of a kernel also move by the sum of the gradients of all kernels of the layer (`kernels_together`)."""
KINDS = ("uniform", "by layer", "by kernel", f"by layer{FASTER}", f"by kernel{FASTER}")
MOBILE = "MobileNetV2, "
MOBILE_KINDS = (KINDS[0], *KINDS[-2:], f"by kernel{TOGETHER}{FASTER}")
NAMES = (
    *(f"{budget}: {kind}" for budget in BUDGETS for kind in KINDS),
    *(f"{MOBILE}{budget}: {kind}" for budget in BUDGETS for kind in MOBILE_KINDS),
)


def run(name: str, seed: int, data: str, work: str) -> dict[str, Any]:
    """One training; returns accuracy, cost, and for learned bits how much of the budget they use."""
    from tenfold.methods import QAT, SAT, FracBits

    budget, kind = name.removeprefix(MOBILE).split(": ")
    options = BUDGETS[budget]
    is_mobile = name.startswith(MOBILE)
    learn = train_mobile if is_mobile else train
    bits = {"w_bits": options["like"], "a_bits": 32 if options.get("weight_only") else options["like"]}
    if kind == "uniform":
        mobile = QAT(**bits, scheme="original", clamp=False, per_channel=True, calibrated=True)
        report = learn(name, mobile if is_mobile else SAT(**bits, scheme="original"), seed, data, work, epochs=EPOCHS)
    else:
        rate = BITS_RATE if kind.endswith(FASTER) else 1.0
        method = FracBits(
            **options,
            base="trained" if is_mobile else "sat",
            weight_bits=kind.removeprefix("by ").removesuffix(FASTER).removesuffix(TOGETHER),
            kernels_together=TOGETHER in kind,
            bits_rate=rate,
            kappa=1.0 if rate > 1 else 5.0,
        )
        report = learn(name, method, seed, data, work, epochs=EPOCHS)
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
    run_all(
        RESULTS,
        NAMES,
        run,
        {"epochs": EPOCHS, "budgets": BUDGETS},
        __doc__.splitlines()[0],
        lambda name: mobile_start_of if name.startswith(MOBILE) else start_of,
    )
