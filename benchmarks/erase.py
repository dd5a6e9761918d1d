"""Erasing, measured: how near the filling comes to the truth, how fast it is, and what memory it takes.

Fidelity: masks of real objects are laid over clips of clean background, so that the truth is known; PSNR and SSIM in
the masks, beside OpenCV's two algorithms frame by frame, the temporal median and copying along flow, without a network
and with the one that comes with Tenfold. Speed and memory: `tenfold erase` in a process of its own, at two sizes and
two lengths.

    TENFOLD_SHARED=... python benchmarks/erase.py                    # about ten minutes of one core
    TENFOLD_SHARED=... python benchmarks/erase.py --strips FOLDER    # pictures of frames, to be looked at

Recorded in results/erase.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inpainting import Frames, Holes, by_opencv, flow_copy, never_found, scores, strip, temporal_median, tiny_network
from inpainting_speed import write_clip
from one_image import LAUNCHER
from record import machine, write_record
from tenfold.data import object_masks, open_clip
from tenfold.video import EraseOptions, erase_frames
from tenfold.video.filling import Filling

RESULTS = Path(__file__).parent / "results" / "erase.json"
BACKGROUNDS = (("data/video/sam2_bedroom", 0), ("data/video/sam2_dog", 20), ("data/video/sam2_blocks", 10))
OBJECTS = "data/video/davis_tennis"
FRAMES, SIZE = 30, (240, 432)
SIZES = ((240, 432), (480, 854))


def by_erase(frames: Frames, masks: Holes, preset: str, filling: Filling | None = None) -> Frames:
    """As `tenfold erase` does it, without growing masks that are exact."""
    options = EraseOptions(dilate=0, feather=0, preset=preset)
    return np.stack([one.frame for one in erase_frames(zip(frames, masks, strict=True), options, filling=filling)])


METHODS = {
    "telea": lambda frames, masks: by_opencv(frames, masks),
    "navier-stokes": lambda frames, masks: by_opencv(frames, masks, cv2.INPAINT_NS),
    "temporal median": temporal_median,
    "flow copy": lambda frames, masks: flow_copy(frames, masks, "observed"),
    "erase fast": lambda frames, masks: by_erase(frames, masks, "fast"),
    "erase good": lambda frames, masks: by_erase(frames, masks, "good"),
    "erase good, tsam_tiny": lambda frames, masks: by_erase(frames, masks, "good", tiny_network()),
}


def fidelity(shared: Path, strips: Path | None) -> list[dict[str, Any]]:
    """Every method on every background."""
    _, track = open_clip(shared / OBJECTS).read(0, 60, (480, 854))
    rows = []
    for seed, (place, start) in enumerate(BACKGROUNDS):
        frames, _ = open_clip(shared / place).read(start, FRAMES, SIZE)
        masks = object_masks(track, FRAMES, *SIZE, np.random.default_rng(seed))
        covered = frames.copy()
        covered[masks] = 0
        rest, made = never_found(covered, masks), {}
        for name, method in METHODS.items():
            made[name] = method(covered, masks)
            row = {"clip": Path(place).name, "method": name, **scores(made[name], frames, masks, rest)}
            rows.append(row)
            print(row, flush=True)
        for at in range(0, FRAMES, 5) if strips else ():
            strips.mkdir(parents=True, exist_ok=True)
            strip(frames, masks, made, at).save(strips / f"{Path(place).name}_{at:02d}.png")
    return rows


def cost(shared: Path, size: tuple[int, int], length: int) -> dict[str, Any]:
    """`tenfold erase` in a process of its own, on masks that are given."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(folder, shared / OBJECTS, size, length)
        words = ["erase", str(folder / "clip.mp4"), "--masks", str(folder / "masks"), "-o", str(folder / "out.mp4")]
        report = folder / "report.json"
        # The launcher measures a child; a shell keeps what the child prints.
        command = [sys.executable, "-m", "tenfold.cli.main", *words, "--preset", "fast", "--json"]
        kept = ["sh", "-c", 'exec "$@" > "$0"', str(report), *command]
        done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *kept], capture_output=True, check=True)
        cpu, peak = json.loads(done.stdout)
        told = json.loads(report.read_text())
    stages = told["stage_seconds"]
    whole = sum(stages.values())
    return {
        "size": list(size),
        "frames": length,
        "frames_per_second": round(told["frames_per_second"], 2),
        "frames_per_cpu_second": round(length / cpu, 2),
        "shares": {stage: round(seconds / whole, 3) for stage, seconds in stages.items()},
        "peak_mb": round(peak),
    }


def main() -> None:
    """Measure fidelity, speed and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TENFOLD_SHARED", "../shared")))
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 2000], help="frames of the smaller size")
    parser.add_argument("--strips", type=Path, help="folder for pictures: true, with the hole, by each method")
    options = parser.parse_args()
    rows = fidelity(options.shared, options.strips)
    costs = []
    for size in SIZES:
        for length in options.lengths if size == SIZES[0] else options.lengths[:1]:
            costs.append(cost(options.shared, size, length))
            print(costs[-1], flush=True)
    write_record(RESULTS, {"machine": machine(), "fidelity": rows, "costs": costs})


if __name__ == "__main__":
    main()
