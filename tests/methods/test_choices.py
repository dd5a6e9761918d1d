"""The choices of a network: the exact cost of every decision, and limits that are kept by closing what loses least."""

import copy

import pytest
import torch
from torch import nn

from tenfold.cost import profile
from tenfold.layers.lightnl import LightNonLocal
from tenfold.layers.searchable import Searchable, make_plain
from tenfold.layers.searchable_lightnl import SearchableNonLocal
from tenfold.methods.choices import ChoiceSearch, find_sites
from tenfold.models import build
from tenfold.quant import cut_channels

SMALL = {"expansion": 4, "num_classes": 4, "in_channels": 1}


def supernet(**options):
    torch.manual_seed(0)
    return build("autonl_supernet_tiny", **{**SMALL, **options})


def search_of(network, shape=(1, 8, 8)):
    example = torch.randn(2, *shape)
    return ChoiceSearch(find_sites(network, example), profile(network, example).macs)


def _set_margins(search, opened):
    for site in search.sites:
        for name, choice in site.layer.choices.items():
            choice.gate.margin.fill_(1.0 if opened[site.full(name)] else -1.0)


@pytest.mark.parametrize("squeeze", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_any_decision_costs_exactly_what_the_found_network_costs(squeeze, seed):
    network = supernet(squeeze=squeeze).eval()
    search = search_of(network)
    generator = torch.Generator().manual_seed(seed)
    opened = {name: bool(torch.rand((), generator=generator) < 0.6) for name in search.names}
    _set_margins(search, opened)
    expected = int(search.macs({name: int(value) for name, value in opened.items()}))
    chosen, by_site = search.chosen(opened), search.macs_by_site(opened)
    assert sum(search.macs_by_site({}).values()) - sum(by_site.values()) == search.macs({}) - expected
    x = torch.randn(3, 1, 8, 8, generator=generator)
    with torch.no_grad():
        cut_channels(network, search.description(opened))
        for module in network.modules():
            assert not isinstance(module, Searchable) or not module.choices
    assert profile(network, (1, 8, 8)).macs == expected
    search.settle(network)
    with torch.no_grad():
        settled = network(x)
    make_plain(network)
    with torch.no_grad():
        torch.testing.assert_close(network(x), settled)
    for name, *_ in network.blocks:
        block = network.get_submodule(name)
        light = getattr(block, "attention", None)
        if name != "stage0.0":  # which has nothing to search but LightNL
            assert (name in chosen) == hasattr(block, "depthwise") == (by_site[name] > 0)
        if name in chosen:
            hidden = block.depthwise[f"k{chosen[name]['kernel']}"].conv.out_channels
            assert hidden == chosen[name]["expansion"] * block.expand.conv.in_channels
        expected_light = {"ratio": light.ratio, "stride": light.stride} if isinstance(light, LightNonLocal) else None
        assert chosen.get(f"{name}.attention") == expected_light
    found = build(network.found_architecture())
    assert profile(found, (1, 8, 8)).macs == expected
    found.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(found.eval()(x), settled)


def test_sites_are_listed_in_the_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first, self.unused = (SearchableNonLocal(8) for _ in range(3))

        def forward(self, x):
            return self.last(self.first(x))

    assert [site.name for site in find_sites(Backwards(), torch.randn(2, 8, 4, 4))] == ["first", "last"]


def test_without_strides_a_decision_changes_no_answer():
    network = supernet(strides=[1]).double().eval()
    search = search_of(network.float())
    network.double()
    opened = {name: not name.endswith(("kernel", "wide", "ratio1")) for name in search.names}
    _set_margins(search, opened)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        cut_channels(network, search.description(opened))
        torch.testing.assert_close(network(x), before)


def test_closing_all_places_leaves_the_cost_of_the_backbone():
    network = supernet()
    search = search_of(network)
    closed = {name: not name.endswith(":place") for name in search.names}
    bare = copy.deepcopy(network)
    for name, module in list(bare.named_modules()):
        if isinstance(module, SearchableNonLocal):
            bare.get_submodule(name.rpartition(".")[0]).attention = nn.Identity()
    assert int(search.macs(closed)) == profile(bare, (1, 8, 8)).macs
    assert int(search.macs({})) == profile(network, (1, 8, 8)).macs


def test_the_imagenet_supernet_has_the_papers_space():
    network = build("autonl_supernet")
    search = search_of(network, (3, 224, 224))
    kinds = [name.partition(":")[2] for name in search.names]
    assert kinds.count("kernel") == kinds.count("wide") == 21
    assert kinds.count("keep") == 15
    assert kinds.count("place") == kinds.count("ratio1") == kinds.count("stride1") == 22
    assert all(module.ratios == (0.125, 0.25) for module in network.modules() if isinstance(module, SearchableNonLocal))
    assert int(search.macs({})) == profile(network, (3, 224, 224)).macs


def test_decisions_keep_the_limit_and_close_what_loses_least():
    network = supernet()
    search = search_of(network)
    generator = torch.Generator().manual_seed(0)
    for site in search.sites:
        for choice in site.layer.choices.values():
            choice.gate.margin.fill_(float(torch.rand((), generator=generator)))
    free = search.decide()
    assert all(free.values())
    total, smallest = int(search.macs({})), search.smallest()
    for share in (0.0, 0.3, 0.6, 0.95):
        limit = smallest + share * (total - smallest)
        opened = search.decide(limit)
        macs = int(search.macs(opened))
        assert macs <= limit
        margins = search.margins()
        for name, is_open in opened.items():  # nothing that was closed would still fit
            if not is_open and margins[name] > 0:
                assert search.macs({**opened, name: True}) > limit or search.savings({**opened, name: True})[name] == 0
    assert int(search.macs(search.decide(smallest))) == smallest


def test_ties_are_cheap():
    network = supernet()
    search = search_of(network)
    for site in search.sites:
        for choice in site.layer.choices.values():
            choice.gate.margin.zero_()
    assert int(search.macs(search.decide())) == search.smallest()
