"""AtomNAS: the official penalty and shrinkage, removal without a trace, budgets kept for certain, resuming."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from filling import image
from tenfold import models
from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.methods import AtomNAS, FracBits, create
from tenfold.methods.atom_selection import least_important, portions
from tenfold.methods.atoms import absorb_constants, count_atoms, find_atoms, removal, scales_of
from tenfold.models import official_atomnas_names
from tenfold.quant import cut_channels
from tenfold.train.surgery import cut_training

SMALL = {
    "stem": 8,
    "first": 8,
    "tail": 16,
    "stride": 1,
    "num_classes": 4,
    "dropout": 0.0,
    "blocks": [[8, 1, 6, 5, 0], [12, 2, 7, 0, 6], [12, 1, 4, 4, 4]],
}


def _small(**options):
    torch.manual_seed(0)
    network = models.build("atomnas", **{**SMALL, **options})
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
    return network


def _images(count=4, side=12):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "model"), [("supernet_a", "atomnas_supernet_a"), ("supernet_c", "atomnas_supernet")])
def test_costs_and_weights_of_atoms_equal_the_official_ones(shared, name, model):
    expected = json.loads((shared / "reference" / "atomnas" / "penalties.json").read_text())[name]
    network = models.build(model)
    official = dict(official_atomnas_names(network))
    method = AtomNAS(penalty_weight=expected["rho"])
    method.attach(network, None, torch.zeros(1, 3, 224, 224))
    for weighting, total in (("cost", "l1_loss_at_gamma_one"), ("equal", "l1_loss_equal_weights_at_gamma_one")):
        method.weighting = weighting
        method._weights = method._penalty_weights()
        found = {official[f"{group.scale}.weight"]: group for group in method._groups}
        assert len(found) == expected["groups"]
        for row in expected["rows"]:
            group = found[row["name"]]
            assert group.costs["macs"] == row["macs_per_atom"]
            assert count_atoms(network, group) == row["atoms"]
            if weighting == "cost":
                assert abs(method._weights[group.producer] / row["weight"] - 1) < 1e-12
        method._strength = expected["rho"]
        assert abs(float(method.penalty(network).detach()) / expected[total] - 1) < 1e-5  # float32 sums


def test_the_penalty_rises_as_the_official_one(shared):
    expected = json.loads((shared / "reference" / "atomnas" / "schedules.json").read_text())["rho_stepwise"]
    method = AtomNAS(penalty_weight=expected["params"]["rho"])
    for step, value in expected["points"]:
        run = SimpleNamespace(step=step, total_steps=350 * expected["steps_per_epoch"])
        method._limits = {}
        assert abs(method._next_strength(run) - value) <= 1e-12


class _Shrink:
    """The life of one shrink in the reference, as a run that the method acts on."""

    def __init__(self, folder):
        self.facts = json.loads((folder / "shrink.json").read_text())
        self.tensors = load_file(folder / "shrink.safetensors")
        out, blocks, width = [], [], 8
        for expand, channels, repeats, stride, kernels in self.facts["settings"]:
            channels = max(8, (channels + 4) // 8 * 8)
            for index in range(repeats):
                atoms = [expand * width if k in kernels else 0 for k in (3, 5, 7)]
                blocks.append([channels, stride if index == 0 else 1, *atoms])
                width = channels
            out.append(channels)
        self.network = models.build(
            "atomnas", blocks=blocks[1:], stem=8, first=out[0], tail=32, num_classes=10, dropout=0.0
        ).double()
        self.names = dict(official_atomnas_names(self.network))
        module = copy.deepcopy(self.network)
        self.pour(self.network, "before.model."), self.pour(module, "before.ema.")
        self.average = SimpleNamespace(module=module)
        parameters = dict(self.network.named_parameters())
        self.optimizer = torch.optim.SGD(parameters.values(), lr=0.01)
        for name, parameter in parameters.items():
            kinds = {kind: self.tensors[f"before.opt.{kind}.{self.names[name]}"] for kind in KINDS}
            self.optimizer.state[parameter] = {"step": torch.tensor(3.0), **kinds}
        self.step, self.steps_per_epoch, self.total_steps = 3, 3, 300
        self.config = SimpleNamespace()
        self.methods = []

    def pour(self, network, prefix):
        own = network.state_dict()
        state = {name: self.tensors.get(prefix + self.names[name], value) for name, value in own.items()}
        network.load_state_dict(state)

    def cut(self, description):
        cut_training(self.network, description, average=self.average.module, optimizer=self.optimizer)
        for method in self.methods:
            method.network_cut(self.network)


KINDS = ("square_avg", "momentum_buffer")


@pytest.fixture
def shrunk(shared):
    run = _Shrink(shared / "reference" / "atomnas")
    method = AtomNAS(penalty_weight=run.facts["rho"], repair=False)
    method.attach(run.network, None, image(2, 3, 64, 64, 1))
    assert method._costs.whole["macs"] == run.facts["macs_initial"]
    run.methods = [method]
    method.step_end(run)
    return run, method


def test_shrinking_equals_the_official_one_bit_for_bit(shrunk):
    run, method = shrunk
    assert profile(run.network, (3, 64, 64)).macs == run.facts["macs_after"] == method._current()["macs"]
    names = dict(official_atomnas_names(run.network))
    compared = 0
    for kind, network in (("model", run.network), ("ema", run.average.module)):
        for name, value in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, run.tensors[f"after.{kind}.{names[name]}"]), name
                compared += 1
    for name, parameter in run.network.named_parameters():
        state = run.optimizer.state[parameter]
        assert float(state["step"]) == 3
        for kind in KINDS:
            assert torch.equal(state[kind], run.tensors[f"after.opt.{kind}.{names[name]}"]), name
            compared += 1
    # The official program keeps the unused output norm of the vanished block: a weight, a shift and their statistics.
    assert compared == sum(key.startswith(("after.model.", "after.ema.", "after.opt.")) for key in run.tensors) - 12
    held = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    assert held == list(run.network.parameters())


def test_what_is_left_gives_the_official_answers(shrunk):
    run, method = shrunk
    images = image(4, 3, 64, 64, run.facts["seed"] + 10 + 50)
    with torch.no_grad():
        torch.testing.assert_close(run.network.eval()(images), run.tensors["after.eval.logits"], atol=1e-9, rtol=1e-9)
        twin = copy.deepcopy(run.network).train()
        torch.testing.assert_close(twin(images), run.tensors["after.train.logits"], atol=1e-9, rtol=1e-9)
        average = copy.deepcopy(run.average.module)
        method.prepare_evaluation(average, (image(4, 3, 64, 64, run.facts["seed"] + 10 + k) for k in (60, 61)))
        logits = average.eval()(images)
    torch.testing.assert_close(logits, run.tensors["calibrated.logits"], atol=1e-9, rtol=1e-9)


def test_the_step_after_the_shrink_equals_the_official_one(shrunk):
    run, method = shrunk
    facts, names = run.facts, dict(official_atomnas_names(run.network))
    method._strength = facts["rho"]
    run.network.train()
    images, targets = image(4, 3, 64, 64, facts["seed"] + 10 + 7), (3 * torch.arange(4) + 7) % 10
    loss = F.cross_entropy(run.network(images), targets, label_smoothing=facts["label_smoothing"])
    parameters = dict(run.network.named_parameters())
    decayed = [p for n, p in parameters.items() if p.dim() == 4 or n.startswith("classifier")]
    l2 = 0.5 * facts["weight_decay"] * sum(p.square().sum() for p in decayed)
    penalty = method.penalty(run.network)
    for term, value in zip((loss, l2, penalty), facts["losses_after"][0], strict=True):
        assert abs(float(term.detach()) - value) <= 1e-9
    (loss + l2 + penalty).backward()
    with torch.no_grad():
        for name, parameter in parameters.items():
            state = run.optimizer.state[parameter]
            square = (
                state["square_avg"]
                .mul_(facts["alpha"])
                .addcmul_(parameter.grad, parameter.grad, value=1 - facts["alpha"])
            )
            moved = (
                state["momentum_buffer"]
                .mul_(facts["momentum"])
                .addcdiv_(parameter.grad, (square + facts["eps"]).sqrt())
            )
            parameter.sub_(moved, alpha=facts["lr"])
            expected = run.tensors[f"next.model.{names[name]}"]
            torch.testing.assert_close(parameter.detach(), expected, atol=1e-9, rtol=1e-9)


def _network_with_dead_atoms(model="small"):
    network = _small() if model == "small" else models.build(model, num_classes=4)
    groups = find_atoms(network, _images(2, 32))
    dead = {}
    for index, group in enumerate(groups):
        mask = torch.zeros(count_atoms(network, group), dtype=torch.bool)
        mask[[0, 2] if index % 2 else [1]] = True
        dead[group.producer] = mask
    return network, groups, dead


@pytest.mark.parametrize("model", ["small", "mobilenet_v2_tiny", "timm:mobilenetv2_035"])
def test_removing_atoms_with_scale_zero_leaves_outputs_unchanged(model):
    network, groups, dead = _network_with_dead_atoms(model)
    network, images = network.double(), _images(4, 32).double()
    with torch.no_grad():
        network.train()(images)  # statistics that are not those of the start
        for group in groups:
            for scale in scales_of(network, group):
                scale[dead[group.producer]] = 0
        before_eval = network.eval()(images)
        before_train = copy.deepcopy(network).train()(images)
    absorb_constants(network, images, groups, dead)
    cut_channels(network, removal(groups, {n: m.nonzero().flatten().tolist() for n, m in dead.items()}, ()))
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), before_eval, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(network.train()(images), before_train, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("model", ["small", "mobilenet_v2_tiny"])
def test_cost_after_surgery_is_what_the_profiler_counts(model):
    network, groups, dead = _network_with_dead_atoms(model)
    before = profile(network, (3, 32, 32))
    cut_channels(network, removal(groups, {n: m.nonzero().flatten().tolist() for n, m in dead.items()}, ()))
    after = profile(network, (3, 32, 32))
    saved = {
        q: sum(int(dead[g.producer].sum()) * g.costs[q] for g in groups) for q in ("macs", "params", "bytes", "bitops")
    }
    assert before.macs - after.macs == saved["macs"]
    assert before.params - after.params == saved["params"]
    assert before.size_bytes - after.size_bytes == saved["bytes"]
    assert before.bitops - after.bitops == saved["bitops"]


@pytest.mark.parametrize(
    ("count", "multiple", "sizes"),
    [
        (3, 1, [1, 1, 1]),
        (20, 8, [4, 8] + [1] * 8),
        (16, 8, [8] + [1] * 8),
        (5, 8, [1] * 5),
        (63, None, [1] * 63),
        (66, None, [2] + [8] * 7 + [1] * 8),
    ],
)
def test_atoms_go_in_portions_that_leave_a_multiple(count, multiple, sizes):
    scores = torch.rand(count, generator=torch.Generator().manual_seed(count))
    found = portions(scores, multiple)
    assert [len(one) for one in found] == sizes
    assert [index for one in found for index in one] == scores.argsort().tolist()


def test_the_weakest_portions_go_until_the_limit_is_kept():
    groups = [SimpleNamespace(producer=name, block=name, is_residual=False, branch=None) for name in "ab"]
    scores = {"a": torch.tensor([4.0, 1, 2, 3, 8, 9]), "b": torch.tensor([0.0, 2, 9, 9, 9])}
    shares = {"a": {"macs": 0.2}, "b": {"macs": 0.1}}
    dead = least_important(groups, scores, shares, {"macs": 1.3}, 2)
    # The mean of b's first portion is 0 (its odd atom), then come 1.5, the first pair of a, and nothing more.
    assert dead["a"].tolist() == [False, True, True, False, False, False]
    assert dead["b"].tolist() == [True, False, False, False, False]


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01),
    "rmsprop_tf": lambda parameters: __import__("timm.optim", fromlist=["RMSpropTF"]).RMSpropTF(
        parameters, 0.01, momentum=0.9
    ),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_surgery_commutes_with_a_step_on_the_atoms_that_stay(kind):
    network, groups, dead = _network_with_dead_atoms()
    description = removal(groups, {n: m.nonzero().flatten().tolist() for n, m in dead.items()}, ())
    generator = torch.Generator().manual_seed(3)
    gradients = [
        {name: torch.randn(p.shape, generator=generator) for name, p in network.named_parameters()} for _ in range(3)
    ]
    small = cut_channels(copy.deepcopy(network), description)
    cut_gradients = []
    for some in gradients:
        twin = copy.deepcopy(network)
        for name, parameter in twin.named_parameters():
            parameter.data = some[name]
        cut_gradients.append({name: p.data for name, p in cut_channels(twin, description).named_parameters()})

    def step(one, optimizer, some):
        for name, parameter in one.named_parameters():
            parameter.grad = some[name].clone()
        optimizer.step()

    optimizer = OPTIMIZERS[kind](network.parameters())
    for some in gradients[:2]:
        step(network, optimizer, some)
    cut_training(network, description, average=None, optimizer=optimizer)
    step(network, optimizer, cut_gradients[2])
    small_optimizer = OPTIMIZERS[kind](small.parameters())
    for some in cut_gradients:
        step(small, small_optimizer, some)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, dict(small.named_parameters())[name]), name


def test_a_penalty_or_a_budget_is_needed_and_atoms_to_remove():
    with pytest.raises(UsageError, match="atomnas needs a budget"):
        AtomNAS().attach(_small(), None, _images())
    with pytest.raises(UsageError, match="has no inverted residuals"):
        AtomNAS().attach(models.build("resnet20_cifar"), Budget(macs=1e6), _images(2, 32))
    with pytest.raises(BudgetError, match="with the fewest atoms macs is"):
        AtomNAS().attach(_small(), Budget(macs=1000), _images())
    with pytest.raises(UsageError, match="name atomnas before fracbits"):
        AtomNAS().attach(FracBits(like=4).attach(_small(), None, _images()), Budget(macs=1e6), _images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "macs"}, "weighting of atoms"),
        ({"quantity": "flops"}, "quantity that atoms cost"),
        ({"search_share": 2}, "search_share of atomnas must be 0 to 1"),
        ({"penalty_weight": -1.0}, "penalty_weight of atomnas must be 0 or more"),
        ({"threshold": -1.0}, "threshold of atomnas must be 0 or more"),
        ({"multiple": 0}, "multiple of atomnas must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises((UsageError, UnknownNameError), match=message):
        create("atomnas", **options)
