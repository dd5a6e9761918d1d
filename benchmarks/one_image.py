"""What one prediction costs a process: start, read the image, run MobileNetV2, answer.

`tenfold predict` on an ONNX file imports no torch. The same network in torch is the comparison.

    python benchmarks/one_image.py           # about a minute

Recorded in results/one_image.json.
"""

from __future__ import annotations

import argparse
import os
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


def cost_of(command: list[str]) -> dict[str, float]:
    """CPU seconds and peak resident memory of a process, the best of five."""
    best = {"cpu_seconds": float("inf"), "peak_mb": float("inf")}
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command} failed with status {status}")
        best["cpu_seconds"] = min(best["cpu_seconds"], usage.ru_utime + usage.ru_stime)
        best["peak_mb"] = min(best["peak_mb"], usage.ru_maxrss / 1024)
    return {name: round(value, 3) for name, value in best.items()}


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
