"""FracBits: the official cost terms, steps and rounding; budgets kept for certain; resuming."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reference import Reference, TinyNetwork, close, close_sum, official_optimizer
from tenfold import models
from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.methods import FracBits, create
from tenfold.methods.bit_search import BitSearch, SearchedLayer, find_offset
from tenfold.quant import FractionalBits, describe, quantized_layers


@pytest.fixture(scope="session")
def folder(shared):
    return shared / "reference" / "quant"


def test_cost_terms_and_their_gradients_equal_the_official_ones(folder):
    reference, seen = Reference(folder, "regularizers"), 0
    for case in reference.cases:
        name, tensors = case["case"], reference.tensors(case)
        if name.startswith("net/"):
            continue
        least = 8 if name == "linear_min8" else 0
        w = FractionalBits(tensors["lamda_w"].tolist(), minimum=least, passes_at_ends=False)
        a = FractionalBits(tensors["lamda_a"].tolist(), passes_at_ends=False)
        if name.startswith("linear"):
            weights = macs = case["fin"] * case["fout"]
            others = 4 * case["fout"]
        else:
            side = (case["hw"] + 2 * case["pad"] - case["k"]) // case["stride"] + 1
            weights = case["cin"] // case["groups"] * case["k"] ** 2 * case["cout"]
            macs, others = weights * side**2, 0
        layer = SearchedLayer(name=name, macs=macs, weights=weights, groups=case.get("groups", 1), w=w, a=a)
        search = BitSearch([layer], other_bytes=others)
        costs = search.costs()
        assert float(costs["bitops"].detach()) * 1e-9 == pytest.approx(float(tensors["bitops"]), rel=1e-6), name
        assert float(costs["bytes"].detach()) * 1e-6 == pytest.approx(float(tensors["size_mb"]), rel=1e-6), name
        for quantity, scale, wanted in (("bitops", 1e-9, ("g_w", "g_a")), ("bytes", 1e-6, ("gs_w",))):
            slopes = torch.autograd.grad(search.costs()[quantity] * scale, [w.value, a.value], allow_unused=True)
            for key, slope in zip(wanted, slopes, strict=False):
                torch.testing.assert_close(slope, tensors[key].reshape(slope.shape), rtol=1e-5, atol=1e-12)
        seen += 1
    assert seen == 10


def test_whole_networks_cost_what_the_official_profiler_says(folder):
    built = {"q_mobilenet_v1": "mobilenet_v1", "q_mobilenet_v2": "mobilenet_v2", "q_resnet18": "resnet18"}
    reference, seen = Reference(folder, "regularizers"), 0
    searches = {}
    for case in reference.cases:
        name = case["case"].split("/")[1] if "/" in case["case"] else ""
        if not case["case"].startswith("net/") or name not in built or seen > 12:
            continue
        if name not in searches:
            method = FracBits(like=4, two_sided=False, w_range=(1, 8), a_range=(1, 8))
            network = models.build(built[name])
            method.attach(network, None, torch.rand(1, 3, 224, 224))
            searches[name] = method._search
        bits = case["bits"]
        values = {policy: torch.full_like(policy.value, bits) for policy in searches[name].policies}
        costs, tensors = searches[name].costs(values), reference.tensors(case)
        assert float(costs["bitops"].detach()) * 1e-9 == pytest.approx(float(tensors["bitops"]), rel=2e-6), case["case"]
        seen += 1
    assert seen >= 6


def test_the_bisection_equals_the_official_one(folder):
    reference = Reference(folder, "discretize")
    network = models.build("mobilenet_v2")
    method = FracBits(like=4, two_sided=False)
    method.attach(network, None, torch.rand(1, 3, 224, 224))
    layers = method._search.layers
    for case in reference.cases:
        tensors = reference.tensors(case)
        lamda_w, lamda_a = tensors["lamda_w"].double(), tensors["lamda_a"].double()

        def share_at(offset, w=lamda_w, a=lamda_a, target=case["target_gbitops"]):
            total = 0.0
            for index, layer in enumerate(layers):
                shift = offset if index < len(layers) - 1 else 0.0  # the official cost forgets the last layer
                bits = [min(max(round(float(one + shift)), 2), 8) for one in (w[index], a[index])]
                if index == 0:
                    bits = [8, 8]
                if index == len(layers) - 1:
                    bits[0] = 8
                total += layer.macs * bits[0] * bits[1] * 1e-9
            return total / target

        offset, history = find_offset(share_at)
        assert offset == pytest.approx(case["offset"]), case["case"]
        expected = tensors["history"]
        assert len(history) == len(expected)
        for (tried, share), (wanted, cost) in zip(history, expected.tolist(), strict=True):
            assert tried == pytest.approx(wanted)
            assert share * case["target_gbitops"] == pytest.approx(cost, rel=1e-5)


NAMES = {"lamda_w": "weight_quantizer.policy.value", "lamda_a": "input_quantizer.policy.value"}


def _own_name(official: str) -> str:
    first, *rest = official.split(".")
    if rest[0] == "alpha":
        return f"{first}.input_quantizer.alpha"
    return f"{first}.{NAMES[rest[0]]}" if rest[0] in NAMES else official


@pytest.mark.parametrize(
    "name", ["layerwise_bitops", "layerwise_bitops_bigkappa", "kernelwise_bitops", "weightonly_size"]
)
def test_steps_equal_the_official_ones(folder, name):
    reference = Reference(folder, "tinynet_fracbits")
    case = next(case for case in reference.cases if case["case"] == name)
    tensors, flags = reference.tensors(case), case["flags"]
    allowed = (min(flags.get("bits_list", [2])), 8)
    weight_only = flags.get("weight_only", False)
    method = FracBits(
        kappa=flags["kappa"],
        constraint="absolute",
        weight_only=weight_only,
        w_range=allowed,
        a_range=allowed,
        weight_bits="kernel" if flags.get("per_channel_weight") else "layer",
        two_sided=False,
        project=False,
    )
    loose = Budget(bytes=1e6) if weight_only else Budget(bitops=1e9)
    network = method.attach(TinyNetwork(tensors), loose, tensors["step0.x_uint8"].float())
    # The official target lies below what its bits can reach, which ours refuses.
    limits = method._search.limits
    limits[next(iter(limits))] = flags["target_size"] * 1e6 if weight_only else flags["target_bitops"] * 1e9
    for _, layer in quantized_layers(network):
        layer.layer = layer.weight_quantizer.layer = replace(layer.layer, rescale_in_eval=False)
    own = network.state_dict()
    start = {_own_name(key.removeprefix("init.")): v for key, v in tensors.items() if key.startswith("init.")}
    assert len(own.keys() & start.keys()) > 15
    network.load_state_dict({key: start.get(key, value).clone() for key, value in own.items()})
    optimizer, parameters = official_optimizer(network), dict(network.named_parameters())
    for k in range(2):
        network.train()
        logits = network(tensors[f"step{k}.x_uint8"].float())
        close(logits, tensors[f"step{k}.logits"], 5e-6, name)
        loss, penalty = F.cross_entropy(logits, tensors[f"step{k}.target"].long()), method.penalty(network)
        close(loss, tensors[f"step{k}.ce"], 5e-6, name)
        assert float(penalty.detach()) == pytest.approx(flags["kappa"] * float(tensors[f"step{k}.reg_abs"]), rel=1e-3)
        optimizer.zero_grad()
        (loss + penalty).backward()
        for key, gradient in tensors.items():
            parameter = parameters.get(_own_name(key.removeprefix(f"step{k}.grad.")))
            if key.startswith(f"step{k}.grad.") and parameter is not None and parameter.grad is not None:
                close_sum(parameter.grad, gradient, f"{name} {key}")
        optimizer.step()
        state = network.state_dict()
        for key, value in tensors.items():
            own_name = _own_name(key.removeprefix(f"step{k}.after."))
            if key.startswith(f"step{k}.after.") and own_name in state:
                # Bits follow long sums; the first norm's mean is a small rest of sums over pixels up to 255.
                loose = "policy" in own_name or own_name == "bn0.running_mean"
                close(state[own_name], value, 3e-5 if loose else 5e-6, f"{name} {key}")
    network.eval()
    images = tensors["step0.x_uint8"].float()
    with torch.no_grad():
        close(network(images), tensors["eval.fractional.logits_official"], 1e-5, name)
        for layer_name, layer in quantized_layers(network):
            for short, quantizer in (("w", layer.weight_quantizer), ("a", layer.input_quantizer)):
                if quantizer is not None and isinstance(quantizer.policy, FractionalBits):
                    expected = tensors[f"rounded.{layer_name}.lamda_{short}"]
                    quantizer.policy.freeze(expected.clamp(*allowed))
        close(network(images), tensors["eval.rounded.logits_official"], 1e-5, name)


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.middle, self.middle_norm = nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16)
        self.last, self.last_norm = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.middle_norm(self.middle(x)).relu()
        return self.head(self.last_norm(self.last(x)).relu().mean((2, 3)))


class _Run:
    """As much of a run as the method looks at."""

    def __init__(self, network, total_steps=10):
        self.network, self.average = network, None
        self.step, self.steps_per_epoch, self.total_steps = 0, 5, total_steps


@pytest.fixture
def images():
    return torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def trained(method, images, budget=None, steps=10):
    torch.manual_seed(0)
    network = method.attach(_Network(), budget, images).train()
    run = _Run(network, steps)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), torch.arange(4))
        penalty = method.penalty(network)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        run.step += 1
        method.step_end(run)
    return network


OPTIONS = [
    {"like": 3},
    {"like": 2, "a_range": (1, 8), "w_range": (1, 8)},
    {"like": 3, "weight_bits": "kernel"},
    {"like": 3, "weight_bits": "kernel", "base": "pact"},
    {"like": 3, "weight_bits": "kernel", "kernels_together": True},
    {"like": 3, "weight_only": True, "w_range": (1, 8)},
    {"like": 3, "base": "trained"},
    {"like": 3, "upper_is_next": True, "scheme": "centered"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_finished_network_keeps_its_budget_and_uses_it(images, options):
    method = FracBits(search_share=0.5, **options)
    network = method.finish(trained(method, images), iter(()))
    ((quantity, limit),) = method._search.limits.items()
    cost = profile(network, images)
    got = cost.bitops if quantity == "bitops" else cost.size_bytes
    assert got <= limit
    assert got > 0.9 * limit  # the steps of this small network are coarse
    widths = [bits for layer in describe(network).values() for bits in (layer.w_bits, layer.a_bits)]
    assert any(isinstance(bits, tuple) for bits in widths) == (options.get("weight_bits") == "kernel")
    assert not any(isinstance(module, FractionalBits) for module in network.modules())


def test_frozen_bits_give_the_same_network_when_they_are_fixed(images):
    method = FracBits(like=3, weight_bits="kernel", search_share=0.5)
    network = trained(method, images).eval()
    before = network(images)
    torch.testing.assert_close(method.finish(network, iter(()))(images), before, atol=0, rtol=0)


def test_pruned_channels_are_counted_and_gone(images):
    method = FracBits(weight_bits="kernel", w_range=(0, 4), a_range=(2, 4), search_share=0.5, kappa=20.0, start=1.0)
    torch.manual_seed(0)
    smallest = Budget(bitops=1.3e6)
    network = trained(method, images, smallest)
    with torch.no_grad():  # kernels that the search has not pruned of itself
        policy = method._layers["middle"].weight_quantizer.policy
        pruned = policy.value.clone()
        pruned[[1, 5, 9]] = 0
        policy.freeze(pruned)
    method._silence(network)
    network.eval()
    before = network(images)
    whole = profile(network, images)
    finished = method.finish(network, iter(()))
    torch.testing.assert_close(finished(images), before, atol=1e-5, rtol=1e-5)
    cost = profile(finished, images)
    assert cost.bitops <= 1.3e6
    assert cost.macs < whole.macs
    assert finished.middle.out_channels == finished.last.in_channels <= 13
    assert finished.cuts[0]["removed"]["middle"]


def test_the_released_pact_configurations_differ_from_sat_by_the_scale_of_the_last_layer_only(images):
    schemes = {}
    for base, calibrated in (("sat", None), ("pact", True), ("pact", None)):
        method = FracBits(like=3, base=base, calibrated=calibrated)
        schemes[base, calibrated] = describe(method.attach(_Network(), None, images))
    sat, released = schemes["sat", None], schemes["pact", True]
    assert {name for name in sat if sat[name] != released[name]} == {"head"}
    assert replace(sat["head"], rescale="none") == released["head"]
    assert not any(layer.calibrated for layer in schemes["pact", None].values())


@pytest.mark.parametrize("search_share", [0.5, 1.0])
def test_finishing_changes_no_answer_of_the_network_or_of_its_average(images, search_share):
    """Channels of pruned kernels are silenced at freezing, if at all: then training can make up for it."""
    torch.manual_seed(0)
    options = {"w_range": (0, 4), "a_range": (2, 4), "kappa": 20.0, "start": 1.0}
    method = FracBits(weight_bits="kernel", search_share=search_share, strict=False, **options)
    network = method.attach(_Network(), Budget(bitops=1.3e6), images).train()
    policy, norm = network.middle.weight_quantizer.policy, network.middle_norm
    with torch.no_grad():
        policy.value[[1, 5, 9]] = 0
        norm.bias[[1, 5, 9]] = 0.7
        network(images)
    run = _Run(network)
    run.average = SimpleNamespace(module=copy.deepcopy(network))
    answers = []
    for run.step in range(5, 11):
        method.step_end(run)
        answers.append([one.eval()(images) for one in (network, run.average.module)])
        network.train()
    silent = search_share < 1
    for one in (norm, run.average.module.middle_norm):
        assert bool((one.bias[[1, 5, 9]] == 0).all()) == silent
    for one, before in zip((network, run.average.module), answers[-1], strict=True):
        finished = copy.deepcopy(method).finish(one.eval(), iter(()))
        torch.testing.assert_close(finished(images), before, atol=1e-5, rtol=1e-5)


def test_a_search_under_way_can_be_counted(images):
    method = FracBits(like=3, weight_bits="kernel")
    network = method.attach(_Network(), None, images)
    bits = describe(network)["stem"].w_bits
    assert bits == 8
    assert 0.9 < profile(network, images).bitops / method._search.limits["bitops"] < 2


def test_inputs_keep_their_bits_where_no_budget_counts_them(images):
    method = FracBits(a_range=(3, 6))
    network = method.attach(_Network(), Budget(bytes=1100), images)
    assert {bits.a_bits for bits in describe(network).values()} <= {6, 8}
    assert all(isinstance(layer.a, int) for layer in method._search.layers)


def test_bits_do_not_save_what_another_method_is_about_to_remove(images):
    network = _Network()
    network.shrinks_to = 0.5
    method = FracBits(search_share=0.5)
    method.attach(network, Budget(bytes=800), images)
    assert method._search.limits == {"bytes": 1600}
    early = method._search.uniform_start()
    network.shrinks_to = 1.0
    method.network_cut(network)
    assert method._search.limits == {"bytes": 800}
    assert method._search.uniform_start() < early
    network.shrinks_to = 0.9
    method.network_cut(network)
    method._freeze()
    assert method.report(network)["limits"] == {"bytes": 800}
    assert method.report(network)["used"]["bytes"] <= 1


def test_both_limits_are_kept(images):
    method = FracBits(search_share=0.5, w_range=(1, 8))
    budget = Budget(bitops=2.5e6, bytes=1100)
    cost = profile(method.finish(trained(method, images, budget), iter(())), images)
    assert budget.excess(cost) == {}


def test_each_of_two_limits_is_used_up_although_the_other_is_full(images):
    """Bytes are short and BitOPs are not: inputs are not lowered for bytes, and raised as far as BitOPs go."""
    budget = Budget(bitops=2.2e6, bytes=1000)
    method = FracBits(search_share=0.5, w_range=(1, 8), start=3)
    cost = profile(method.finish(trained(method, images, budget), iter(())), images)
    assert budget.excess(cost) == {}
    assert cost.size_bytes > 0.9 * budget.bytes
    assert cost.bitops > 0.9 * budget.bitops


def test_expensive_layers_get_fewer_bits_than_cheap_ones(images):
    method = FracBits(like=3, search_share=1.0, kappa=20.0)
    trained(method, images, steps=30)
    bits = {
        layer.name: float(method._learned[layer.w]) for layer in method._search.layers if not isinstance(layer.w, int)
    }
    assert bits["middle"] < bits["last"]


@pytest.mark.parametrize("stop", [2, 7])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(images, stop):
    """Stopped in the search, and after freezing: same bits, and the same weights to the last bit."""
    results = []
    for killed in (False, True):
        torch.manual_seed(0)
        method = FracBits(like=3, search_share=0.5)
        network = method.attach(_Network(), None, images).train()
        run, optimizer = _Run(network), torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        while run.step < run.total_steps:
            if killed and run.step == stop:
                saved = json.loads(json.dumps(method.state_dict())), network.state_dict(), optimizer.state_dict()
                method = FracBits(like=3, search_share=0.5)
                network = method.attach(_Network(), None, images).train()
                method.load_state_dict(saved[0])
                network.load_state_dict(saved[1])
                optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
                optimizer.load_state_dict(saved[2])
                run.network, killed = network, False
            optimizer.zero_grad()
            loss, penalty = F.cross_entropy(network(images), torch.arange(4)), method.penalty(network)
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
            run.step += 1
            method.step_end(run)
        network = method.finish(network, iter(()))
        results.append((describe(network), network.state_dict(), method.report(network)["trajectory"]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][key]) for key, value in results[0][1].items())
    assert results[0][2] == results[1][2]


def test_the_report_tells_learned_and_rounded_bits(images):
    method = FracBits(like=3, weight_bits="kernel", search_share=0.5)
    network = method.finish(trained(method, images), iter(()))
    report = json.loads(json.dumps(method.report(network)))
    assert 0.9 < report["used"]["bitops"] <= 1
    middle = next(layer for layer in report["layers"] if layer["name"] == "middle")
    assert len(middle["w_bits"]) == len(middle["w_learned"]) == 16
    assert len(report["trajectory"]) >= 2
    shares = [layer["share"]["bitops"] for layer in report["layers"]]
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(report["used"]["bitops"])
    assert method.status()["bitops"] == f"{report['used']['bitops']:.1%} of its limit"


def test_wrong_options_and_budgets_are_refused(images):
    with pytest.raises(BudgetError, match=r"asked for 10,000, smallest"):
        FracBits().attach(_Network(), Budget(bitops=1e4), images)
    with pytest.raises(UsageError, match="needs a budget that bits can keep"):
        FracBits().attach(_Network(), Budget(macs=1e6), images)
    with pytest.raises(UsageError, match="weight_only leaves activations in float"):
        FracBits(weight_only=True).attach(_Network(), Budget(bitops=1e9), images)
    with pytest.raises(UsageError, match='for kernels that have bits of their own: weight_bits="kernel"'):
        FracBits(kernels_together=True)
    with pytest.raises(UsageError, match='needs weight_bits="kernel"'):
        FracBits(w_range=(0, 8))
    with pytest.raises(UsageError, match="w_range must be two whole numbers"):
        FracBits(w_range=(4, 2))
    for options, message in (
        ({"like": 3.5}, "like of fracbits must be a whole number"),
        ({"like": 9}, "like must be a whole number, 1 to 8"),
        ({"warmup_epochs": -1}, "warmup_epochs must be 0 or more; got -1"),
        ({"start": float("nan")}, "start must be a number of bits within w_range or a_range, 2 to 8"),
        ({"start": 1.5}, "2 to 8"),
        ({"start": "sensitive"}, 'or "sensitivity"; got'),
    ):
        with pytest.raises(UsageError, match=message):
            FracBits(**options)
    assert FracBits(start=1.5, w_range=(1, 4)).start == 1.5
    with pytest.raises(UnknownNameError, match="base of fracbits"):
        create("fracbits", base="satt")


def test_two_budgets_on_bits_are_refused_and_others_go_beside(images):
    with pytest.raises(UsageError, match="like=8 is a budget of its own, and there is one of bitops, too"):
        FracBits(like=8).attach(_Network(), Budget(bitops=2e6), images)
    method = FracBits(like=8)
    method.attach(_Network(), Budget(macs=1e6), images)
    assert list(method._search.limits) == ["bitops"]


def test_bits_start_where_the_answers_need_them():
    torch.manual_seed(0)
    layers = [nn.Linear(32, 32, bias=False) for _ in range(4)]
    with torch.no_grad():
        layers[1].weight.copy_(layers[1].weight.sign() / 32)  # both values are levels of every grid
    network = nn.Sequential(layers[0], layers[1], nn.ReLU(), layers[2], layers[3])
    method = FracBits(base="trained", start="sensitivity", a_range=(8, 8))
    budget = Budget(bytes=profile(network, (32,), bits=(4, 8)).size_bytes)
    network = method.attach(network, budget, torch.randn(16, 32))
    found = {name: layer.weight_quantizer.policy for name, layer in quantized_layers(network)}
    assert float(found["1"].value.detach()) == 2 < float(found["3"].value.detach()) - 1
    share = float(method._search.costs()["bytes"].detach()) / budget.bytes
    assert 0.97 < share <= 1
