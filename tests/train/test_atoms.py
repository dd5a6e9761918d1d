"""Whole trainings that shrink: resumed in the middle, reloaded, together with learned bits, within all budgets."""

import pytest
import torch

from tenfold import models
from tenfold.cost import Budget, profile
from tenfold.methods import QAT, AdaBits, AtomNAS, FracBits
from tenfold.train import fit, load
from train.test_bits import BreakingTask, BrokenOffError
from train.toy_training import CLASSES, SIDE, ToyTask, assert_same_end, toy_config

SHAPE = (1, SIDE, SIDE)
TABLE = [[8, 1, 8, 8, 0], [12, 2, 9, 0, 9], [12, 1, 12, 12, 12]]
CONFIG = {"epochs": 3, "ema_decay": 0.8, "mixup": 0.2, "lr": 0.05, "calibration_batches": 1, "checkpoint_steps": 1}


def supernet():
    torch.manual_seed(0)
    return models.build(
        "atomnas", blocks=TABLE, stem=8, first=8, tail=16, stride=1, num_classes=CLASSES, in_channels=1, dropout=0.1
    )


def mobile():
    torch.manual_seed(0)
    return models.build("mobilenet_v2_tiny", num_classes=CLASSES, in_channels=1, width=0.25)


CASES = {
    "atomnas": (supernet, lambda: [AtomNAS()], Budget(macs=60_000)),
    "the paper's penalty": (supernet, lambda: [AtomNAS(penalty_weight=1.0, warmup_share=0.0, threshold=0.3)], None),
    "any network": (mobile, lambda: [AtomNAS(multiple=2)], Budget(params=20_000)),
    "with learned bits": (
        supernet,
        lambda: [AtomNAS(search_share=0.5), FracBits()],
        Budget(macs=60_000, bytes=1100),
    ),
    "with learned bits of kernels": (
        supernet,
        lambda: [AtomNAS(search_share=0.5), FracBits(weight_bits="kernel", w_range=(0, 6))],
        Budget(macs=60_000, bytes=1100),
    ),
    "before quantization": (supernet, lambda: [AtomNAS(), QAT(w_bits=4, a_bits=4)], Budget(macs=60_000)),
    "with several bits": (supernet, lambda: [AtomNAS(), AdaBits(bits=(8, 4))], Budget(macs=60_000)),
}


def run(folder, name, task=None, **options):
    network, methods, budget = CASES[name]
    config = toy_config(**{**CONFIG, **options.pop("config", {})})
    return fit(network(), task or ToyTask(), methods(), budget, config=config, run_dir=folder, quiet=True, **options)


@pytest.fixture(scope="module", params=CASES)
def whole(request, tmp_path_factory):
    """A whole training of each case: its name and result."""
    return request.param, run(tmp_path_factory.mktemp("whole"), request.param)


def test_a_run_broken_while_it_shrinks_and_after_it_ends_bit_identical(whole, tmp_path):
    name, result = whole
    for step in (5, 9):
        with pytest.raises(BrokenOffError):
            run(tmp_path, name, BreakingTask(step), resume=True)
    run(tmp_path, name, resume=True)
    assert_same_end(result.artifact.parent, tmp_path)


def test_the_result_keeps_its_budget_and_comes_back_from_its_artifact(whole):
    name, result = whole
    network, _, budget = CASES[name]
    counted = profile(result.network, SHAPE)
    assert counted.macs < profile(network(), SHAPE).macs
    assert budget is None or not budget.excess(counted)
    loaded, images = load(result.artifact), ToyTask().example(8)
    assert torch.equal(loaded(images), result.network(images))
    assert profile(loaded, SHAPE).to_dict() == counted.to_dict()


def test_others_are_told_what_share_of_the_cost_will_stay(tmp_path):
    network, images = supernet(), torch.rand(2, *SHAPE)
    macs = profile(network, SHAPE).macs
    AtomNAS().attach(network, Budget(macs=0.8 * macs), images)
    assert network.shrinks_to == pytest.approx(0.8, rel=1e-3)
    assert not hasattr(run(tmp_path / "run", "atomnas").network, "shrinks_to")


def test_a_found_network_is_described_by_its_architecture_alone(tmp_path):
    result = run(tmp_path / "run", "atomnas")
    loaded = load(result.artifact)
    assert "cuts" not in loaded.header
    assert loaded.architecture.name == "atomnas"
    fresh = models.build(loaded.architecture)
    assert profile(fresh, SHAPE).macs == profile(result.network, SHAPE).macs
    found = result.report["found"]["atomnas"]
    assert found["trajectory"][-1]["macs"] == profile(result.network, SHAPE).macs
    assert sum(found["trajectory"][-1]["atoms"].values()) == sum(sum(one["after"].values()) for one in found["blocks"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop_tf"])
def test_every_optimizer_is_cut_along(tmp_path, optimizer):
    result = run(tmp_path / "run", "atomnas", config={"optimizer": optimizer, "lr": 0.005})
    assert profile(result.network, SHAPE).macs <= 60_000


def test_a_measured_latency_is_a_budget(tmp_path):
    network = supernet()
    with torch.inference_mode():
        from tenfold.cost import interleaved

        image = torch.rand(1, *SHAPE)
        whole = interleaved({"": lambda: network.eval()(image)})[""].median_ms
    result = fit(
        supernet(),
        ToyTask(),
        [AtomNAS()],
        Budget(latency_ms=10 * whole),  # loose: times on a busy machine are not asserted
        config=toy_config(**CONFIG),
        run_dir=tmp_path / "run",
        quiet=True,
    )
    costs = result.report["found"]["atomnas"]["blocks"][0]["costs"]["3"]
    assert costs["latency_ms"] > 0
