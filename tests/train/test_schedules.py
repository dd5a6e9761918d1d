import json
import math

import pytest
import torch

from tenfold.train import TrainConfig
from tenfold.train.optimizers import create_optimizer
from tenfold.train.schedules import create_schedule


def rates(config, updates_per_epoch=10):
    """The rate of every update of a training, read as the loop reads it."""
    network = torch.nn.Linear(2, 2)
    optimizer = create_optimizer(network, config)
    schedule = create_schedule(optimizer, config, updates_per_epoch)
    found = []
    for update in range(config.epochs * updates_per_epoch):
        found.append({group["lr"] for group in optimizer.param_groups})
        schedule.step_update(update + 1)
    assert all(len(rate) == 1 for rate in found)
    return [rate.pop() for rate in found]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cos_bs256_mbv1", {"lr": 0.05, "batch_size": 256, "epochs": 150}),
        ("cos_bs1024", {"lr": 0.05, "batch_size": 1024, "epochs": 150, "warmup_epochs": 5}),
        ("exp_bs512", {"lr": 0.05, "batch_size": 512, "epochs": 20, "warmup_epochs": 5, "schedule": "exponential"}),
    ],
)
def test_rates_are_those_of_the_official_schedulers(shared, name, config):
    reference = json.loads((shared / "reference/quant/schedule.json").read_text())[name]
    found = rates(TrainConfig(reference_batch=256, **config), reference["settings"]["batches_per_epoch"])
    for iteration, rate in reference["lr_at_iteration"].items():
        assert found[int(iteration)] == pytest.approx(rate, rel=1e-12, abs=1e-18)


def test_cosine_with_warmup_follows_its_equation():
    config = TrainConfig(lr=0.2, epochs=4, warmup_epochs=1, warmup_start=0.1)
    for i, rate in enumerate(rates(config)):
        factor = 0.9 * i / 10 + 0.1 if i < 10 else (1 + math.cos(math.pi * (i - 10) / 30)) / 2
        assert rate == pytest.approx(0.2 * factor)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_cooldown_stays_where_the_schedule_ends(name):
    config = TrainConfig(lr=0.5, epochs=5, schedule=name, last_lr=0.02, cooldown_epochs=2)
    found = rates(config)
    fallen = [(1 + math.cos(math.pi * i / 30)) / 2 if name == "cosine" else 1 - i / 30 for i in range(30)]
    assert found == pytest.approx([0.5 * (0.02 + 0.98 * part) for part in fallen] + [0.01] * 20)


def test_linear_falls_evenly_to_zero():
    assert rates(TrainConfig(lr=1.0, epochs=2, schedule="linear")) == pytest.approx([1 - i / 20 for i in range(20)])


def test_steps_cut_the_rate_exactly_at_their_epochs():
    config = TrainConfig(lr=1.0, epochs=4, schedule="step", step_epochs=(1, 2.5), step_factor=0.1, warmup_epochs=0.5)
    expected = [i / 5 if i < 5 else 1.0 if i < 10 else 0.1 if i < 25 else 0.01 for i in range(40)]
    assert rates(config) == pytest.approx(expected)


def test_constant_stays():
    assert set(rates(TrainConfig(lr=0.3, epochs=2, schedule="constant"))) == {0.3}
