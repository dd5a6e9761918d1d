"""Gated convolution."""

import torch
from torch import nn

from tenfold.layers.gated import GatedConv2d


def test_the_gate_lets_through_what_it_says():
    torch.manual_seed(0)
    layer, x, seen = GatedConv2d(4, 6, 3, act=nn.LeakyReLU(0.2)), torch.randn(2, 4, 5, 7), torch.randn(2, 4, 5, 7)
    features = nn.functional.leaky_relu(layer.feature(x), 0.2)
    torch.testing.assert_close(layer(x), torch.sigmoid(layer.gate(x)) * features)
    torch.testing.assert_close(layer(x, seen), torch.sigmoid(layer.gate(seen)) * features)
    nn.init.constant_(layer.gate.bias, -100)
    assert layer(x).abs().max() == 0


def test_without_a_gate_everything_passes():
    layer, x = GatedConv2d(4, 6, 3, gated=False, act=nn.ReLU()), torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(layer(x), torch.relu(layer.feature(x)))
    assert set(layer.state_dict()) == {"feature.weight", "feature.bias"}
