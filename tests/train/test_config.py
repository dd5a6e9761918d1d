from dataclasses import fields

import pytest

from tenfold.errors import UsageError
from tenfold.train.config import FREE_TO_CHANGE, TrainConfig, broken_rules


def test_every_field_has_a_rule_and_keeps_it_by_default():
    from tenfold.train import config

    assert {field.name for field in fields(TrainConfig)} == set(config._RULES)
    assert broken_rules(TrainConfig().to_dict()) == []


def test_all_problems_are_told_in_one_message():
    with pytest.raises(UsageError) as caught:
        TrainConfig(epochs=-1, lr=0.0, optimizer="adam", momentum=1.0, step_epochs=(3, 2), workers=True)
    message = str(caught.value)
    for part in (
        "epochs = -1: must be a whole number, 0 or more",
        "lr = 0.0: must be a number above 0",
        "optimizer = 'adam': must be one of 'sgd', 'rmsprop_tf', 'adamw'",
        "momentum = 1.0",
        "step_epochs = (3, 2): must be rising numbers above 0",
        "workers = True",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": "3"}, "epochs = '3'"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"schedule": "step"}, "the step schedule needs at least one epoch"),
        ({"epochs": 5, "warmup_epochs": 5}, "warmup_epochs = 5: must be below epochs = 5"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0: must be a number between 0 and 1, both excluded, or nothing"),
        ({"device": ""}, "device = ''"),
        ({"compile": True, "recompute": True}, "recompute = True: not with compile"),
    ],
)
def test_a_wrong_value_is_named(options, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        TrainConfig(**options)


def test_the_rate_follows_the_batch_above_the_reference():
    large = TrainConfig(lr=0.05, batch_size=1024, reference_batch=256, warmup_epochs=5)
    assert large.peak_lr() == 0.2
    assert large.warmup_fraction() == 0.25
    small = TrainConfig(lr=0.05, batch_size=64, reference_batch=256, warmup_start=0.1)
    assert small.peak_lr() == 0.05
    assert small.warmup_fraction() == 0.1


def test_what_may_change_between_lives_of_a_run_are_fields():
    assert {field.name for field in fields(TrainConfig)} >= FREE_TO_CHANGE
