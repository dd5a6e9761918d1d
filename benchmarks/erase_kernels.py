"""Erasing with the native kernels and without, in turns: CPU time of the whole and of the two that were slowest.

    TENFOLD_SHARED=... python benchmarks/erase_kernels.py       # about two minutes of one core

Recorded in results/erase_kernels.json. Whole: 40 frames of a DAVIS clip, its player erased, presets fast and good.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from record import machine, write_record
from tenfold.data import open_clip
from tenfold.kernels.library import state, without_kernels
from tenfold.video import EraseOptions, erase_frames
from tenfold.video.harmonic import harmonic_fill
from tenfold.video.propagation import Sources, copied_colours

RESULTS = Path(__file__).parent / "results" / "erase_kernels.json"
CLIP, FRAMES, SIZE = "data/video/davis_tennis", 40, (240, 432)


def cases(shared: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    frames, masks = open_clip(shared / CLIP).read(0, FRAMES, SIZE)
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 2, (2, *SIZE)).cumsum(2).astype(np.float32) / 10
    count = int(masks[0].sum())
    sources = [
        Sources(rng.integers(0, FRAMES, count), (rng.random((2, count)) * np.array([SIZE[::-1]]).T).astype(np.float32))
        for _ in range(2)
    ]
    pictures = {number: (frame, mask) for number, (frame, mask) in enumerate(zip(frames, masks, strict=True))}

    def whole(preset: str) -> None:
        for _ in erase_frames(zip(frames, masks, strict=True), EraseOptions(preset=preset)):
            pass

    return {
        "flow completed in a hole": lambda: harmonic_fill(flow, masks[0], 3e-2),
        "colours copied into a hole": lambda: copied_colours(FRAMES // 2, *sources, pictures),
        "erase, fast": lambda: whole("fast"),
        "erase, good": lambda: whole("good"),
    }


def seconds(run: Callable[[], Any], native: bool) -> float:
    """CPU seconds of one call."""
    with nullcontext() if native else without_kernels():
        began = time.process_time()
        run()
        return time.process_time() - began


def main() -> None:
    """Take turns, and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TENFOLD_SHARED", "../shared")))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for name, run in cases(options.shared).items():
        rounds = options.rounds if name.startswith("erase") else 20 * options.rounds
        pairs = [(seconds(run, True), seconds(run, False)) for _ in range(rounds + 1)][1:]  # the first warms up
        milliseconds = [round(1000 * median(times), 2) for times in zip(*pairs, strict=True)]
        ratio = round(median(native / plain for native, plain in pairs), 3)
        rows.append({"what": name, "native_ms": milliseconds[0], "numpy_ms": milliseconds[1], "ratio": ratio})
        print(rows[-1], flush=True)
    write_record(RESULTS, {"machine": machine(), "level": state()[1], "size": list(SIZE), "rows": rows})


if __name__ == "__main__":
    main()
