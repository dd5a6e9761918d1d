import json

import pytest
import torch
from torch import nn

from tenfold import models
from tenfold.train import TrainConfig
from tenfold.train.optimizers import create_optimizer, is_decayed, parameter_groups


def test_mobilenet_v2_decays_the_parameters_that_the_official_code_decays(shared):
    official = json.loads((shared / "reference/quant/schedule.json").read_text())["weight_decay_groups_mbv2"]
    network = models.build("mobilenet_v2", num_classes=1000)
    decayed, others = parameter_groups(network.parameters(), 4e-5)
    assert len(decayed["params"]) == len(official["decayed"]) == 36
    # The official names: head, 33 convolutions of the stages (expansion and projection), tail and classifier.
    kinds = [tuple(parameter.shape[1:]) for parameter in decayed["params"]]
    assert sum(shape == (3, 3, 3) for shape in kinds) == 1
    assert sum(len(shape) == 1 for shape in kinds) == 1
    assert sum(shape[1:] == (1, 1) for shape in kinds) == 34
    assert decayed["weight_decay"] == 4e-5
    assert others["weight_decay"] == 0


@pytest.mark.parametrize(
    ("shape", "decayed"),
    [((8, 3, 3, 3), True), ((8, 1, 3, 3), False), ((8, 4), True), ((8,), False), ((), False), ((8, 3, 3, 3, 3), True)],
)
def test_decay_is_decided_by_shape(shape, decayed):
    assert is_decayed(torch.empty(shape)) is decayed


def test_no_group_is_empty_and_no_parameter_is_lost():
    network = nn.Linear(3, 2, bias=False)
    assert [len(group["params"]) for group in parameter_groups(network.parameters(), 0.1)] == [1]


def one_step(config, gradient=2.0, steps=1):
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.bias.fill_(1.0)
    optimizer = create_optimizer(network, config)
    for _ in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    return network.weight.item(), network.bias.item()


def test_nesterov_sgd_follows_its_equations():
    weight, bias = one_step(TrainConfig(lr=0.1, momentum=0.5, weight_decay=0.25), steps=2)

    def by_hand(decay):
        value, buffer = 1.0, 0.0
        for _ in range(2):
            gradient = 2.0 + decay * value
            buffer = 0.5 * buffer + gradient
            value -= 0.1 * (gradient + 0.5 * buffer)
        return value

    assert weight == pytest.approx(by_hand(0.25))
    assert bias == pytest.approx(by_hand(0.0))


def test_plain_momentum_and_no_momentum_are_there():
    assert one_step(TrainConfig(lr=0.1, momentum=0.5, nesterov=False, weight_decay=0))[1] == pytest.approx(0.8)
    assert one_step(TrainConfig(lr=0.1, momentum=0.0, weight_decay=0))[1] == pytest.approx(0.8)


def test_rmsprop_has_its_epsilon_inside_the_root():
    config = TrainConfig(optimizer="rmsprop_tf", lr=0.1, momentum=0.0, weight_decay=0, epsilon=0.5)
    mean_square = 0.9 * 1.0 + 0.1 * 4.0  # TensorFlow's accumulator starts at one
    assert one_step(config)[1] == pytest.approx(1 - 0.1 * 2 / (mean_square + 0.5) ** 0.5)


def test_adamw_decays_apart_from_the_gradient():
    weight, bias = one_step(TrainConfig(optimizer="adamw", lr=0.1, weight_decay=0.5))
    assert bias == pytest.approx(0.9, abs=1e-6)  # the first step of Adam is the sign of the gradient
    assert weight == pytest.approx(1 - 0.1 * 0.5 - 0.1, abs=1e-6)
