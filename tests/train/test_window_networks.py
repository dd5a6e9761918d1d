"""Methods and artifacts with a network that takes windows of a video: nothing about them is special."""

import pytest
import torch

from tenfold import build, load, methods
from tenfold.cost import Budget, profile
from tenfold.export import write_artifact
from tenfold.layers.gated import GatedConv2d
from tenfold.models import NetworkArguments
from tenfold.quant import QuantConv2d, quantized_layers
from tenfold.train.record import schemes_of

SMALL = {"planes": 4, "blocks": (1, 1, 1, 1), "decoder": (8, 8, 8), "stem": 8}


def _network():
    torch.manual_seed(0)
    return build("tsam_tiny", **SMALL)


def _window(frames=3):
    torch.manual_seed(1)
    inputs = _network().example_inputs((3, 16, 24), frames)
    return inputs._replace(frames=torch.rand_like(inputs.frames), flow_fwd=torch.randn_like(inputs.flow_fwd))


@pytest.mark.parametrize(
    ("kind", "options", "budget"),
    [
        ("qat", {"w_bits": 4, "a_bits": 4}, None),
        ("sat", {"w_bits": 4, "a_bits": 4}, None),
        ("fracbits", {}, "bitops"),
    ],
)
def test_methods_set_the_bits_of_every_convolution(kind, options, budget):
    network, window = _network(), _window()
    if budget:
        budget = Budget(bitops=profile(network, window, bits=(5, 5)).bitops)
    network = methods.create(kind, **options).attach(network, budget, window)
    assert isinstance(network.decoder.last.conv.gate, QuantConv2d)
    assert all(isinstance(one.feature, QuantConv2d) for one in network.modules() if isinstance(one, GatedConv2d))
    (network(*window) - 0.5).square().mean().backward()
    for name, layer in quantized_layers(network):
        assert layer.weight.grad is not None, name
        assert layer.weight.grad.isfinite().all(), name
    assert profile(network, window).bitops < profile(_network(), window).bitops


@pytest.mark.parametrize("quantized", [False, True])
def test_an_artifact_brings_it_back(tmp_path, quantized):
    network, window = _network(), _window()
    if quantized:
        network = methods.create("sat", w_bits=4, a_bits=4).attach(network, None, window)
    network.eval()
    header = {"architecture": network.architecture.to_dict(), "schemes": schemes_of(network), "task": {}}
    write_artifact(tmp_path / "artifact.safetensors", network.state_dict(), header)
    again = load(tmp_path / "artifact.safetensors")
    assert isinstance(window, NetworkArguments)
    with torch.no_grad():
        assert torch.equal(again(*window), network(*window))
