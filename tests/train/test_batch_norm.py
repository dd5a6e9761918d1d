import copy

import torch
from torch import nn

from tenfold.train.batch_norm import convert_batch_norm, restore_batch_norm


def test_converting_and_restoring_gives_the_same_network():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5, eps=1e-3)
    )
    images = torch.randn(6, 3, 8, 8)
    network(images)
    expected, parameters = network.eval()(images), list(network.parameters())
    converted = convert_batch_norm(network)
    assert isinstance(converted[1], nn.SyncBatchNorm)
    restored = restore_batch_norm(copy.deepcopy(converted))  # a weight average is such a copy
    assert [type(module) for module in restored] == [nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.Linear, nn.BatchNorm1d]
    assert torch.equal(restored(images), expected)
    assert all(a is b for a, b in zip(restore_batch_norm(converted).parameters(), parameters, strict=True))


def test_a_single_layer_and_a_foreign_synchronised_norm_are_handled():
    assert type(restore_batch_norm(convert_batch_norm(nn.BatchNorm2d(3)))) is nn.BatchNorm2d
    foreign = nn.Sequential(nn.SyncBatchNorm(3))
    assert restore_batch_norm(convert_batch_norm(foreign))[0] is foreign[0]
