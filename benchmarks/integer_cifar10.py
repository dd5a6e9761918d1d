"""Trainings on the integer engine end where simulated ones end: CIFAR-10, three seeds.

The small setting of small_cifar10.py (pre-activation ResNet-20, 16x16 images, from SAT's float stage), SAT with 4
bits: simulated, on integers with a float32 backward pass, and on integers with a bfloat16 one. Within a seed all three
get the same start, images and order, so what differs is rounding; what chance does is seen from seed to seed.

    python benchmarks/integer_cifar10.py --data CIFAR_FOLDER     # half an hour on two cores; resumable

Recorded in results/integer_cifar10.json. Needs a processor with VNNI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_cifar10 import run_all, train

RESULTS = Path(__file__).parent / "results" / "integer_cifar10.json"
EPOCHS, BITS = 3, 4
ENGINES: dict[str, dict[str, Any]] = {
    "simulated": {"engine": "simulated"},
    "integers, fp32 backward": {"engine": "integer", "engine_backward": "fp32"},
    "integers, bf16 backward": {"engine": "integer", "engine_backward": "bf16"},
}


def run(name: str, seed: int, data: str, work: str) -> dict[str, Any]:
    """Train with one engine; returns the record."""
    from tenfold.methods import SAT

    report = train(name, SAT(w_bits=BITS, a_bits=BITS), seed, data, work, epochs=EPOCHS, **ENGINES[name])
    layers = report["engine"].get("layers", {}).values()
    return {
        "name": name,
        "seed": seed,
        "top1": report["metrics"]["final"]["top1"],
        "loss": report["metrics"]["final"]["loss"],
        "train_loss": report["curves"][-1]["train_loss"],
        "layers_in_integers": sum(one == "integers" for one in layers),
        "seconds": round(report["seconds"], 1),
    }


if __name__ == "__main__":
    run_all(RESULTS, list(ENGINES), run, {"epochs": EPOCHS, "bits": BITS}, __doc__.splitlines()[0])
