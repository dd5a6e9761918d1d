"""Re-attention as Tenfold computes it, beside the formula as it stands and beside plain fused attention.

Three levels: the products alone (softmax maps, mixing, norm, values), the whole attention with its linear layers, and
the whole block with its MLP. All three ways take turns in one process; what counts is the ratio. The peak of memory of
one call is measured in a process of its own, where freed memory goes back to the system.

    python benchmarks/reattention.py               # about three minutes on two quiet cores

Recorded in results/reattention.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from record import machine, write_record
from tenfold.cost import interleaved
from tenfold.layers.reattention import Attention, ReAttention
from tenfold.models.deepvit import TransformerBlock
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "reattention.json"
WAYS = ("plain fused", "formula", "tenfold")
LEVELS = ("products", "attention", "block")
STEPS = ("forward", "forward and backward")
HEADS = 12


class Shape(NamedTuple):
    """Images, tokens of each, channels of a token, and channels inside the MLP."""

    batch: int
    tokens: int
    dim: int
    hidden: int


SHAPES = {
    "DeepViT of 32 blocks": Shape(8, 197, 384, 1152),
    "DeepViT-L": Shape(8, 197, 420, 1260),
    "DeepViT-L, 384 pixels": Shape(2, 577, 420, 1260),
}


def attention_of(way: str, shape: Shape) -> Attention:
    """One of the three, with the same weights of what they share."""
    torch.manual_seed(0)
    if way == "plain fused":
        return Attention(shape.dim, HEADS)
    attention = ReAttention(shape.dim, HEADS)
    if way == "formula":
        attention.observer = lambda *_: None  # who wants to see the maps gets them computed as the formula says
    return attention


def caller(way: str, level: str, step: str, shape: Shape) -> Callable[[], None]:
    """One call: in evaluation forward only, else a training step without the update."""
    attention = attention_of(way, shape)
    module: nn.Module = attention
    if level == "block":
        module = TransformerBlock(attention, shape.dim, shape.hidden)
    trains = step != STEPS[0]
    module.train(trains)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(shape.batch, shape.tokens, shape.dim, generator=generator)
    # Queries, keys and values lie as the linear layer in front of them leaves them.
    together = torch.randn(shape.batch, shape.tokens, 3, HEADS, shape.dim // HEADS, generator=generator)
    given = (together if level == "products" else tokens).requires_grad_(trains)
    weights = torch.randn(shape.batch, shape.tokens, shape.dim, generator=generator)

    def run() -> Tensor:
        if level != "products":
            return module(given)
        return attention.attend(*given.permute(2, 0, 3, 1, 4).unbind(0))

    def call() -> None:
        if not trains:
            with torch.no_grad():
                run()
            return
        module.zero_grad(set_to_none=True)
        given.grad = None
        run().backward(weights)

    return call


def peak_megabytes(way: str, level: str, step: str, name: str) -> float:
    """What one call adds to the memory of its process at most."""
    command = [sys.executable, __file__, "--peak-of", way, level, step, name]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def print_peak(way: str, level: str, step: str, name: str) -> None:
    """Measure in this process, by the mark that Linux keeps of the most memory a process ever had."""
    torch.set_num_threads(1)
    call = caller(way, level, step, SHAPES[name])
    call()

    def kilobytes(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(key)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    call()
    print(json.dumps(round((kilobytes("VmHWM") - before) / 1024, 1)))


def measure(name: str, level: str, step: str, rounds: int) -> dict[str, Any]:
    """The three ways in turn."""
    timings = interleaved({way: caller(way, level, step, SHAPES[name]) for way in WAYS}, rounds=rounds)
    formula = timings["formula"]
    ways = {
        way: {
            "median_ms": round(timing.median_ms, 2),
            "median_ratio": round(timing.median_ms / formula.median_ms, 3),
            "minimum_ratio": round(timing.minimum_ms / formula.minimum_ms, 3),
            "peak_mb": peak_megabytes(way, level, step, name),
        }
        for way, timing in timings.items()
    }
    return {"shape": name, "level": level, "step": step, "ways": ways}


def main() -> None:
    """Time all of them and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(*arguments.peak_of)
        return
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in SHAPES:
        for level in LEVELS:
            for step in STEPS:
                rows.append(measure(name, level, step, arguments.rounds))
                ways = rows[-1]["ways"]
                shown = ", ".join(f"{way} {ways[way]['median_ratio']} {ways[way]['peak_mb']} MB" for way in WAYS)
                print(f"{name}, {level}, {step}: {shown}", flush=True)
    facts = {"heads": HEADS, "threads": arguments.threads, "rounds": arguments.rounds}
    shapes = {name: shape._asdict() for name, shape in SHAPES.items()}
    write_record(RESULTS, {"machine": machine(), **facts, "shapes": shapes, "results": rows})


if __name__ == "__main__":
    main()
