"""Gradients of depthwise convolutions: the native kernel beside PyTorch's, in turns, channels last.

Shapes are those of mobile networks at a batch of 8; 5x5 and 7x7 are what the native kernel serves.

    python benchmarks/depthwise_backward.py        # half a minute on a quiet core

Recorded in results/depthwise_backward.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from record import beside, machine, write_record
from tenfold.cost import interleaved
from tenfold.kernels.depthwise import depthwise_backward
from tenfold.kernels.library import state
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "depthwise_backward.json"
BATCH = 8
SHAPES = (  # channels, side, kernel, stride
    (144, 56, 5, 1),
    (144, 56, 7, 1),
    (144, 56, 5, 2),
    (240, 28, 5, 1),
    (331, 14, 5, 1),
    (480, 14, 7, 1),
    (1152, 7, 7, 1),
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def both(
    channels: int, side: int, kernel: int, stride: int, dtype: torch.dtype
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """PyTorch's kernel and ours on the same tensors."""
    torch.manual_seed(0)
    padding = kernel // 2
    x = torch.randn(BATCH, channels, side, side).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel).to(dtype)
    y = torch.conv2d(x, weight, None, stride, padding, 1, channels)
    gradient = torch.randn_like(y)
    geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], channels)
    wanted = [True, True, False]
    return (
        lambda: torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, wanted),
        lambda: depthwise_backward(gradient, x, weight, stride=stride, padding=padding),
    )


def main() -> None:
    """Check that both agree, time them in turn and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = []
    for shape in SHAPES:
        for name, dtype in DTYPES.items():
            pytorch, ours = both(*shape, dtype)
            for got, expected in zip(ours(), pytorch(), strict=False):
                largest = float(expected.abs().max())
                torch.testing.assert_close(got, expected, rtol=0, atol=largest * (1e-5 if name == "float32" else 1e-2))
            timings = interleaved({"pytorch": pytorch, "ours": ours}, rounds=arguments.rounds)
            case = dict(zip(("channels", "side", "kernel", "stride"), shape, strict=True))
            rows.append({**case, "dtype": name, **beside(timings, "pytorch")})
            print(rows[-1], flush=True)
    facts = {"batch": BATCH, "threads": arguments.threads, "rounds": arguments.rounds, "kernels": state()[1]}
    write_record(RESULTS, {"machine": machine(), **facts, "results": rows})


if __name__ == "__main__":
    main()
