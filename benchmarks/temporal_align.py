"""The aligned temporal shift of TSAM: one native pass beside PyTorch's operators, in turns; and what a network gains.

Maps are those of `tsam` and `tsam_small` for a window of 5 frames of 240x424, channels last, with flows of a few pixels
of which a tenth is not trusted. The straightforward form samples both directions by `grid_sample`, chooses where flow
is trusted, and puts the parts together.

    python benchmarks/temporal_align.py            # two minutes on a quiet core

Recorded in results/temporal_align.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from record import beside, machine, write_record
from tenfold import build
from tenfold.cost import interleaved
from tenfold.kernels.library import state, without_kernels
from tenfold.layers.temporal_align import Flows, pairs_at, shift
from tenfold.models import NetworkArguments
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "temporal_align.json"
FRAMES, SIDES = 5, (240, 424)
MAPS = ((16, 60, 106, 8), (64, 60, 106, 8), (256, 60, 106, 8), (512, 30, 53, 8), (256, 120, 212, 4))
"""Channels, height, width, and the part of the channels that comes from each side."""
NETWORKS = ("tsam_tiny", "tsam_small")
STEPS = ("forward", "forward and backward")


def clip_flows(height: int, width: int) -> Flows:
    """Flows of a few pixels, a tenth of them not trusted."""
    generator = torch.Generator().manual_seed(0)
    flows = [3 * torch.randn(1, FRAMES - 1, 2, height, width, generator=generator) for _ in range(2)]
    invalid = [(torch.rand(1, FRAMES - 1, 1, height, width, generator=generator) < 0.1).float() for _ in range(2)]
    return Flows(*flows, *invalid)


def shift_call(channels: int, height: int, width: int, divisor: int, step: str) -> Callable[[], None]:
    """One shift, and its gradient."""
    pairs = pairs_at(clip_flows(height, width), (height, width))
    maps = torch.randn(FRAMES, channels, height, width).to(memory_format=torch.channels_last)[None]
    gradient = torch.randn_like(maps)
    maps.requires_grad_(step == STEPS[1])

    def call() -> None:
        maps.grad = None
        out = shift(maps, channels // divisor, pairs)
        if maps.requires_grad:
            out.backward(gradient)

    return call


def network_call(name: str, step: str) -> Callable[[], None]:
    """A whole window."""
    torch.manual_seed(0)
    network = build(name).to(memory_format=torch.channels_last).train(step == STEPS[1])
    frames = torch.rand(1, FRAMES, 3, *SIDES)
    known = (torch.rand(1, FRAMES, 1, *SIDES) > 0.2).float()
    window = NetworkArguments(frames, known, torch.zeros_like(known), *clip_flows(*SIDES))

    def call() -> None:
        with torch.set_grad_enabled(network.training):
            out: Tensor = network(*window)
            if network.training:
                out.square().mean().backward()

    return call


def compared(call: Callable[[], None], rounds: int) -> dict[str, Any]:
    """Both ways in turns."""

    def plain() -> None:
        with without_kernels():
            call()

    return beside(interleaved({"plain": plain, "ours": call}, rounds=rounds), "plain")


def main() -> None:
    """Time all and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = []
    for step in STEPS:
        for channels, height, width, divisor in MAPS:
            what = f"{channels} channels, {height}x{width}"
            rows.append({"what": what, "step": step})
            rows[-1] |= compared(shift_call(channels, height, width, divisor, step), arguments.rounds)
            print(rows[-1], flush=True)
        for name in NETWORKS:
            rows.append({"what": f"all of {name}", "step": step})
            rows[-1] |= compared(network_call(name, step), arguments.rounds)
            print(rows[-1], flush=True)
    facts = {"threads": arguments.threads, "rounds": arguments.rounds, "frames": FRAMES, "kernels": state()[1]}
    write_record(RESULTS, {"machine": machine(), **facts, "results": rows})


if __name__ == "__main__":
    main()
