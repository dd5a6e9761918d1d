"""Trainings on the integer engine."""

import json

import pytest
import torch
from torch import nn

from tenfold import quant
from tenfold.errors import CheckpointError, UsageError
from tenfold.methods import SAT, AdaBits, FracBits
from tenfold.train import Interrupted, fit, load
from tenfold.train import config as train_config
from tenfold.train import engine as train_engine
from train.toy_training import CLASSES, ToyTask, assert_same_end, toy_config

needs_instructions = pytest.mark.skipif(quant.missing_instructions() is not None, reason="the processor lacks VNNI")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def run(folder, method=None, task=None, *, resume=False, **options):
    config = toy_config(**{"lr": 0.02, "ema_decay": 0.8, "calibration_batches": 1, "checkpoint_steps": 3, **options})
    methods = [method or SAT(w_bits=4, a_bits=4)]
    return fit(network(), task or ToyTask(), methods, config=config, run_dir=folder, quiet=True, resume=resume)


@needs_instructions
@pytest.mark.parametrize("backward", ["fp32", "bf16"])
def test_the_first_epoch_is_that_of_the_simulated_training(tmp_path, backward):
    options = {"epochs": 1, "lr": 0.002}  # small steps, so that no code on a tie takes another way
    simulated = run(tmp_path / "simulated", engine="simulated", **options).report
    integer = run(tmp_path / "integer", engine="integer", engine_backward=backward, **options).report
    for name in ("train_loss", "eval_loss"):
        assert integer["curves"][0][name] == pytest.approx(simulated["curves"][0][name], rel=2e-2)
    assert simulated["engine"] == {"asked": "simulated", "used": "simulated", "why": "asked for"}
    assert integer["engine"] == {
        "asked": "integer",
        "used": "integer",
        "backward": backward,
        "layers": {
            "0": "its input is the image itself",
            "3": "integers",
            "6": "it is depthwise, and waits for memory rather than for arithmetic",
            "11": "integers",
        },
    }
    assert json.loads((tmp_path / "integer/report.json").read_text())["engine"] == integer["engine"]
    assert train_engine.engine_text(integer["engine"]) == (
        f"2 of 4 quantized layers multiply integers, backward in {backward}; simulated: "
        "0 (its input is the image itself), 6 (it is depthwise, and waits for memory rather than for arithmetic)"
    )


@needs_instructions
def test_auto_takes_integers_here_and_says_so(tmp_path):
    assert run(tmp_path, engine="auto", epochs=0).report["engine"]["used"] == "integer"


@needs_instructions
def test_an_interrupted_training_ends_bit_identical_under_the_same_engine_only(tmp_path):
    options = {"engine": "integer", "engine_backward": "bf16", "mixup": 0.2}
    run(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", task=ToyTask(interrupted_step=6), **options)
    with pytest.raises(CheckpointError, match="engine: 'integer, backward in bf16' in the checkpoint, absent now"):
        run(tmp_path / "parts", resume=True, **{**options, "engine": "simulated"})
    run(tmp_path / "parts", resume=True, **options)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@needs_instructions
@pytest.mark.parametrize(
    ("method", "states"),
    [
        (lambda: AdaBits(bits=(8, 4)), {"integers"}),
        (lambda: FracBits(like=4, search_share=0.5), {"integers, since its bits are fixed"}),
        (lambda: FracBits(like=4, weight_bits="kernel", search_share=0.5), {"integers, since its bits are fixed"}),
    ],
    ids=["several widths", "learned by layer", "learned by kernel"],
)
def test_widths_and_learned_bits(tmp_path, method, states):
    result = run(tmp_path, method(), engine="integer")
    layers = result.report["engine"]["layers"]
    assert {layers["3"], layers["11"]} == states


@needs_instructions
def test_what_leaves_is_the_ordinary_network(tmp_path):
    result = run(tmp_path, engine="integer", epochs=1)
    assert all(layer.engine is None for _, layer in quant.quantized_layers(result.network))
    loaded, images = load(result.artifact, network()), ToyTask().example(8)
    expected = result.network(images)
    assert torch.equal(loaded(images), expected)
    integer = quant.use_engine(loaded, quant.IntegerEngine())(images)
    torch.testing.assert_close(integer, expected, rtol=1e-4, atol=1e-4)


def chosen(monkeypatch=None, device="cpu", **options):
    quantized = SAT(w_bits=4, a_bits=4).attach(network(), None, ToyTask().example(4))
    return train_engine.choose_engine(toy_config(**options), torch.device(device), quantized)


def test_integers_where_they_cannot_be_are_an_error_and_auto_simulates(monkeypatch):
    cases = [({"device": "cuda"}, "it trains on cuda"), ({"compile": True}, "torch.compile")]
    for options, reason in cases:
        with pytest.raises(UsageError, match=f'engine = "integer" cannot be: {reason}'):
            chosen(engine="integer", **options)
        assert chosen(engine="auto", **options) is None
    monkeypatch.setattr(quant, "missing_instructions", lambda: "its processor is a toaster")
    with pytest.raises(UsageError, match="this machine is unsuited: its processor is a toaster"):
        chosen(engine="integer")
    assert chosen(engine="auto") is None
    with pytest.raises(UsageError, match="no layer of the network is quantized"):
        train_engine.choose_engine(toy_config(engine="integer"), torch.device("cpu"), network())


@needs_instructions
def test_integers_that_would_serve_no_layer_are_an_error():
    weights_only = SAT(w_bits=4, a_bits=32).attach(network(), None, ToyTask().example(4))
    with pytest.raises(UsageError, match=r"it would serve no layer \(its input is not quantized"):
        train_engine.choose_engine(toy_config(engine="integer"), torch.device("cpu"), weights_only)


def test_unknown_engines_are_refused():
    problems = train_config.broken_rules({"engine": "int4", "engine_backward": "fp8"})
    assert problems == [
        "engine = 'int4': must be one of 'auto', 'simulated', 'integer'",
        "engine_backward = 'fp8': must be one of 'fp32', 'bf16'",
    ]
