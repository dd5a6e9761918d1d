"""The conventional non-local block: its definition, and the derivation of the factor of 400."""

import json

import pytest
import torch
from torch import nn

from tenfold.cost import profile
from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.lightnl import light_non_local
from tenfold.layers.nonlocal_block import NonLocalBlock, non_local_macs

# MobileNetV2 at 224x224: side, channels of the map behind each of the 17 projections.
PLACES = [
    (112, 16),
    *[(56, 24)] * 2,
    *[(28, 32)] * 3,
    *[(14, 64)] * 4,
    *[(14, 96)] * 3,
    *[(7, 160)] * 3,
    (7, 320),
]
NAMES = {
    "conventional": "conventional_naive",
    "cheaper order": "conventional_min",
    "one transform shared": "three_transforms_min",
    "two transforms": "two_transforms_min",
    "output transform only": "output_transform_only_min",
    "depthwise output": "depthwise_only_min",
    "LightNL": "lightnl_ratio025",
}


def test_the_costs_of_all_variants_equal_the_papers_derivation(shared):
    table = json.loads((shared / "reference" / "autonl" / "cost_table.json").read_text())
    rows = [non_local_macs(channels, side, side) for side, channels in PLACES]
    for row, expected in zip(rows, table["rows"], strict=True):
        assert {NAMES[name]: macs for name, macs in row.items()} == {key: expected[key] for key in NAMES.values()}
        assert row["conventional"] / row["LightNL"] == pytest.approx(expected["saving"])
    totals = {NAMES[name]: sum(row[name] for row in rows) for name in NAMES}
    assert totals == {key: table["totals"][key] for key in NAMES.values()}
    assert totals["conventional_naive"] / totals["lightnl_ratio025"] == pytest.approx(
        table["totals"]["ratio_conventional_to_lightnl"]
    )


def test_lightnl_is_some_four_hundred_times_cheaper_over_a_whole_network():
    rows = [non_local_macs(channels, side, side) for side, channels in PLACES]
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    assert total["conventional"] == 6_249_599_552
    assert total["LightNL"] == 14_752_136
    assert 400 < total["conventional"] / total["LightNL"] < 430


@pytest.mark.parametrize(("side", "channels"), [(14, 16), (4, 32)])
def test_the_block_costs_what_the_derivation_says(side, channels):
    expected = non_local_macs(channels, side, side)
    assert profile(NonLocalBlock(channels), (channels, side, side)).macs == expected["conventional"]
    assert profile(NonLocalBlock(channels, order="auto"), (channels, side, side)).macs == expected["cheaper order"]


def test_without_transforms_it_is_lightnl_with_all_channels():
    block = NonLocalBlock(6).double().eval()
    for layer in (block.theta, block.phi, block.g, block.out):
        layer.weight.data = torch.eye(6, dtype=torch.float64)[:, :, None, None]
    block.bn = nn.Identity()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    expected = x + light_non_local(x, 6, order="affinity", scale=1 / 20)
    for order in ("affinity", "channel", "auto"):
        block.order = order
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("pool", [1, 2])
def test_softmax_is_attention_over_places(pool):
    block = NonLocalBlock(6, 3, pairwise="softmax", pool=pool).eval()
    nn.init.ones_(block.bn.weight)
    x = torch.randn(2, 6, 4, 4)
    sampled = nn.functional.max_pool2d(x, pool)
    q, k, v = (
        layer(source).flatten(2).transpose(1, 2)
        for layer, source in ((block.theta, x), (block.phi, sampled), (block.g, sampled))
    )
    y = nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    expected = x + block.bn(block.out(y.transpose(1, 2).unflatten(2, (4, 4))))
    torch.testing.assert_close(block(x), expected)


def test_it_starts_as_the_identity():
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(NonLocalBlock(6)(x), x)


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r'order="channel" cannot be had with softmax.*Take order="affinity"'):
        NonLocalBlock(8, pairwise="softmax", order="channel")
    with pytest.raises(UnknownNameError, match="pairwise function of a non-local block 'gauss'"):
        NonLocalBlock(8, pairwise="gauss")
    with pytest.raises(UnknownNameError, match=r"order of multiplication 'affine'\. Did you mean affinity"):
        NonLocalBlock(8, order="affine")
