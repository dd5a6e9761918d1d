"""Trainings of networks that take several inputs, have several targets, and tell their own losses while they train."""

import json
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.methods import SAT, NormCalibration
from tenfold.train import Interrupted, evaluate, fit
from train.toy_training import CLASSES, ToyTask, assert_same_end, make_images, toy_config


class Views(NamedTuple):
    """One picture twice: as it is, and mirrored."""

    image: Tensor
    mirrored: Tensor
    weight: Tensor


class Truth(NamedTuple):
    label: Tensor
    is_left: Tensor


class TwoViews(ToyTask):
    """The toy task with its answer in two parts, (inputs, targets) each of several tensors."""

    name = "two views"

    def train_batches(self, **options):
        return (pair(*batch) for batch in super().train_batches(**options))

    def eval_batches(self, **options):
        return (pair(*batch) for batch in super().eval_batches(**options))

    def example(self, batch_size=1):
        return pair(*make_images(batch_size, 78))[0]

    def infer(self, network, inputs):
        return network(*inputs)["label"]

    def loss(self, outputs, targets, *, label_smoothing=0.0):
        if isinstance(outputs, dict):
            left = F.binary_cross_entropy_with_logits(outputs["is_left"], targets.is_left)
            return F.cross_entropy(outputs["label"], targets.label) + left
        return F.cross_entropy(outputs, targets.label)

    def metrics(self):
        return OfLabels(super().metrics())


class OfLabels:
    """Metrics that look at a part of the targets."""

    def __init__(self, inner):
        self.inner = inner

    def to(self, device):
        self.inner.to(device)
        return self

    def update(self, outputs, targets):
        self.inner.update(outputs, targets.label)

    def compute(self):
        return self.inner.compute()


def pair(images, labels):
    return Views(images, images.flip(-1), torch.ones(len(images))), Truth(labels, (labels % 2 == 0).float())


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.label, self.is_left = nn.Linear(32, CLASSES), nn.Linear(32, 1)

    def forward(self, image, mirrored, weight):
        features = self.trunk(torch.cat([image, mirrored], 1)) * weight[:, None]
        return {"label": self.label(features), "is_left": self.is_left(features)[:, 0]}


def train(run_dir, task=None, *, resume=False, methods=(), **options):
    torch.manual_seed(0)
    config = toy_config(**({"ema_decay": 0.9} | options))
    return fit(TwoHeads(), task or TwoViews(), methods, config=config, run_dir=run_dir, resume=resume, quiet=True)


def test_several_inputs_and_targets_train_and_are_judged(tmp_path):
    result = train(tmp_path / "run", epochs=4)
    first, *_, last = result.report["curves"]
    assert last["train_loss"] < 0.8 * first["train_loss"]
    assert result.metrics["top1"] > 0.5
    again = evaluate(result.network, TwoViews(), batch_size=5, device="cpu")
    assert again["top1"] == pytest.approx(result.metrics["top1"])
    # 2 x 8 and 8 x 8 kernels of 9 at 8 x 8 places, and two linear layers
    assert result.report["cost"]["after"]["macs"] == (2 * 8 + 8 * 8) * 9 * 64 + 32 * 5


def test_an_interrupted_training_of_several_inputs_ends_bit_identical(tmp_path):
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", TwoViews(interrupted_step=3))
    train(tmp_path / "parts", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_quantization_calibrates_on_several_inputs(tmp_path):
    methods = [SAT(w_bits=4, a_bits=4), NormCalibration(batches=2)]
    result = train(tmp_path / "run", methods=methods, epochs=1, calibration_batches=2)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    cost = report["cost"]
    assert cost["after"]["bitops"] < 0.1 * cost["before"]["bitops"]  # of one sample, not of the whole example
    assert cost["after"]["macs"] == cost["before"]["macs"] == result.report["cost"]["after"]["macs"]
