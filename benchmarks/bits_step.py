"""One training step of learned bits and of several bits, beside the plain quantized step (ResNet-18, 32x32 images).

FracBits quantizes twice and mixes; AdaBits runs a batch at four widths, and shares the normalization of the weights and
the optimiser's step between them. With --engine integer the layers multiply integers, backward in bf16 (learned bits
stay simulated). All are stepped in turn in one process; what counts is the ratio.

    python benchmarks/bits_step.py                 # about three minutes on two quiet cores

Recorded in results/bits_step.json, or bits_step_integer.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import qat_step
from qat_step import BATCH, BITS, network, saved_megabytes
from record import machine, write_record
from tenfold import quant
from tenfold.cost import interleaved
from tenfold.methods import SAT, AdaBits, FracBits, Method
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
WIDTHS = (8, 6, 5, 4)


def float_stepper() -> Callable[[], None]:
    """The float network's step."""
    return qat_step.stepper(network(), "resnet18_cifar")


def stepper(method: Method, engine: quant.IntegerEngine | None) -> tuple[Callable[[], None], float]:
    """A whole step as `fit` makes it: all passes, the penalty, the update; and what one pass keeps in memory, in MB."""
    example = torch.rand(4, 3, 32, 32) * 255
    trained = (
        quant.use_engine(method.attach(network(), None, example), engine).train().to(memory_format=torch.channels_last)
    )
    images = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(255)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.arange(BATCH) % 10
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        with method.batch(trained):
            for one in method.passes(trained):
                one.enter()
                F.cross_entropy(trained(images), targets).backward()
        penalty = method.penalty(trained)
        if penalty is not None:
            penalty.backward()
        optimizer.step()

    return step, saved_megabytes(trained)


def main() -> None:
    """Time all of them in turn and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=("simulated", "integer"), default="simulated")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    methods = {
        "one width (SAT)": SAT(w_bits=BITS, a_bits=BITS),
        "learned by layer": FracBits(like=BITS),
        "learned by kernel": FracBits(like=BITS, weight_bits="kernel"),
        "four widths (AdaBits)": AdaBits(bits=WIDTHS),
    }
    engine = quant.IntegerEngine("bf16") if arguments.engine == "integer" else None
    steps: dict[str, Callable[[], None]] = {"float": float_stepper()}
    memory = {"float": saved_megabytes(network())}
    for name, method in methods.items():
        steps[name], memory[name] = stepper(method, engine)
    timings = interleaved(steps, rounds=arguments.rounds)
    plain = timings["one width (SAT)"]
    rows: dict[str, Any] = {}
    for name, timing in timings.items():
        count = len(WIDTHS) if "four" in name else 1
        rows[name] = {
            "median_ms": round(timing.median_ms, 1),
            "float_steps": round(timing.median_ms / timings["float"].median_ms, 3),
            "median_ratio": round(timing.median_ms / plain.median_ms, 3),
            "minimum_ratio": round(timing.minimum_ms / plain.minimum_ms, 3),
            "share_of_single_steps": round(timing.median_ms / (count * plain.median_ms), 3),
            "saved_mb": memory[name],
        }
        print(f"{name:22} {rows[name]}", flush=True)
    facts: dict[str, Any] = {
        "batch": BATCH,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "widths": list(WIDTHS),
    }
    facts["engine"] = arguments.engine
    ending = "_integer" if engine else ""
    write_record(RESULTS / f"bits_step{ending}.json", {"machine": machine(), **facts, "results": rows})


if __name__ == "__main__":
    main()
