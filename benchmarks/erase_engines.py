"""The compressed eraser: the network that fills, in float and with few bits, in each runtime, inside `erase`.

`tsam_tiny` with the weights that come with Tenfold; the same trained on for one epoch of 120 windows with 8 bits (QAT)
and with learned bits (FracBits, the BitOPs of 6 bits everywhere); each exported. Every export erases masks of a real
object from clips whose background is known, at 432 x 240: what the runtimes take for the first window, in turn; frames
a second with the fastest; the distance to PyTorch; PSNR and SSIM in the masks.

    TENFOLD_SHARED=... python benchmarks/erase_engines.py   # half an hour of one core, most for exports; resumable

Recorded in results/erase_engines.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from erase import BACKGROUNDS, FRAMES, OBJECTS, SIZE
from inpainting import never_found, scores
from record import machine, write_record
from tenfold.cli.filling_network import make_filling
from tenfold.data import object_masks, open_clip
from tenfold.models import packaged_weights
from tenfold.video import EraseOptions, erase_frames
from tenfold.video.network_filling import NetworkFilling

RESULTS = Path(__file__).parent / "results" / "erase_engines.json"
TRAINED = ("--set", "task.subset=120", "--set", "train.lr=0.0005", "--set", "train.eval_epochs=1")
KEPT = ("--set", "methods.0.per_channel=true", "--set", "methods.0.clamp=false")
NETWORKS: dict[str, tuple[str, ...]] = {
    "float": (),
    "8 bits": ("--method", "qat", "--bits", "8/8", *KEPT),
    "FracBits, BitOPs of 6 bits": ("--method", "fracbits", "--like", "uniform:6", "--set", "methods.0.base=trained"),
}


def tenfold(*words: object, data: Path) -> None:
    """Run the command, as a user does."""
    environment = {**os.environ, "TENFOLD_DATA": str(data)}
    command = [sys.executable, "-m", "tenfold.cli.main", *map(str, words)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def prepared(name: str, work: Path, shared: Path) -> Path:
    """The run folder of a network with its export; made if it is not there."""
    run = work / name.replace(" ", "-").replace(",", "")
    weights, data = packaged_weights("tsam_tiny"), shared / "data"
    assert weights is not None
    if not (run / "artifact.safetensors").exists():
        if NETWORKS[name]:
            cache = ("--set", f"task.cache={work / 'windows'}")
            words = ("fit", "--recipe", "tsam_tiny_simulated", "--weights", weights, *NETWORKS[name], *TRAINED, *cache)
            tenfold(*words, "--device", "cpu", "--resume", "--out", run, data=data)
        else:
            run.mkdir(parents=True, exist_ok=True)
            (run / "artifact.safetensors").write_bytes(weights.read_bytes())
    if not (run / "fast.onnx").exists():
        tenfold("export", run, data=data)
    return run


def erased(run: Path, engine: Any, clips: list[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Erase every clip with one network in one engine."""
    found: dict[str, Any] = {"clips": {}}
    for name, frames, masks in clips:
        covered = frames.copy()
        covered[masks] = 0
        filling = make_filling(str(run), None, seam=0, device="cpu", engine=engine, threads=1)
        assert isinstance(filling, NetworkFilling)
        began = time.perf_counter()
        options = EraseOptions(dilate=0, feather=0)
        done = [one.frame for one in erase_frames(zip(covered, masks, strict=True), options, filling=filling)]
        seconds = time.perf_counter() - began
        report = None if filling.report is None else asdict(filling.report)
        values = scores(np.stack(done), frames, masks, never_found(covered, masks))
        found["clips"][name] = {**values, "frames_per_second": len(frames) / seconds, "engine": report}
        print(run.name, engine, name, found["clips"][name], flush=True)
    return found


def main() -> None:
    """Prepare what is missing, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TENFOLD_SHARED", "../shared")))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tenfold-erase-engines")
    parser.add_argument("--prepare", action="store_true", help="train and export only")
    options = parser.parse_args()
    runs = {name: prepared(name, options.work, options.shared) for name in NETWORKS}
    if options.prepare:
        return
    _, track = open_clip(options.shared / OBJECTS).read(0, 60, (480, 854))
    clips = []
    for seed, (place, start) in enumerate(BACKGROUNDS):
        frames, _ = open_clip(options.shared / place).read(start, FRAMES, SIZE)
        clips.append((Path(place).name, frames, object_masks(track, FRAMES, *SIZE, np.random.default_rng(seed))))
    rows = []
    for name, run in runs.items():
        sizes = {file.name: file.stat().st_size for file in (run / "artifact.safetensors", run / "fast.onnx")}
        for engine in ("auto", "torch"):
            rows.append({"network": name, "engine": engine, "bytes": sizes, **erased(run, engine, clips)})
    write_record(RESULTS, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
