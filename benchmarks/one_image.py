"""What one prediction costs a process: start, read the image, run MobileNetV2, answer.

`tenfold predict` on an ONNX file imports no torch. The same network in torch is the comparison.

    python benchmarks/one_image.py           # about a minute

Recorded in results/one_image.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export_speed import exports
from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "one_image.json"
IN_TORCH = """
import sys, torch, torchvision
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
network = torchvision.models.mobilenet_v2().eval()
with torch.no_grad():
    print(network(pil_to_tensor(Image.open(sys.argv[1])).float()[None]).argmax())
"""


LAUNCHER = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""
"""Starts a process from a small one: the peak of a child begins at that of the process that it is forked from."""


def cost_of(command: list[str]) -> dict[str, float]:
    """CPU seconds and peak resident memory of a process, the best of five."""
    launcher = [sys.executable, "-S", "-c", LAUNCHER, *command]
    runs = [json.loads(subprocess.run(launcher, capture_output=True, check=True).stdout) for _ in range(5)]
    seconds, peaks = zip(*runs, strict=True)
    return {"cpu_seconds": round(min(seconds), 3), "peak_mb": round(min(peaks), 1)}


def main() -> None:
    """Export once, then run whole processes."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = exports("mobilenet_v2", folder, ("float", "fast", "compact"))
        image = folder / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(image)
        tenfold = [str(Path(sys.executable).parent / "tenfold"), "predict"]
        rows: dict[str, Any] = {
            f"tenfold predict, {profile}": cost_of([*tenfold, str(path), str(image), "--engine", "onnxruntime"])
            for profile, path in paths.items()
        }
        rows["torch and torchvision"] = cost_of([sys.executable, "-c", IN_TORCH, str(image)])
    write_record(RESULTS, {"machine": machine(), "results": rows})
    for label, row in rows.items():
        print(f"{label:26} {row}")


if __name__ == "__main__":
    main()
