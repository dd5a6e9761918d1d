"""Global pooling that is counted."""

import torch
from torch import nn

from tenfold.cost import profile
from tenfold.layers.pooling import GlobalPool


def test_it_averages_each_channel():
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(GlobalPool()(x), x.mean((2, 3), keepdim=True))


def test_each_number_read_counts_once_and_has_no_bits():
    network = nn.Sequential(GlobalPool(), nn.Flatten(), nn.Linear(3, 2))
    counted = profile(network, (3, 5, 4))
    assert counted.macs == 3 * 5 * 4 + 3 * 2
    assert counted.bitops == 3 * 2 * 32 * 32
    assert [(row.kind, row.macs) for row in counted.layers if row.macs] == [("pool", 60), ("linear", 6)]


def test_a_plain_pool_stays_free():
    assert profile(nn.AdaptiveAvgPool2d(1), (3, 5, 4)).macs == 0
