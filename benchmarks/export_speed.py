"""The `fast` export beside the same runtime's float32, on MobileNetV2 and ResNet-50 at 224.

Networks have random weights (speed does not depend on them), batch-norm statistics set on noise, 8-bit weights and
activations. For each model, batch and runtime, the float file and the fast file take turns.

    python benchmarks/export_speed.py        # about five minutes on two quiet cores

Recorded in results/export_speed.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from record import machine, write_record
from tenfold import build, export_onnx
from tenfold.cost import interleaved
from tenfold.data import Preprocess
from tenfold.export import open_engine
from tenfold.methods import QAT
from tenfold.quant import calibrate

RESULTS = Path(__file__).parent / "results" / "export_speed.json"
MODELS = ("mobilenet_v2", "resnet50")
TASK = {"preprocess": Preprocess(size=224, resize=256).to_dict(), "labels": []}
BATCHES = (1, 8)
ENGINES = ("onnxruntime", "openvino")


def noise(batch: int) -> Tensor:
    """Random pixels."""
    return torch.rand(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 255


def settled(name: str) -> nn.Module:
    """A float network whose activations have sane sizes."""
    torch.manual_seed(0)
    network = build(name)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network.train()(noise(8))
    return network.eval()


def exports(name: str, folder: Path, profiles: Sequence[str] = ("float", "fast")) -> dict[str, Path]:
    """The files of one model: float, and with 8-bit weights and activations."""
    paths = {profile: folder / f"{name}-{profile}.onnx" for profile in profiles}
    example = noise(4)
    export_onnx(settled(name), paths["float"], example=example, profile="float", task=TASK)
    quantized = QAT(w_bits=8, a_bits=8, clamp=False, per_channel=True).attach(settled(name), None, example)
    calibrate(quantized, [example])
    for profile in profiles[1:]:
        export_onnx(quantized, paths[profile], example=example, profile=profile, task=TASK)
    return paths


def main() -> None:
    """Export, time in turn, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            paths = exports(name, Path(folder))
            for batch in BATCHES:
                images = np.asarray(noise(batch))
                for engine in ENGINES:
                    runs = {
                        profile: open_engine(path, engine=engine, threads=arguments.threads)
                        for profile, path in paths.items()
                    }
                    timings = interleaved(
                        {profile: partial(run.run, images) for profile, run in runs.items()},
                        rounds=arguments.rounds,
                    )
                    plain, fast = timings["float"], timings["fast"]
                    rows.append(
                        {
                            "model": name,
                            "batch": batch,
                            "engine": engine,
                            "float_ms": round(plain.median_ms, 3),
                            "fast_ms": round(fast.median_ms, 3),
                            "median_ratio": round(plain.median_ms / fast.median_ms, 2),
                            "minimum_ratio": round(plain.minimum_ms / fast.minimum_ms, 2),
                        }
                    )
                    print(rows[-1], flush=True)
    write_record(RESULTS, {"machine": machine(), "rounds": arguments.rounds, "results": rows})


if __name__ == "__main__":
    main()
