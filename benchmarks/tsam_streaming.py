"""TSAM over a long clip: every map computed once in a stream, or window by window. `tsam_small` at 424 x 240.

Three ways to get the next nine frames in the middle of a clip take turns:

    stream          `TsamStream`, which keeps the last frames of each layer: nine frames are computed
    equal windows   a window that sees as much: the nine frames and, on both sides, as many as the network's layers
                    look ahead; its answers are those of the stream, and it computes 31 frames
    short windows   the authors' windows of 15, of which nine are kept; cheaper, but their outer frames lack neighbours,
                    so their answers are others

The equal windows are the straightforward computation of what the stream gives; the goal is three times its speed with
answers within 1e-4. Random weights, frames and flows: what is computed does not depend on them.

    python benchmarks/tsam_streaming.py --threads 1     # about a minute of a core
    python benchmarks/tsam_streaming.py --threads 2

Recorded in results/tsam_streaming.json, by the number of threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from record import machine, write_record
from tenfold import build
from tenfold.models import NetworkArguments, TsamStream
from tenfold.models.tsam import Tsam

RESULTS = Path(__file__).parent / "results" / "tsam_streaming.json"
SIZE = (240, 424)
STEP, SHORT = 9, 15


def main() -> None:
    """Take turns, compare the answers, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = network_with_statistics()
    stream = TsamStream(network)
    context = stream.delay
    # The frames before the first turn fill the stream; the last turn needs its context behind it.
    warm = -(-2 * context // STEP) * STEP
    clip = random_clip(warm + arguments.rounds * STEP + context)
    made = [stream.push(*part(clip, start, start + STEP)) for start in range(0, warm, STEP)]
    peaks = {"stream": peak_mb()}
    seconds: dict[str, list[tuple[float, float]]] = {"stream": [], "short windows": [], "equal windows": []}
    differences: dict[str, float] = {"short windows": 0.0, "equal windows": 0.0}
    for start in range(warm, warm + arguments.rounds * STEP, STEP):
        first = start - context  # the nine frames that come out now
        answers, times = {}, {}
        answers["stream"], times["stream"] = timed(lambda at=start: stream.push(*part(clip, at, at + STEP)))
        for name, before in (("short windows", (SHORT - STEP) // 2), ("equal windows", context)):
            window = part(clip, first - before, first + STEP + before, inside=True)
            answers[name], times[name] = timed(lambda window=window: network(*window))
            answers[name] = answers[name][:, before : before + STEP]
            peaks.setdefault(name, peak_mb())
            difference = float((answers[name] - answers["stream"]).abs().max())
            differences[name] = max(differences[name], difference)
        for name, one in times.items():
            seconds[name].append(one)
        made.append(answers["stream"])
    rows = []
    for name, ones in seconds.items():
        cpu = median(one[1] for one in ones)
        ratio = median(one[1] / own[1] for one, own in zip(ones, seconds["stream"], strict=True))
        rows.append(
            {
                "way": name,
                "frames_computed": {"stream": STEP, "short windows": SHORT}.get(name, STEP + 2 * context),
                "cpu_seconds_a_frame": round(cpu / STEP, 3),
                "seconds_a_frame": round(median(one[0] for one in ones) / STEP, 3),
                "times_the_stream": round(ratio, 2),
                "peak_mb": peaks[name],
                "largest_difference": differences.get(name, 0.0),
            }
        )
        print(rows[-1])
    deviation = float(torch.cat(made, 1).std())
    run = {"threads": arguments.threads, "rounds": arguments.rounds, "deviation_of_answers": round(deviation, 4)}
    known = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    others = [one for one in known if one["threads"] != arguments.threads]
    runs = sorted([*others, {**run, "rows": rows}], key=lambda one: int(one["threads"]))
    write_record(RESULTS, {"network": "tsam_small", "size": SIZE, "runs": runs, "machine": machine()})


@torch.no_grad()
def network_with_statistics() -> Tsam:
    """Random weights whose batch norms have seen a window, so that signals neither die out nor blow up."""
    torch.manual_seed(0)
    network = build("tsam_small")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(*random_clip(2))
    assert isinstance(network, Tsam)
    return network.eval()


def random_clip(frames: int) -> NetworkArguments:
    """Noise with holes, and motion of a few pixels."""
    generator = torch.Generator().manual_seed(1)

    def uniform(count: int, channels: int) -> Tensor:
        return torch.rand(1, count, channels, *SIZE, generator=generator)

    known = (uniform(frames, 1) > 0.2).float()
    flows = [6 * uniform(frames - 1, 2) - 3 for _ in range(2)]
    invalid = [(uniform(frames - 1, 1) > 0.9).float() for _ in range(2)]
    return NetworkArguments(uniform(frames, 3), known, torch.zeros_like(known), *flows, *invalid)


def part(clip: NetworkArguments, start: int, stop: int, *, inside: bool = False) -> list[Tensor]:
    """Some frames of a clip with the flows between them; for a stream also with the flow that leads to the first."""
    flows = slice(start if inside else max(start - 1, 0), stop - 1)
    return [*(one[:, start:stop] for one in clip[:3]), *(one[:, flows] for one in clip[3:])]


@torch.inference_mode()
def timed(run: Callable[[], Tensor]) -> tuple[Tensor, tuple[float, float]]:
    """What it gives, and its seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    given = run()
    return given, (time.perf_counter() - wall, time.process_time() - cpu)


def peak_mb() -> int:
    """The most memory that this process has had; so the ways are first run from the leanest on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
