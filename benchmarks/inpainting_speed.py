"""What `tenfold inpaint` costs a process: CPU time and peak memory for a clip, and for one four times as long.

A DAVIS clip at 424 x 240 (and at 854 x 480), lossless, its object removed, runs there and back to the length wanted.
The peak is that of the whole process: Python, OpenCV, decoder, encoder and frames.

    TENFOLD_SHARED=... python benchmarks/inpainting_speed.py     # about five minutes of one core

Recorded in results/inpainting_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from one_image import LAUNCHER
from record import machine, write_record
from tenfold.data import open_clip
from tenfold.data.video import VideoInfo
from tenfold.data.video_writing import VideoWriter

RESULTS = Path(__file__).parent / "results" / "inpainting_speed.json"
LENGTHS = (70, 280)
SIZES = ((240, 424), (480, 854))


def write_clip(folder: Path, source: Path, size: tuple[int, int], length: int) -> None:
    """A lossless clip, and its masks as pictures."""
    clip = open_clip(source)
    order = [*range(len(clip)), *range(len(clip) - 2, 0, -1)]
    rate = Fraction(24)
    info = VideoInfo(
        height=size[0],
        width=size[1],
        rate=rate,
        frames=length,
        time_base=1 / rate,
        pixel_aspect=Fraction(1),
        codec="rgb",
        has_sound=False,
    )
    (folder / "masks").mkdir(parents=True)
    with VideoWriter(folder / "clip.mp4", info, lossless=True) as writer:
        for at in range(length):
            frames, objects = clip.read(order[at % len(order)], 1, size)
            writer.write_image(frames[0], at)
            Image.fromarray(objects[0].astype(np.uint8) * 255).save(folder / "masks" / f"{at:05d}.png")


def cost(folder: Path, passes: int) -> dict[str, Any]:
    """Run the command in a process of its own."""
    tenfold = [sys.executable, "-m", "tenfold.cli.main", "inpaint", str(folder / "clip.mp4")]
    words = ["--mask", str(folder / "masks"), "-o", str(folder / f"out{passes}.mp4"), "--dilate", "4"]
    command = [*tenfold, *words, "--passes", str(passes), "--json"]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], capture_output=True, check=True)
    cpu, peak = json.loads(done.stdout)
    return {"cpu_seconds": round(cpu, 2), "peak_mb": round(peak), "seconds": round(time.perf_counter() - began, 2)}


def main() -> None:
    """Measure every size, length and number of passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TENFOLD_SHARED", "../shared")))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for size in SIZES:
            for length in LENGTHS:
                folder = Path(name) / f"{size[0]}_{length}"
                write_clip(folder, options.shared / "data/video/davis_tennis", size, length)
                for passes in (1, 2):
                    row = {"size": list(size), "frames": length, "passes": passes, **cost(folder, passes)}
                    row["frames_per_cpu_second"] = round(length / row["cpu_seconds"], 2)
                    rows.append(row)
                    print(row, flush=True)
    write_record(RESULTS, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
