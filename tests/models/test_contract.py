"""What every registered model promises; a new entry is picked up without editing this file."""

import copy
import functools
import json

import pytest
import torch
from torch import nn

from tenfold.layers.atomic import SqueezeExcite
from tenfold.layers.lightnl import LightNonLocal, light_non_local_macs
from tenfold.layers.pooling import GlobalPool
from tenfold.layers.reattention import Attention, ReAttention
from tenfold.layers.searchable_lightnl import SearchableNonLocal
from tenfold.models import Architecture, build, facts, list_models
from tenfold.models.deepvit import ConvStem, PatchStem

# Networks that give each pixel a class, and those that take videos, have files of their own.
NAMES = [name for name in list_models() if facts(name).takes == "image" and "segmentation" not in facts(name).tags]


@functools.cache
def _prototype(name):
    """A network whose batch norms have seen images, so that signals neither die out nor blow up in eval mode."""
    torch.manual_seed(0)
    network = build(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, LightNonLocal | SearchableNonLocal):  # closed it would hide what is inside; it is cubic
            nn.init.constant_(module.bn.weight, 0.02)
    with torch.no_grad():
        network(_images(name, 8, seed=1))
    return network.eval()


def _images(name, batch, seed=0):
    """Images of the declared shape; large ones are cut to 64x64 to save time."""
    channels, height, width = facts(name).input_shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, min(height, 64), min(width, 64), generator=generator)


def _counted_macs(network, image):
    """Multiply-adds of convolutions and linear layers, from weight and output shapes: each output sums one filter.

    Pools that their paper counts add one for each number that they read, LightNL blocks their cheaper products, and
    attention both products of N tokens with N.
    """
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        if isinstance(module, LightNonLocal | SearchableNonLocal):
            _, channels, height, width = output.shape
            macs += light_non_local_macs(channels, height, width, module.ratio, module.stride)
            macs -= 9 * output.numel()  # its convolution comes by itself
        elif isinstance(module, Attention):
            _, tokens, width = output.shape
            macs += 2 * tokens**2 * width
        elif isinstance(module, GlobalPool):
            macs += inputs[0].numel()
        else:
            macs += output[0].numel() * module.weight[0].numel()

    counted = nn.Conv2d | nn.Linear | GlobalPool | LightNonLocal | SearchableNonLocal | Attention
    handles = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, counted)]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return macs


@pytest.mark.parametrize("name", NAMES)
def test_declared_facts_are_true(name):
    declared, network = facts(name), _prototype(name)
    image = torch.randn(1, *declared.input_shape)
    assert network(image).shape == (1, declared.num_classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == declared.params
    assert _counted_macs(network, image) == declared.macs
    assert declared.summary
    assert declared.source
    assert declared.licence
    assert declared.tags


@pytest.mark.parametrize("name", NAMES)
def test_the_profiler_agrees_with_the_declared_facts(name):
    cost = pytest.importorskip("tenfold.cost")
    if not hasattr(cost, "profile"):
        pytest.skip("tenfold.cost cannot profile yet")
    declared = facts(name)
    counted = cost.profile(_prototype(name), declared.input_shape)
    assert (counted.macs, counted.params) == (declared.macs, declared.params)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    network = copy.deepcopy(_prototype(name)).train()
    images = _images(name, 4)
    labels = torch.arange(4)
    nn.functional.cross_entropy(network(images), labels).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        if not parameter_name.endswith("reatten_matrix.bias"):  # the batch norm behind it takes it away
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_eval_is_deterministic_and_images_of_a_batch_do_not_mix(name):
    network, images = _prototype(name), _images(name, 3)
    with torch.no_grad():
        together = network(images)
        assert torch.equal(network(images), together)
        alone = torch.cat([network(image[None]) for image in images])
    assert together.std(dim=0).min() > 0  # the answers depend on the image
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4 * together.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_state_and_architecture_rebuild_the_network(name):
    network, images = _prototype(name), _images(name, 1)
    description = json.loads(json.dumps(network.architecture.to_dict()))
    again = build(Architecture.from_dict(description)).eval()
    assert again.architecture == network.architecture
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images), network(images))


@pytest.mark.parametrize("name", NAMES)
def test_feature_maps_are_as_declared(name):
    network, images = _prototype(name), _images(name, 1)
    with torch.no_grad():
        maps = network.forward_features(images)
    assert [info.stride for info in network.feature_info] == sorted({info.stride for info in network.feature_info})
    assert len(maps) == len(network.feature_info)
    for info, feature_map in zip(network.feature_info, maps, strict=True):
        sides = [-(-side // info.stride) for side in images.shape[2:]]
        assert list(feature_map.shape) == [1, info.channels, *sides]


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_channels_can_be_chosen(name):
    network = build(name, num_classes=3, in_channels=2).eval()
    _, height, width = facts(name).input_shape
    with torch.no_grad():
        assert network(torch.randn(1, 2, min(height, 64), min(width, 64))).shape == (1, 3)


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_have_no_bias_and_layers_are_plain(name):
    plain = {nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten}
    plain |= {nn.SiLU, nn.Sigmoid, nn.Dropout, nn.LayerNorm, nn.GELU}
    gates = [module for module in _prototype(name).modules() if isinstance(module, SqueezeExcite)]
    may_have_bias = {id(layer) for gate in gates for layer in gate.children()}
    # In vision transformers nothing behind takes away the bias of what makes the tokens; Theta has the authors'.
    stems = [module for module in _prototype(name).modules() if isinstance(module, PatchStem | ConvStem)]
    mixings = [module.reatten_matrix for module in _prototype(name).modules() if isinstance(module, ReAttention)]
    may_have_bias |= {id(layer) for layer in [*(stem.proj for stem in stems), *mixings]}
    for module in _prototype(name).modules():
        if type(module).__module__.startswith("torch.") and not isinstance(
            module, nn.Sequential | nn.ModuleDict | nn.ModuleList | nn.Identity
        ):
            assert type(module) in plain
        if isinstance(module, nn.Conv2d) and id(module) not in may_have_bias:
            assert module.bias is None
