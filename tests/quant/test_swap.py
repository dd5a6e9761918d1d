"""Quantizing whole networks: swapping, describing, surveying, calibrating."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tenfold.errors import UnknownNameError, UsageError
from tenfold.quant import (
    LayerScheme,
    QuantConv2d,
    QuantLinear,
    calibrate,
    describe,
    fix_bits,
    quantizable_layers,
    quantize,
    quantized_layers,
    survey,
)

FOUR = LayerScheme(w_bits=4, a_bits=4)
FOUR_KEPT = replace(FOUR, clamp=False)


class _Bottleneck(nn.Module):
    """A linear bottleneck, so that one layer has a signed input; the last convolution has no batch norm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 4, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(4)
        self.expand = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = self.project_norm(self.project(x))
        return self.head(F.relu(self.expand(x)).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return _Bottleneck()


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_survey_tells_order_sign_and_followers_and_leaves_the_network_as_it_was(network, images):
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    facts = survey(network, images)
    assert list(facts) == ["stem", "project", "expand", "head"]
    assert [fact.is_first for fact in facts.values()] == [True, False, False, False]
    assert facts["head"].is_last
    assert [name for name, fact in facts.items() if fact.signed_input] == ["expand"]
    assert [name for name, fact in facts.items() if fact.feeds_batch_norm] == ["stem", "project"]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training
    assert not network.stem._forward_hooks


def test_a_network_without_layers_to_quantize_is_refused(images):
    with pytest.raises(UsageError, match="has no convolution or linear layer"):
        survey(nn.Sequential(nn.ReLU()), images)


def test_quantized_layers_share_the_parameters_of_the_float_ones(network, images):
    weight, bias = network.expand.weight, network.expand.bias
    names = [name for name, _ in network.named_parameters()]
    quantize(network, {"expand": FOUR, "head": FOUR})
    assert network.expand.weight is weight
    assert network.expand.bias is bias
    assert set(names) <= {name for name, _ in network.named_parameters()}
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert float(network.head.input_quantizer.alpha.grad) != 0


def test_a_description_rebuilds_the_quantized_network(network, images):
    quantize(network, {"stem": LayerScheme(w_bits=8, a_bits=8, pixels=True), "expand": FOUR})
    twin = _Bottleneck()
    described = {name: LayerScheme.from_dict(scheme.to_dict()) for name, scheme in describe(network).items()}
    quantize(twin, described)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin.eval()(images), network.eval()(images))


def test_a_single_layer_is_a_network_too(images):
    assert isinstance(quantize(nn.Conv2d(3, 4, 3), {"": FOUR}), QuantConv2d)
    assert isinstance(quantize(nn.Linear(3, 4), {"": FOUR}), QuantLinear)


def test_unknown_and_unsuitable_layers_are_refused(network):
    with pytest.raises(UnknownNameError, match=r"unknown layer 'expnd'\. Did you mean expand"):
        quantize(network, {"expnd": FOUR})
    with pytest.raises(UsageError, match="cannot quantize a BatchNorm2d"):
        quantize(network, {"norm": FOUR})


def test_the_projections_inside_multi_head_attention_are_left_alone():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
    assert list(quantizable_layers(layer)) == ["linear1", "linear2"]


def test_bad_descriptions_from_outside_are_refused():
    with pytest.raises(UnknownNameError, match="unknown quantization setting 'wbits'"):
        LayerScheme.from_dict({"wbits": 4, "a_bits": 4})
    with pytest.raises(UsageError, match="'w_bits' must be int, got '4'"):
        LayerScheme.from_dict({"w_bits": "4", "a_bits": 4})
    with pytest.raises(UsageError, match="lacks a_bits"):
        LayerScheme.from_dict({"w_bits": 4})


def test_same_padding_of_tensorflow_is_kept():
    timm_layers = pytest.importorskip("timm.layers")
    for size in (7, 8, 9):
        convolution = timm_layers.Conv2dSame(3, 4, 3, stride=2)
        input = torch.rand(2, 3, size, size)
        expected = convolution(input)
        float_twin = quantize(convolution, {"": LayerScheme(w_bits=32, a_bits=32, clamp=False)})
        torch.testing.assert_close(float_twin(input), expected)


@torch.no_grad()
def test_calibration_sets_levels_near_the_best_ones_and_norms_to_the_data(network, images):
    scheme = LayerScheme(w_bits=8, a_bits=8, clamp=False, per_channel=True)
    expected = network.eval()(images)
    quantize(network, {"project": scheme, "head": scheme})
    calibrate(network, [images], norms=False)
    error = float((network(images) - expected).abs().max()) / float(expected.abs().max())
    assert error < 0.02
    network.train()
    fix_bits(network, {"project": (8, 8)})
    network.project.use_scheme(replace(scheme, clamp=True))
    network.norm.running_mean.fill_(100.0)
    calibrate(network, [images])  # tanh has changed weights: statistics are the data's
    batch = network.stem(images)
    torch.testing.assert_close(network.norm.running_mean, batch.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    assert network.norm.momentum == 0.1
    assert network.training


@torch.no_grad()
def test_calibration_moves_the_statistics_of_a_trained_network_by_what_quantization_changes(network, images):
    quantize(network, {"stem": LayerScheme(w_bits=2, a_bits=32, clamp=False), "expand": FOUR_KEPT})
    network.norm.running_mean.fill_(0.3)
    network.norm.running_var.fill_(2.0)
    float_outputs = F.conv2d(images, network.stem.weight, padding=1)
    calibrate(network, [images])
    outputs = network.stem(images)
    shift = outputs.mean((0, 2, 3)) - float_outputs.mean((0, 2, 3))
    growth = outputs.var((0, 2, 3)) / float_outputs.var((0, 2, 3))
    torch.testing.assert_close(network.norm.running_mean, 0.3 + shift, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.norm.running_var, 2.0 * growth, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(growth, torch.ones(8), atol=0.01)


@torch.no_grad()
def test_calibration_of_a_fresh_network_sets_levels_for_normalised_activations(network):
    pixels = 255 * torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    quantize(network, {"stem": LayerScheme(w_bits=8, a_bits=8, pixels=True), "project": FOUR})
    calibrate(network, [pixels])  # the statistics of a fresh batch norm would let values of hundreds through
    assert 0.5 < float(network.project.input_quantizer.alpha) < 5


def test_calibration_without_images_is_refused(network):
    with pytest.raises(UsageError, match="at least one batch"):
        calibrate(network, [])


def test_quantized_layers_report_the_bits_of_their_policy(network):
    quantize(network, {"expand": FOUR})
    fix_bits(network, {"expand": (2, (4, 3, 4, 0))})
    (_, layer), *_ = quantized_layers(network)
    assert (layer.w_bits, layer.a_bits) == (2, (4, 3, 4, 0))
    assert describe(network)["expand"] == LayerScheme(w_bits=2, a_bits=(4, 3, 4, 0))
