"""Codes that are made of a weight at once are those of its quantized numbers."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tenfold.kernels import library
from tenfold.quant import SCHEMES, LayerScheme, coded_weight
from tenfold.quant.layers import quantize_layer


def convolution(outputs=24, **scheme):
    torch.manual_seed(0)
    plain = nn.Conv2d(12, outputs, 3).to(memory_format=torch.channels_last)
    return quantize_layer(plain, LayerScheme(a_bits=4, **scheme))


def both_ways(layer, *, shares=False, rescaled=True):
    shared = layer.weight_quantizer.sharing_normalization(layer.weight) if shares else nullcontext()
    with shared:
        assert coded_weight._is_plain(layer)
        found = coded_weight._from_weight(layer), coded_weight._from_quantized(layer)
    return found if rescaled else tuple(one.unadjusted() for one in found)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("w_bits", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_codes_to_the_last(scheme, w_bits, shares, kernels):
    if scheme == "symmetric" and w_bits == 1:
        pytest.skip("has no levels at one bit")
    layer = convolution(w_bits=w_bits, scheme=scheme, rescale="constant")
    with nullcontext() if kernels else library.without_kernels():
        direct, quantized = both_ways(layer, shares=shares)
    assert torch.equal(direct.codes, quantized.codes)
    assert direct.codes.unique().numel() >= min(2**w_bits - 1, 50)
    assert direct.codes.stride() == layer.weight.stride()
    assert torch.equal(direct.level_unit, quantized.level_unit)
    assert torch.equal(direct.half, quantized.half)
    torch.testing.assert_close(direct.unit, quantized.unit, rtol=1e-6, atol=0)
    assert (direct.source is layer.weight) == direct.squashes == (not shares)


@pytest.mark.parametrize("rescale", ["none", "constant", "stddev"])
@pytest.mark.parametrize("rescaled", [True, False])
def test_the_same_adjustment(rescale, rescaled):
    layer = convolution(w_bits=4, rescale=rescale)
    direct, quantized = both_ways(layer, rescaled=rescaled)
    torch.testing.assert_close(direct.unit, quantized.unit, rtol=1e-6, atol=0)
    assert torch.equal(direct.unit, direct.level_unit) == (rescale == "none" or not rescaled)


def test_a_weight_of_one_value_and_a_nan():
    layer = convolution(w_bits=4, rescale="constant")
    layer.weight.data.fill_(0.5)
    direct, quantized = both_ways(layer)
    assert torch.equal(direct.unit, quantized.unit)
    assert not direct.is_broken
    layer.weight.data[3, 2, 1, 1] = torch.nan
    assert all(one.is_broken for one in both_ways(layer))


def test_who_looks_at_quantized_numbers_gets_them():
    layer, seen = convolution(w_bits=4), []
    handle = layer.weight_quantizer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    coded_weight.coded_weight(layer)
    assert len(seen) == 1
    handle.remove()
    assert coded_weight._is_plain(layer)
    for other in ({"per_channel": True}, {"clamp": False}):
        assert not coded_weight._is_plain(convolution(w_bits=4, **other))
