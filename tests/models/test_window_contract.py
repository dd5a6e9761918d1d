"""What every registered network that takes windows of a video promises; a new entry is picked up by itself."""

import copy
import functools
import json

import pytest
import torch
from torch import nn

from tenfold.cost import profile
from tenfold.errors import UnknownNameError
from tenfold.models import Architecture, build, facts, list_models

NAMES = [name for name in list_models() if facts(name).takes == "window"]


@functools.cache
def _prototype(name):
    torch.manual_seed(0)
    return build(name).eval()


def _window(name, frames=2, batch=1, seed=0):
    """A window of small frames: its inputs as declared, with noise in place of grey."""
    generator = torch.Generator().manual_seed(seed)
    inputs = _prototype(name).example_inputs((3, 16, 24), frames)
    colours = torch.rand(batch, *inputs.frames.shape[1:], generator=generator)
    rest = (one.expand(batch, *one.shape[1:]) for one in inputs[1:])
    return type(inputs)(colours, *rest)


def test_there_are_such_networks():
    assert "tsam" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_declared_facts_are_true(name):
    declared, network = facts(name), _prototype(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == declared.params
    macs = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda module, args, output: macs.append(output[0].numel() * module.weight[0].numel())
            )
    shape = (3, 48, 432)  # a fifth of the frame, which is as much of the work
    with torch.no_grad():
        assert network(*network.example_inputs(shape)).shape == (1, 1, *shape)
    assert 5 * sum(macs) == declared.macs
    for module in network.modules():
        module._forward_hooks.clear()
    counted = profile(network, declared.input_shape)
    assert (counted.macs, counted.params) == (declared.macs, declared.params)
    assert declared.num_classes is None
    assert declared.summary
    assert declared.source
    assert declared.licence
    assert declared.tags


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    network = copy.deepcopy(_prototype(name)).train()
    (network(*_window(name, frames=3)) - 0.5).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_eval_is_deterministic_and_windows_of_a_batch_do_not_mix(name):
    network, windows = _prototype(name), _window(name, batch=2)
    with torch.no_grad():
        together = network(*windows)
        assert torch.equal(network(*windows), together)
        alone = torch.cat([network(*(one[row : row + 1] for one in windows)) for row in range(2)])
    assert (together[0] - together[1]).abs().max() > 1e-4  # the answers depend on the window
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4 * together.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_state_and_architecture_rebuild_the_network(name):
    network, window = _prototype(name), _window(name)
    description = json.loads(json.dumps(network.architecture.to_dict()))
    again = build(Architecture.from_dict(description)).eval()
    assert again.architecture == network.architecture
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(*window), network(*window))


def test_options_of_images_are_no_options_of_theirs():
    with pytest.raises(UnknownNameError, match="num_classes"):
        build(NAMES[0], num_classes=3)
