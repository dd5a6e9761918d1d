"""One training step of AtomNAS' supernet beside a straightforward implementation, at the start and half-way.

Straightforward is what the authors' code does: one branch for each kernel size, plain layers in turn, PyTorch's default
layout. Ours is what `fit` trains: the same layers in channels-last, the rectified maps computed again instead of kept,
and native kernels for the gradients of depthwise convolutions; a row without these shows their share. Half-way is the
mean of the supernet's table of atoms and of AtomNAS-C's, so no number of channels is round, which is what a search with
`multiple=1` and the authors' leave; "in eights" rounds numbers of 64 and more down to a multiple of 8, as a search does
by default.

    python benchmarks/supernet_step.py           # about seven minutes on two quiet cores

Times are taken in turn in one process. Memory is measured in processes of their own, twice: what the process holds at
most, without what it had before its first step; and what tensors take at most, which knows no luck with the places
that the C library finds for them. Recorded in results/supernet_step.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from record import machine, write_record
from tenfold import build, profile
from tenfold.cost import interleaved
from tenfold.kernels.depthwise import native_depthwise
from tenfold.layers.atomic import AtomicBranch
from tenfold.methods.atom_selection import LARGE_GROUP, USUAL_MULTIPLE
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "supernet_step.json"
STATES = ("start", "half-way", "half-way in eights")
KINDS = ("straightforward", "straightforward, channels-last", "ours, without native kernels", "ours")


def network(state: str) -> Any:
    """The supernet for ImageNet, or what is left of it half-way to AtomNAS-C."""
    supernet = build("atomnas_supernet", dropout=0.0)
    if state == "start":
        return supernet
    options: dict[str, Any] = supernet.found_architecture().options
    found = build("atomnas_c").found_architecture().options["blocks"]

    def left(before: int, after: int) -> int:
        count = (before + after) // 2
        return count - count % USUAL_MULTIPLE if state.endswith("eights") and count >= LARGE_GROUP else count

    blocks = [
        [channels, stride, *(left(a, b) for a, b in zip(atoms, target[2:], strict=True))]
        for (channels, stride, *atoms), target in zip(options["blocks"], found, strict=True)
    ]
    return build("atomnas", **{**options, "blocks": blocks})


def make_plain(module: nn.Module) -> None:
    """Let PyTorch run each branch as the sequence of layers that it is."""
    for name, child in module.named_children():
        if isinstance(child, AtomicBranch):
            setattr(module, name, nn.Sequential(OrderedDict(child.named_children())))
        else:
            make_plain(child)


def stepper(kind: str, state: str, side: int, batch: int) -> Callable[[], None]:
    """Forward, backward and update on one batch."""
    torch.manual_seed(0)
    trained = network(state).train()
    images = torch.randn(batch, 3, side, side)
    targets = torch.arange(batch)
    if not kind.startswith("ours"):
        make_plain(trained)
    if kind != "straightforward":
        trained.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        with native_depthwise(trained) if kind == "ours" else nullcontext():
            optimizer.zero_grad()
            F.cross_entropy(trained(images), targets).backward()
            optimizer.step()

    return step


def peak_megabytes(kind: str, state: str, side: int, batch: int) -> tuple[float, float]:
    """What three steps need above the process that is ready to make them, and the most that tensors take in a step."""
    torch.set_num_threads(1)
    keep_freed_memory()
    step = stepper(kind, state, side, batch)
    before = _resident_megabytes()
    for _ in range(3):
        step()
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return process, _tensor_megabytes(step)


def _tensor_megabytes(step: Callable[[], None]) -> float:
    """The most that PyTorch's allocator has given out during a step, above what it had before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    memory = sorted((one["ts"], one["args"]["Total Allocated"]) for one in events if one["name"] == "[memory]")
    totals = [total for _, total in memory]
    return (max(totals) - totals[0]) / 2**20


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Time the steps in turn, measure memory, and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = (arguments.side, arguments.batch)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        memory = {(kind, state): pool.submit(peak_megabytes, kind, state, *size) for state in STATES for kind in KINDS}
        peaks = {key: future.result() for key, future in memory.items()}
    keep_freed_memory()
    timings = interleaved({key: stepper(*key, *size) for key in peaks}, rounds=arguments.rounds)  # type: ignore[type-var, arg-type]
    rows = []
    for state in STATES:
        macs = profile(network(state), (3, arguments.side, arguments.side)).macs
        plain = timings[KINDS[0], state]  # type: ignore[index]
        for kind in KINDS:
            timing, (process, tensors) = timings[kind, state], peaks[kind, state]  # type: ignore[index]
            plain_process, plain_tensors = peaks[KINDS[0], state]
            rows.append(
                {
                    "state": state,
                    "kind": kind,
                    "macs": macs,
                    "median_ms": round(timing.median_ms, 1),
                    "median_ratio": round(timing.median_ms / plain.median_ms, 3),
                    "minimum_ratio": round(timing.minimum_ms / plain.minimum_ms, 3),
                    "peak_mb": round(process),
                    "peak_ratio": round(process / plain_process, 3),
                    "tensor_mb": round(tensors),
                    "tensor_ratio": round(tensors / plain_tensors, 3),
                }
            )
            print(rows[-1], flush=True)
    facts = {"side": arguments.side, "batch": arguments.batch, "threads": arguments.threads, "rounds": arguments.rounds}
    write_record(RESULTS, {"machine": machine(), **facts, "results": rows})


if __name__ == "__main__":
    main()
