"""Whole trainings with switched and with learned bits: resumed, reloaded, reported."""

import pytest
import torch
from torch import nn

from tenfold.cost import Budget, profile
from tenfold.errors import CheckpointError
from tenfold.methods import AdaBits, FracBits
from tenfold.quant import available_bits, describe, quantized_parts, set_bits
from tenfold.train import fit, load
from train.toy_training import CLASSES, ToyTask, assert_same_end, toy_config


def network():
    """Channels that a tight budget may prune: the middle layers are followed by others, one to one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(16, CLASSES),
    )


METHODS = {
    "adabits": lambda: AdaBits(bits=(8, 4, 2)),
    "descending": lambda: AdaBits(bits=(8, 4, 2), training="descending", calibration_batches=2),
    "direct": lambda: AdaBits(bits=(8, 4), training="direct", calibration_batches=2),
    "mixed": lambda: AdaBits(bits=(8, 4, 3), search_share=0.5, bits_rate=50.0),
    "by layer": lambda: FracBits(like=3, search_share=0.5),
    "by kernel": lambda: FracBits(weight_bits="kernel", w_range=(0, 4), search_share=0.5, kappa=20.0, start=0.6),
}
CONFIG = {"epochs": 2, "ema_decay": 0.8, "mixup": 0.2, "lr": 0.05, "calibration_batches": 1, "checkpoint_steps": 1}


TIGHT = Budget(bitops=360e3)
"""The first layer alone takes 295 k; to stay below, kernels must go."""


def run(folder, method, task=None, **options):
    config = toy_config(**CONFIG)
    budget = TIGHT if method.name == "fracbits" and method.like is None else None
    return fit(network(), task or ToyTask(), [method], budget, config=config, run_dir=folder, quiet=True, **options)


class BrokenOffError(Exception):
    """What stops a training in the middle."""


class BreakingTask(ToyTask):
    """Breaks off when a step (from 1) asks for its batch; every step before it has a checkpoint."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def train_batches(self, *, epoch, batch_size, start=0, **options):
        steps = self.batches_per_epoch(batch_size)
        batches = super().train_batches(epoch=epoch, batch_size=batch_size, start=start, **options)
        for step, batch in enumerate(batches, start=start + 1):
            if epoch * steps + step == self.step:
                raise BrokenOffError
            yield batch


@pytest.fixture(scope="module", params=METHODS)
def whole(request, tmp_path_factory):
    """A whole training with each method: its name and result."""
    return request.param, run(tmp_path_factory.mktemp("whole"), METHODS[request.param]())


def test_a_run_broken_in_the_search_and_after_freezing_ends_bit_identical(whole, tmp_path):
    name, result = whole
    for step in (3, 6):
        with pytest.raises(BrokenOffError):
            run(tmp_path, METHODS[name](), BreakingTask(step), resume=True)
    run(tmp_path, METHODS[name](), resume=True)
    assert_same_end(result.artifact.parent, tmp_path)


def test_an_artifact_brings_back_the_same_network(whole):
    _, result = whole
    loaded, images = load(result.artifact, network()), ToyTask().example(8)
    assert describe(loaded) == describe(result.network)
    assert available_bits(loaded) == available_bits(result.network)
    assert torch.equal(loaded(images), result.network(images))
    for bits in available_bits(loaded):
        set_bits(loaded, bits)
        set_bits(result.network, bits)
        assert torch.equal(loaded(images), result.network(images))


def test_every_width_is_judged_and_counted(tmp_path):
    result = run(tmp_path / "run", METHODS["adabits"]())
    rows = result.report["settings"]
    assert [row["name"] for row in rows] == ["8", "4", "2"]
    assert [row["cost"]["bitops"] for row in rows] == sorted((row["cost"]["bitops"] for row in rows), reverse=True)
    assert result.metrics["top1"] == pytest.approx(sum(row["metrics"]["top1"] for row in rows) / 3)
    assert result.report["cost"]["after"]["bitops"] == rows[0]["cost"]["bitops"]
    assert {"top1/8", "top1/4", "top1/2"} <= result.report["curves"][0].keys()


def test_bits_learned_at_every_width_cost_no_more_than_the_same_bits_everywhere(tmp_path):
    uniform, result = (
        run(tmp_path / str(share), AdaBits(bits=(8, 4, 3), search_share=share, bits_rate=50.0)) for share in (0.0, 0.5)
    )
    found = result.report["found"]["adabits"]["widths"]
    assert [one["width"] for one in found] == ["8", "4", "3"]
    for bits, one in zip((8, 4, 3), found, strict=True):
        set_bits(result.network, bits)
        set_bits(uniform.network, bits)
        limit = profile(uniform.network, (1, 8, 8)).bitops
        assert one["limit"] == limit
        assert 0.9 * limit < profile(result.network, (1, 8, 8)).bitops <= limit
        assert {row["name"]: (row["w_bits"], row["a_bits"]) for row in one["layers"]} == {
            name: (part.w_bits, part.a_bits) for name, part in quantized_parts(result.network)
        }
    learned = {(row["w_bits"], row["a_bits"]) for row in found[1]["layers"]}
    assert len(learned) > 2
    *before, last = result.report["found"]["adabits"]["trajectory"]
    assert before
    assert last["used"] == [one["used"] for one in found]
    assert sorted(last["w_bits"], reverse=True) == last["w_bits"]


def test_pruned_channels_are_gone_from_the_artifact(tmp_path):
    result = run(tmp_path / "run", METHODS["by kernel"]())
    limits = result.report["found"]["fracbits"]["limits"]
    assert result.report["cost"]["after"]["bitops"] <= limits["bitops"]
    cuts = load(result.artifact, network()).header["cuts"]
    pruned = sum(len(channels) for channels in cuts[0]["removed"].values())
    assert pruned > 0
    assert profile(result.network, (1, 8, 8)).macs < profile(network(), (1, 8, 8)).macs


def test_another_order_of_the_widths_cannot_resume(tmp_path):
    with pytest.raises(BrokenOffError):
        run(tmp_path / "run", AdaBits(bits=(8, 4, 2)), BreakingTask(3))
    with pytest.raises(CheckpointError, match=r"methods\[0\]\.bits\[1\]: 4 in the checkpoint, 2 now"):
        run(tmp_path / "run", AdaBits(bits=(8, 2, 4)), resume=True)
