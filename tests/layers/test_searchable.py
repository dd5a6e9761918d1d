"""Searchable layers: every choice computes and costs what the plain layer of that choice does."""

import copy
import itertools

import pytest
import torch
from torch import nn

from tenfold.cost import profile
from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.insertion import insert_behind, insert_light_non_local, take_out
from tenfold.layers.lightnl import LightNonLocal, light_non_local
from tenfold.layers.searchable import make_plain
from tenfold.layers.searchable_block import SearchableBlock, SuperKernel
from tenfold.layers.searchable_lightnl import SearchableNonLocal


def _set(layer, opened):
    """Set the running margins, so that in evaluation choices are as given."""
    for name, choice in layer.choices.items():
        choice.gate.margin.fill_(1.0 if opened[name] else -1.0)
    return layer


def _settings(names):
    return [dict(zip(names, values, strict=True)) for values in itertools.product((True, False), repeat=len(names))]


def _randomise(layer):
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return layer


LIGHT = ["place", "ratio1", "ratio2", "stride2", "stride1"]


@pytest.mark.parametrize("opened", _settings(LIGHT))
def test_lightnl_computes_and_costs_what_was_chosen(opened):
    torch.manual_seed(0)
    layer = SearchableNonLocal(16, (0.125, 0.25, 0.5), (1, 2, 4)).double().eval()
    _randomise(layer)
    assert list(layer.choices) == LIGHT
    x = torch.randn(2, 16, 7, 6, dtype=torch.float64)
    ratio = 0.125 if not opened["ratio1"] else 0.25 if not opened["ratio2"] else 0.5
    stride = 4 if not opened["stride2"] else 2 if not opened["stride1"] else 1
    places = -(-7 // stride) * -(-6 // stride)
    y = light_non_local(x, int(16 * ratio), stride, order="channel", scale=1 / places)
    expected = x + layer.bn(layer.depthwise(y)) if opened["place"] else x
    torch.testing.assert_close(_set(layer, opened)(x), expected)
    macs = layer.macs(7, 6, {name: float(value) for name, value in opened.items()})
    plain = LightNonLocal(16, ratio=ratio, stride=stride)
    assert macs == (profile(plain, (16, 7, 6)).macs if opened["place"] else 0)


def _decide(layer, opened):
    for name, is_open in opened.items():
        if is_open:
            layer.options[name].gate = nn.Identity()
        else:
            del layer.options[name]


@pytest.mark.parametrize(("ratio1", "stride1"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_decided_lightnl_becomes_a_plain_block_with_the_same_answers(ratio1, stride1):
    torch.manual_seed(0)
    layer = _randomise(SearchableNonLocal(16)).double().eval()
    opened = {"place": True, "ratio1": ratio1, "stride1": stride1}
    x = torch.randn(2, 16, 7, 6, dtype=torch.float64)
    before = _set(layer, opened)(x)
    _decide(layer, opened)
    layer.settle(7, 6)
    decided = layer(x)
    # The statistics of its norm follow the normaliser, all but the epsilon of 1e-3.
    assert float((decided - before).detach().abs().max()) < (0.2 if not stride1 else 1e-9)
    plain = layer.plain()
    assert type(plain) is LightNonLocal
    assert (plain.ratio, plain.stride) == (0.25 if ratio1 else 0.125, 1 if stride1 else 2)
    assert torch.equal(plain(x), decided)
    assert profile(layer, (16, 7, 6)).macs == profile(plain, (16, 7, 6)).macs


def test_undecided_layers_are_not_plain():
    with pytest.raises(UsageError, match=r"SearchableNonLocal still has to choose about place, ratio1, stride1"):
        SearchableNonLocal(16).plain()
    with pytest.raises(UsageError, match=r"SearchableBlock still has to choose about kernel, wide, keep"):
        make_plain(SearchableBlock(8, 8, 48, 24))


def test_ratios_that_compare_nothing_are_left_out_and_none_at_all_is_refused():
    assert SearchableNonLocal(4, (0.125, 0.25)).ratios == (0.25,)
    assert SearchableNonLocal(8, (0.125, 0.2, 0.25)).ratios == (0.125, 0.25)
    with pytest.raises(UsageError, match="would compare none of them"):
        SearchableNonLocal(3, (0.125, 0.25))


def test_norms_of_ratios_and_strides_are_what_the_definition_says():
    torch.manual_seed(0)
    layer = SearchableNonLocal(16).double().train()
    x = torch.randn(3, 16, 6, 6, dtype=torch.float64)
    layer(x)
    added = x[:, 2:4].flatten(2)
    affinity = added.transpose(1, 2) @ added  # (B, HW, HW)
    expected = affinity.square().sum((1, 2)).sqrt().mean() / 36 / 2**0.5
    assert float(layer.options["ratio1"].gate.level) == pytest.approx(float(expected))
    fine = light_non_local(x, 4, 1, order="channel", scale=1 / 36)
    coarse = light_non_local(x, 4, 2, order="channel", scale=1 / 9)
    distance = ((fine - coarse).flatten(1).norm(dim=1) / fine.flatten(1).norm(dim=1)).mean()
    assert float(layer.options["stride1"].gate.level) == pytest.approx(float(distance))
    assert float(layer.options["place"].gate.margin) == pytest.approx(
        float(layer.depthwise.weight.detach().square().mean())
    )


def test_the_loss_reaches_every_threshold_and_every_weight():
    torch.manual_seed(0)
    attention = SearchableNonLocal(8, starts_closed=False)
    block = SearchableBlock(8, 8, 48, 24, squeezed=2, attention=attention)
    output = block(torch.randn(4, 8, 6, 6))
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("stride", "out_channels"), [(1, 8), (2, 12)])
@pytest.mark.parametrize("squeezed", [0, 3])
def test_a_block_computes_and_costs_what_was_chosen(stride, out_channels, squeezed):
    torch.manual_seed(0)
    built = SearchableBlock(8, out_channels, 24, 16, stride=stride, squeezed=squeezed).double().eval()
    _randomise(built)
    names = ["kernel", "wide", *(["keep"] if stride == 1 else [])]
    assert list(built.choices) == names
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    for opened in _settings(names):
        block = _set(copy.deepcopy(built), opened)
        before = block(x)
        macs = block.macs(7, 6, {name: float(value) for name, value in opened.items()})
        if not opened.get("keep", True):
            assert torch.equal(before, x)
            assert macs == 0
            continue
        if not opened["wide"]:
            _narrow(block)
        _decide(block, opened)
        torch.testing.assert_close(block(x), before)
        plain = make_plain(nn.Sequential(block))
        torch.testing.assert_close(plain(x), before)
        assert list(plain[0].depthwise) == ["k5" if opened["kernel"] else "k3"]
        assert profile(plain.float(), (8, 7, 6)).macs == profile(block.float(), (8, 7, 6)).macs == macs


def _narrow(block):
    kept = slice(0, block.narrow)
    expand, filter_, project = block.expand, block.filter, block.project
    expand.conv.weight.data, expand.conv.out_channels = expand.conv.weight.data[kept], block.narrow
    filter_.conv.weight.data = filter_.conv.weight.data[kept]
    filter_.conv.in_channels = filter_.conv.out_channels = filter_.conv.groups = block.narrow
    project.conv.weight.data = project.conv.weight.data[:, kept]
    for norm in (expand.bn, filter_.bn):
        norm.weight.data, norm.bias.data = norm.weight.data[kept], norm.bias.data[kept]
        norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    if block.squeezed:
        se = block.squeeze_excite
        se.reduce.weight.data = se.reduce.weight.data[:, kept]
        se.expand.weight.data, se.expand.bias.data = se.expand.weight.data[kept], se.expand.bias.data[kept]


def test_a_super_kernel_holds_the_small_kernel_in_its_centre():
    conv = SuperKernel(4, 2)
    x = torch.randn(1, 4, 9, 9)
    small = nn.functional.conv2d(x, conv.weight[:, :, 1:4, 1:4], stride=2, padding=1, groups=4)
    torch.testing.assert_close(conv(x, 0.0), small)
    torch.testing.assert_close(conv(x, torch.tensor(0.0)), small)
    torch.testing.assert_close(conv(x, torch.tensor(1.0)), conv(x))
    torch.testing.assert_close(conv.centre(), (conv.weight - conv.ring())[:, :, 1:4, 1:4])


def test_blocks_are_inserted_behind_any_layer_and_taken_out_again():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    expected, names = network(x), list(network.state_dict())
    assert insert_behind(network, "1.1", LightNonLocal(8)) == "1.attention"
    assert insert_behind(network, "0", LightNonLocal(8)) == "0.attention"
    assert network[1][2].channels == 8
    assert isinstance(network[0].layer, nn.Conv2d)
    torch.testing.assert_close(network(x), expected)
    take_out(network, "0.attention")
    take_out(network, "1.attention")
    assert list(network.state_dict()) == names
    insert_light_non_local(network, [("1", 8, 0.5, 2)])
    assert (network[1].attention.ratio, network[1].attention.stride) == (0.5, 2)
    with pytest.raises(UnknownNameError, match=r"unknown layer to insert a block behind '1.2.3'"):
        insert_behind(network, "1.2.3", LightNonLocal(8))
