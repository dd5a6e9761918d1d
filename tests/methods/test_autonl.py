"""AutoNL: budgets kept for certain, insertion anywhere, resuming, other methods in the same training."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

from methods.test_choices import search_of, supernet
from tenfold import fit, load
from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, UsageError
from tenfold.layers.lightnl import LightNonLocal
from tenfold.layers.searchable import Searchable, make_plain
from tenfold.layers.searchable_lightnl import SearchableNonLocal
from tenfold.methods import SAT, AdaBits, AtomNAS, AutoNL
from tenfold.methods.block_ends import find_block_ends
from tenfold.models import Architecture, build
from tenfold.quant import cut_channels, quantized_layers
from tenfold.train.interrupts import Interrupted
from tenfold.train.report.found_choices import decided

sys.path.append(str(Path(__file__).parents[1] / "train"))
from toy_training import ToyTask, assert_same_end, toy_config


def test_the_penalty_raises_thresholds_and_is_the_logarithm_of_the_cost():
    network = supernet()
    method = AutoNL(cost_weight=0.5)
    method.attach(network, None, torch.randn(2, 1, 8, 8))
    assert method.penalty(network) is None  # in the warm-up
    method._strength = method.cost_weight
    penalty = method.penalty(network)
    assert float(penalty.detach()) == pytest.approx(0.5 * float(torch.log(torch.tensor(method._first_macs))))
    penalty.backward()
    thresholds = {name: p.grad for name, p in network.named_parameters() if name.endswith("threshold")}
    assert len(thresholds) == len(method._search.names)
    savings = method._search.savings({})
    for name, gradient in thresholds.items():
        full = name.removesuffix(".gate.threshold").replace(".options.", ":")
        assert (gradient < 0) == (savings[full] > 0), name


def test_within_the_budget_nothing_is_charged():
    network = supernet()
    method = AutoNL()
    method.attach(network, Budget(macs=1e9), torch.randn(2, 1, 8, 8))
    method._strength = 1.0
    assert float(method.penalty(network).detach()) == 0
    method._limit = 1e5
    assert float(method.penalty(network).detach()) > 0


def _fit(tmp_path, method, network=None, name="run", task=None, **options):
    budget = options.pop("budget", None)
    resume = options.pop("resume", False)
    config = toy_config(**{"epochs": 3, "lr": 0.02, **options})
    return fit(
        supernet() if network is None else network,
        task or ToyTask(),
        [method] if isinstance(method, AutoNL) else method,
        budget,
        config=config,
        run_dir=tmp_path / name,
        quiet=True,
        resume=resume,
    )


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_training_keeps_its_budget_and_leaves_a_plain_network(tmp_path, average, share):
    result = _fit(tmp_path, AutoNL(search_share=share), budget=Budget(macs=600e3), ema_decay=average)
    found = result.report["found"]["autonl"]
    assert result.report["cost"]["after"]["macs"] == found["macs"]["after"] <= 600e3
    assert not any(isinstance(module, Searchable) for module in result.network.modules())
    assert type(result.network.stage1[0].depthwise).__name__ == "ModuleDict"
    x = ToyTask().example(3)
    with torch.no_grad():
        assert torch.equal(load(result.artifact)(x), result.network(x))
    fresh = build(Architecture.from_dict(found["architecture"]))  # to train from scratch, as the paper does
    assert profile(fresh, (1, 8, 8)).macs == found["macs"]["after"]
    steps = [row["step"] for row in found["trajectory"]]
    assert steps == ([4, 8, 12, 12] if share == 1 else [4, 6, 6, 8, 12])  # the decision: just before and just after
    before, after = (row for row in found["trajectory"] if row["step"] == share * 12)
    assert before["macs"] > 600e3 >= after["macs"] == found["macs"]["after"]
    assert set(before["margins"]) == set(search_of(supernet()).names)
    assert sum(len(site["choices"]) for site in found["sites"]) == len(search_of(supernet()).names)
    before, after = (sum(site["macs"][when] for site in found["sites"]) for when in ("before", "after"))
    assert before - after == found["macs"]["before"] - found["macs"]["after"]
    assert any(site["chosen"] is None for site in found["sites"])
    drawn = decided(result.report)
    assert drawn.placed == sum(isinstance(module, LightNonLocal) for module in result.network.modules())
    assert [place.name for place in drawn.places] == [name for name, *_ in result.network.blocks]
    assert all(
        value in site["candidates"][name]
        for site in found["sites"]
        if site["chosen"] is not None
        for name, value in site["chosen"].items()
    )


@pytest.mark.slow  # two trainings, one of them until every gate has closed
def test_a_huge_weight_of_the_cost_closes_everything_and_none_closes_nothing(tmp_path):
    options = {"search_share": 1.0, "warmup_share": 0.2, "gate_keep": 1.0}
    huge = _fit(tmp_path, AutoNL(cost_weight=3000.0, **options), name="huge", clip_grad=None, epochs=8)
    none = _fit(tmp_path, AutoNL(cost_weight=0.0, **options), name="none")
    search = search_of(supernet())
    assert huge.report["found"]["autonl"]["macs"]["after"] == search.smallest()
    assert none.report["found"]["autonl"]["macs"]["after"] == int(search.macs({}))


def test_what_was_not_chosen_leaves_optimiser_and_average(tmp_path):
    seen = {}

    class Spy(AutoNL):
        def step_end(self, run):
            super().step_end(run)
            seen["held"] = [p for group in run.optimizer.param_groups for p in group["params"]]
            seen["own"] = list(run.network.parameters())
            seen["average"] = [tuple(p.shape) for p in run.average.module.parameters()]

    _fit(tmp_path, Spy(), budget=Budget(macs=600e3), ema_decay=0.9)
    assert {id(p) for p in seen["held"]} == {id(p) for p in seen["own"]}
    assert [tuple(p.shape) for p in seen["own"]] == seen["average"]


@pytest.mark.parametrize("step", [3, 9])  # before and after the decision
def test_a_resumed_search_ends_bit_for_bit_alike(tmp_path, step):
    options = {"budget": Budget(macs=600e3), "ema_decay": 0.9}
    _fit(tmp_path, AutoNL(), name="whole", **options)
    with pytest.raises(Interrupted):
        _fit(tmp_path, AutoNL(), name="halves", task=ToyTask(interrupted_step=step), **options)
    _fit(tmp_path, AutoNL(), name="halves", resume=True, **options)
    assert_same_end(tmp_path / "whole", tmp_path / "halves")


def _images(side=32):
    return torch.randn(2, 3, side, side)


def test_blocks_end_where_a_norm_has_no_activation():
    ends = find_block_ends(build("mobilenet_v2"), _images(64))
    assert len(ends) == 17
    assert ends[0] == ("stage0.0.project.bn", 16, 32, 32)
    residual = find_block_ends(build("resnet18_cifar"), _images())
    assert len(residual) == 8  # one for each block, and none for the shortcuts
    assert len(find_block_ends(build("timm:mobilenetv3_small_100", num_classes=10), _images(64))) == 11
    assert not find_block_ends(build("mobilenet_v1"), _images(64))


def test_lightnl_is_put_behind_every_block_of_any_network_and_changes_nothing_at_first():
    network = build("timm:mobilenetv3_small_100", num_classes=10).eval()
    images = _images(64)
    with torch.no_grad():
        before = network(images)
    method = AutoNL(cost_weight=0.1, ratios=(0.25, 0.5), strides=(1, 2, 4))
    network = method.attach(network, None, images)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), before)
    assert sum(isinstance(module, SearchableNonLocal) for module in network.modules()) == 11
    assert {name.partition(":")[2] for name in method._search.names} == {"place", "ratio1", "stride2", "stride1"}


class _Colours(ToyTask):
    """The toy task in three channels."""

    input_shape = (3, 8, 8)

    def train_batches(self, **options):
        return ((x.expand(-1, 3, -1, -1).contiguous(), y) for x, y in super().train_batches(**options))

    def eval_batches(self, **options):
        return ((x.expand(-1, 3, -1, -1).contiguous(), y) for x, y in super().eval_batches(**options))

    def example(self, batch_size=1):
        return super().example(batch_size).expand(-1, 3, -1, -1).contiguous()


@pytest.mark.parametrize("name", ["mobilenet_v2_tiny", "resnet20_cifar"])
def test_places_in_a_users_network_are_searched_within_a_budget(tmp_path, name):
    bare = profile(build(name, num_classes=4), (3, 8, 8)).macs
    limit = bare + 30e3
    network = build(name, num_classes=4)
    result = _fit(tmp_path, AutoNL(), network=network, task=_Colours(), budget=Budget(macs=limit))
    macs = result.report["cost"]["after"]["macs"]
    places = [module for module in result.network.modules() if isinstance(module, LightNonLocal)]
    assert bare < macs <= limit
    assert places
    architecture = result.report["found"]["autonl"]["architecture"]
    assert architecture["name"] == "with_lightnl"
    assert len(architecture["options"]["places"]) == len(places)
    x = _Colours().example(3)
    with torch.no_grad():
        assert torch.equal(load(result.artifact)(x), result.network(x))


def test_where_a_block_is_already_none_is_put_inside_or_behind():
    ends = {end.name for end in find_block_ends(build("autonl_s"), _images(64))}
    assert len(ends) == 18 - 7
    assert not any(".attention." in name for name in ends)
    assert "stage0.0.project.bn" in ends
    assert "stage1.0.project.bn" not in ends  # LightNL is behind it
    with pytest.raises(UsageError, match=r"without such a block yet"):
        AutoNL(cost_weight=1.0).attach(build("with_lightnl"), None, _images(64))


def test_a_training_of_a_few_steps_has_finite_answers_without_a_weight_average(tmp_path):
    torch.manual_seed(0)
    network = build("timm:mobilenetv3_small_100", num_classes=4)
    # Without a limit on the gradients it is luck: every other seed ends with infinite answers.
    result = _fit(tmp_path, AutoNL(cost_weight=0.1), network=network, task=_Colours(), clip_grad=1.0)
    with torch.no_grad():
        assert bool(result.network(_Colours().example(33)).isfinite().all())


def test_places_can_be_named(tmp_path):
    network = build("mobilenet_v1", num_classes=4)
    method = AutoNL(cost_weight=0.0, places=("stage3.*.1.bn",))
    method.attach(network, None, _images(64))
    inserted = [name for name, module in network.named_modules() if isinstance(module, SearchableNonLocal)]
    assert len(inserted) == sum(name.startswith("stage3.") and name.endswith("1.bn") for name in _names("mobilenet_v1"))
    assert all(name.startswith("stage3.") for name in inserted)


def _names(name):
    return [one for one, _ in build(name, num_classes=4).named_modules()]


def test_search_and_quantization_share_one_training(tmp_path):
    network = build("mobilenet_v2_tiny", num_classes=4)
    bare = profile(network, (3, 8, 8)).macs
    methods = [AutoNL(), SAT(w_bits=4, a_bits=4)]
    result = _fit(
        tmp_path, methods, network=network, task=_Colours(), budget=Budget(macs=bare + 50e3), calibration_batches=1
    )
    places = [module for module in result.network.modules() if isinstance(module, LightNonLocal)]
    assert places
    quantized = dict(quantized_layers(result.network))
    assert any(name.endswith("attention.depthwise") for name in quantized)
    x = _Colours().example(3)
    with torch.no_grad():
        assert torch.equal(load(result.artifact)(x), result.network(x))


def test_widths_and_places_are_searched_in_one_training(tmp_path):
    network = build("mobilenet_v2_tiny", num_classes=4)
    limit = 0.85 * profile(network, (3, 8, 8)).macs
    result = _fit(tmp_path, [AtomNAS(), AutoNL()], network=network, task=_Colours(), budget=Budget(macs=limit))
    assert result.report["cost"]["after"]["macs"] <= limit
    assert not any(isinstance(module, Searchable) for module in result.network.modules())


def test_search_and_several_bit_widths_share_one_training(tmp_path):
    methods = [AutoNL(), AdaBits(bits=(8, 4))]
    result = _fit(tmp_path, methods, budget=Budget(macs=600e3), calibration_batches=1)
    assert result.report["found"]["autonl"]["macs"]["after"] <= 600e3
    assert not any(isinstance(module, Searchable) for module in result.network.modules())
    x = ToyTask().example(3)
    with torch.no_grad():
        assert torch.equal(load(result.artifact)(x), result.network(x))


def test_what_cannot_be_is_refused():
    images = torch.randn(2, 1, 8, 8)
    with pytest.raises(UsageError, match=r"autonl needs a budget of multiply-adds.*or the weight of the cost"):
        AutoNL().attach(supernet(), None, images)
    smallest = search_of(supernet()).smallest()
    with pytest.raises(BudgetError, match=rf"no choice keeps macs=1,000.*macs is {smallest:,}\. Raise the budget"):
        AutoNL().attach(supernet(), Budget(macs=1000), images)
    with pytest.raises(UsageError, match=r"has searchable layers already, so places=\['stem'\] would have no effect"):
        AutoNL(cost_weight=1.0, places=("stem",)).attach(supernet(), None, images)
    with pytest.raises(UsageError, match=r"has no place for LightNL blocks.*Name layers in places"):
        AutoNL(cost_weight=1.0).attach(build("mobilenet_v1", num_classes=4), None, _images(64))
    with pytest.raises(UsageError, match=r"'stage9' is no layer of this ImageClassifier.*Such are stem"):
        AutoNL(cost_weight=1.0, places=("stage9",)).attach(build("mobilenet_v1", num_classes=4), None, _images(64))
    with pytest.raises(UsageError, match=r"warmup_share of autonl must be 0 to 1; got 2"):
        AutoNL(warmup_share=2)
    with pytest.raises(UsageError, match=r"search_share and gate_keep of autonl must be above 0"):
        AutoNL(search_share=0)
    with pytest.raises(UsageError, match=r"cost_weight of autonl must be 0 or more; got -1"):
        AutoNL(cost_weight=-1)
    with pytest.raises(UsageError, match=r"ratios of autonl must be some numbers above 0, and at most 1; got \(2,\)"):
        AutoNL(ratios=(2,))
    with pytest.raises(UsageError, match=r"strides of autonl must be some whole numbers from 1; got \(0,\)"):
        AutoNL(strides=(0,))


def test_options_combine_in_any_way():
    for strides, ratios in itertools.product([(1,), (2,), (4, 1)], [(0.25,), (0.5, 0.125, 1.0)]):
        network = build("mobilenet_v2_tiny", num_classes=4)
        method = AutoNL(cost_weight=1.0, strides=strides, ratios=ratios)
        network = method.attach(network, None, _images())
        search = method._search
        cut_channels(network, search.description(search.decide()))
        make_plain(network)
        placed = [module for module in network.modules() if isinstance(module, LightNonLocal)]
        assert {(one.ratio, one.stride) for one in placed} == {(max(ratios), min(strides))}
