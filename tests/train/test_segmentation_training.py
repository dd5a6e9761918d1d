"""Trainings with an answer for each pixel: what the loop promises holds for them."""

import signal

import pytest
import torch

from masked_images import write_segmentation
from tenfold import build, fit, load, tasks
from tenfold.errors import UsageError
from tenfold.methods import SAT, AdaBits
from tenfold.train import Interrupted, TrainConfig, evaluate
from train.toy_training import assert_same_end, call_handler


@pytest.fixture
def task(tmp_path):
    return tasks.create("segment", data=write_segmentation(tmp_path / "squares"))


def train(task, run_dir, *, resume=False, method=None, **options):
    torch.manual_seed(0)
    network = build("segmenter", network="mobilenet_v2_tiny", options={"width": 0.1}, head_channels=8, num_classes=3)
    config = TrainConfig(**{"epochs": 2, "batch_size": 4, "lr": 0.05, "device": "cpu", "ema_decay": 0.9} | options)
    methods = [method or SAT(w_bits=4, a_bits=4)]
    return fit(network, task, methods, config=config, run_dir=run_dir, resume=resume, quiet=True)


def test_an_interrupted_training_ends_bit_identical_when_resumed(task, tmp_path, monkeypatch):
    train(task, tmp_path / "whole")
    loss, calls = task.loss, []

    def interrupting(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            call_handler(signal.SIGTERM)
        return loss(*arguments, **options)

    monkeypatch.setattr(task, "loss", interrupting)
    with pytest.raises(Interrupted):
        train(task, tmp_path / "parts")
    monkeypatch.undo()
    train(task, tmp_path / "parts", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_the_artifact_comes_back_and_is_as_good(task, tmp_path):
    result = train(task, tmp_path / "run")
    again = load(result.artifact)
    assert again.header["task"]["labels"] == ["ground", "square", "edge"]
    got = evaluate(again, task, device="cpu", batch_size=2)
    assert got.keys() == result.metrics.keys()
    assert got["miou"] == pytest.approx(result.metrics["miou"], abs=1e-4)
    assert [path.name for path in sorted((tmp_path / "run" / "pictures").iterdir())] == ["1.png", "2.png", "3.png"]


def test_widths_teach_each_other_as_much_as_in_a_classification(task, tmp_path):
    # The distance between two answers is a mean over pixels: their sum, 768 times as much, would drown the loss.
    method = AdaBits(bits=(8, 4), distillation=1.0)
    first = train(task, tmp_path / "plain", method=AdaBits(bits=(8, 4)), ema_decay=None, epochs=1)
    taught = train(task, tmp_path / "taught", method=method, ema_decay=None, epochs=1)
    plain_loss, taught_loss = (one.report["curves"][0]["train_loss"] for one in (first, taught))
    assert taught_loss < plain_loss + 20


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_images_whose_pixels_have_labels_are_not_mixed(task, tmp_path, option):
    with pytest.raises(UsageError, match=r"the task 'segment' has one for each pixel\. Set both to 0"):
        train(task, tmp_path / "run", **{option: 0.5})
