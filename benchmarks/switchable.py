"""One file for four bit-widths beside four files: bytes, and time at each width.

Networks have random weights (neither bytes nor time depend on them) with batch-norm statistics set on noise. "Built in"
is an engine opened at a width; "at the call" one engine that is told the width with each call.

    python benchmarks/switchable.py          # about three minutes on two quiet cores

Recorded in results/switchable.json.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from record import machine, write_record
from tenfold import AdaBits, build, export_onnx, set_bits
from tenfold.cost import interleaved
from tenfold.export import open_engine
from tenfold.quant import calibrate

RESULTS = Path(__file__).parent / "results" / "switchable.json"
WIDTHS = (8, 6, 5, 4)
MODELS = {"resnet20_cifar": 32, "mobilenet_v2": 96}


def export_all(model: str, side: int, folder: Path) -> dict[str, Path]:
    """The switchable file, and a compact one for each width."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, side, side) * 255
    network = AdaBits(bits=WIDTHS).attach(build(model, num_classes=10), None, images).eval()
    paths = {"switchable": folder / f"{model}.onnx"}
    for bits in WIDTHS:
        set_bits(network, bits)
        calibrate(network, [images])
        paths[f"compact {bits}"] = folder / f"{model}-{bits}.onnx"
        # Untrained codes lie on ties more often than trained ones.
        export_onnx(network, paths[f"compact {bits}"], example=images, profile="compact", tolerance=0.5)
    set_bits(network, WIDTHS[0])
    export_onnx(network, paths["switchable"], example=images, profile="switchable", tolerance=0.5)
    return paths


def main() -> None:
    """Export, weigh, time in turn, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model, side in MODELS.items():
            paths = export_all(model, side, Path(folder))
            sizes = {name: path.stat().st_size for name, path in paths.items()}
            images = np.random.default_rng(0).random((1, 3, side, side), np.float32) * 255
            opened = partial(open_engine, engine="onnxruntime", threads=arguments.threads)
            any_width = opened(paths["switchable"])
            runs: dict[str, Any] = {}
            for bits in (WIDTHS[0], WIDTHS[-1]):
                runs[f"compact {bits}"] = partial(opened(paths[f"compact {bits}"]).run, images)
                runs[f"built in {bits}"] = partial(opened(paths["switchable"], bits=bits).run, images)
            runs[f"at the call {WIDTHS[-1]}"] = partial(any_width.run, images, WIDTHS[-1])
            timings = interleaved(runs, rounds=arguments.rounds)
            rows.append(
                {
                    "model": model,
                    "side": side,
                    "switchable_bytes": sizes["switchable"],
                    "separate_bytes": sum(size for name, size in sizes.items() if name != "switchable"),
                    "median_ms": {name: round(timing.median_ms, 3) for name, timing in timings.items()},
                }
            )
            print(rows[-1], flush=True)
    facts = {"widths": list(WIDTHS), "rounds": arguments.rounds, "threads": arguments.threads}
    write_record(RESULTS, {"machine": machine(), **facts, "results": rows})


if __name__ == "__main__":
    main()
