"""The adversary: what it adds to the loss, how it learns, and that a killed run with one goes on bit for bit."""

import signal
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from inpainting_data import TinyFiller, write_clip, write_photographs
from tenfold import methods, tasks
from tenfold.errors import UnknownNameError, UsageError
from tenfold.methods import Adversarial
from tenfold.train import Interrupted, TrainConfig, fit
from train.toy_training import assert_same_end, call_handler

pytest.importorskip("cv2", reason="needs OpenCV (the extra 'video')")


class Targets(NamedTuple):
    truth: Tensor
    known: Tensor

    def pair(self, outputs):
        return self.truth, outputs, self.known


class SomeRun:
    """What the method asks of a run."""

    last_lr = 0.001

    def average_gradients(self, parameters):
        self.count = len(list(parameters))


def attached(**options):
    torch.manual_seed(0)
    method = Adversarial(channels=4, **options)
    method.attach(TinyFiller(), None, None)
    return method


@pytest.mark.parametrize("loss", ["hinge", "least_squares"])
def test_the_discriminator_learns_to_tell_flat_clips_from_noise(loss):
    method = attached(loss=loss, weight=0.5, spectral=loss == "hinge")
    generator, run, losses = torch.Generator().manual_seed(1), SomeRun(), []
    for _ in range(40):
        real = torch.rand(2, 3, 3, 32, 32, generator=generator)
        made = real.mean((-1, -2), keepdim=True).expand_as(real).clone().requires_grad_()
        term = method.term(made, Targets(real, torch.zeros(2, 3, 1, 32, 32)))
        (gradient,) = torch.autograd.grad(term, made)
        assert gradient.abs().sum() > 0
        method.step_end(run)
        losses.append(float(method.status()["discriminator"]))
    assert min(losses[-10:]) < 0.9 * losses[0]
    assert run.count == sum(1 for _ in method._discriminator.parameters())


def test_the_network_gets_no_gradient_into_the_discriminator():
    method = attached()
    term = method.term(
        torch.rand(1, 2, 3, 32, 32, requires_grad=True),
        Targets(torch.rand(1, 2, 3, 32, 32), torch.zeros(1, 2, 1, 32, 32)),
    )
    term.backward()
    assert all(parameter.grad is None for parameter in method._discriminator.parameters())
    assert all(parameter.requires_grad for parameter in method._discriminator.parameters())


def test_options_out_of_range_and_other_tasks_are_refused():
    with pytest.raises(UnknownNameError, match="adversarial loss 'hing'"):
        Adversarial(loss="hing")
    with pytest.raises(UsageError, match=r"weight of the method 'adversarial' is -1; allowed is 0 to 100"):
        methods.create("adversarial", weight=-1)
    with pytest.raises(UsageError, match="works with tasks that make pictures of what is real, such as 'inpaint'"):
        attached().term(torch.zeros(1), torch.zeros(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("adversarial")
    write_photographs(root / "stills", 8)
    write_clip(root / "clips" / "judged")
    return root


def train(data, run_dir, *, resume=False, interrupted=None, monkeypatch=None, **options):
    task = tasks.create(
        "inpaint",
        data=str(data / "clips"),
        photographs=str(data / "stills"),
        image_size=32,
        lengths=[2, 3],
        holes="stationary",
        eval_clips=["judged"],
        eval_fraction=0.0,
        variants=1,
        cache=str(data / "cache"),
    )
    if interrupted:
        loss, calls = task.loss, []

        def interrupting(*arguments, **keywords):
            calls.append(1)
            if len(calls) == interrupted:
                call_handler(signal.SIGTERM)
            return loss(*arguments, **keywords)

        monkeypatch.setattr(task, "loss", interrupting)
    torch.manual_seed(0)
    config = TrainConfig(
        **{"epochs": 2, "batch_size": 2, "optimizer": "adamw", "lr": 0.003, "device": "cpu", "ema_decay": 0.9} | options
    )
    method = Adversarial(channels=4, weight=0.1)
    return fit(TinyFiller(), task, [method], config=config, run_dir=run_dir, resume=resume, quiet=True)


def test_an_interrupted_training_with_an_adversary_ends_bit_identical(data, tmp_path, monkeypatch):
    whole = train(data, tmp_path / "whole")
    assert whole.report["methods"][0]["kind"] == "adversarial"
    with pytest.raises(Interrupted):
        train(data, tmp_path / "parts", interrupted=3, monkeypatch=monkeypatch)
    train(data, tmp_path / "parts", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert whole.metrics["psnr_filled"] > 5
    assert not any("discriminator" in name for name in whole.network.state_dict())
