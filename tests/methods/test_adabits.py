"""AdaBits: the official steps, and what a user relies on."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reference import Reference, TinyNetwork, close, official_optimizer
from tenfold.errors import UnknownNameError, UsageError
from tenfold.methods import AdaBits, create
from tenfold.quant import SwitchableBatchNorm, available_bits, quantized_layers, set_bits


def _own_name(official: str, private_norms: bool) -> str:
    """Our name of a tensor of the official tiny network."""
    first, *rest = official.split(".")
    if first.startswith("bn"):
        return f"{first}.choices.{rest[1]}.{rest[2]}" if private_norms else f"{first}.{rest[2]}"
    return f"{first}.input_quantizer.alpha" if rest == ["alpha"] else official


@pytest.mark.parametrize("name", ["adabits_joint", "adabits_joint_sharedalpha"])
def test_joint_steps_equal_the_official_ones(shared, name):
    reference = Reference(shared / "reference" / "quant", "tinynet_sat_adabits")
    case = next(case for case in reference.cases if case["case"] == name)
    tensors, flags, listed = reference.tensors(case), case["flags"], case["bits_list"]
    network = TinyNetwork(tensors)
    method = AdaBits(
        bits=tuple(listed),
        scheme=flags["weight_quant_scheme"],
        private_levels=flags.get("switch_alpha", name == "adabits_joint"),
        rescale="linear",
        two_sided=False,
    )
    network = method.attach(network, None, tensors["step0.x_uint8"].float())
    for _, layer in quantized_layers(network):
        layer.layer = layer.weight_quantizer.layer = _evaluated_officially(layer.layer)
    names = {key.removeprefix("init."): key for key in tensors if key.startswith("init.")}
    own = network.state_dict()
    start = {_own_name(key, True): tensors[full] for key, full in names.items()}
    network.load_state_dict({key: start.get(key, value).clone().reshape(value.shape) for key, value in own.items()})
    optimizer = official_optimizer(network)
    steps = sum(key.startswith("step") and key.endswith("x_uint8") for key in tensors)
    assert steps == 2
    for k in range(steps):
        network.train()
        optimizer.zero_grad()
        with method.batch(network):
            for bits, one in zip(listed, method.passes(network), strict=True):
                one.enter()
                logits = network(tensors[f"step{k}.x_uint8"].float())
                close(logits, tensors[f"step{k}.b{bits}.logits"], 5e-6, name)
                loss = F.cross_entropy(logits, tensors[f"step{k}.target"].long())
                close(loss, tensors[f"step{k}.b{bits}.loss"], 5e-6, name)
                loss.backward()
        parameters = dict(network.named_parameters())
        expected = {key: v for key, v in tensors.items() if key.startswith(f"step{k}.grad.")}
        assert len(expected) > 10
        for key, gradient in expected.items():
            found = parameters[_own_name(key.removeprefix(f"step{k}.grad."), True)].grad
            close(found.reshape(gradient.shape), gradient, 5e-6, f"{name} {key}")
        optimizer.step()
        state = network.state_dict()
        for key, value in tensors.items():
            if key.startswith(f"step{k}.after."):
                found = state.get(_own_name(key.removeprefix(f"step{k}.after."), True))
                if found is not None:
                    close(found.reshape(value.shape), value, 5e-6, f"{name} {key}")
    network.eval()
    with torch.no_grad():
        for bits in listed:
            set_bits(network, bits)
            logits = network(tensors["step0.x_uint8"].float())
            close(logits, tensors[f"eval.b{bits}.logits_official"], 5e-6, name)


def _evaluated_officially(layer):
    from dataclasses import replace

    return replace(layer, rescale_in_eval=False)


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.middle, self.last_norm = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.last_norm(self.middle(x)).relu().mean((2, 3)))


@pytest.fixture
def images():
    return torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def attached(images, **options):
    torch.manual_seed(0)
    method = AdaBits(**options)
    return method, method.attach(_Network(), None, images)


def test_low_widths_take_the_centered_grid_and_the_edges_keep_8_bit_weights(images):
    method, network = attached(images, bits=(8, 4, 2))
    assert method.scheme == "centered"
    assert AdaBits(bits=(8, 6, 5, 4)).scheme == "modified"
    assert available_bits(network) == ((8, 8), (4, 4), (2, 2))
    set_bits(network, 2)
    found = {name: (layer.w_bits, layer.a_bits) for name, layer in quantized_layers(network)}
    assert found == {"stem": (8, 8), "middle": (2, 2), "head": (8, 2)}


def test_one_width_alone_is_a_sat_step(images):
    gradients = []
    for method in (AdaBits(bits=(4,), scheme="modified"), create("sat", w_bits=4, a_bits=4, scheme="modified")):
        torch.manual_seed(0)
        network = method.attach(_Network(), None, images).train()
        with method.batch(network):
            for one in method.passes(network):
                one.enter()
                F.cross_entropy(network(images), torch.arange(8) % 5).backward()
        gradients.append([network.stem.weight.grad, network.middle.weight.grad, network.head.weight.grad])
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bits", [(8, 2), (2, 8)])
def test_distillation_draws_the_narrow_widths_to_the_widest(images, bits):
    method, network = attached(images, bits=bits, distillation=1.0)
    widest, narrow = method.passes(network)
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    loss = torch.tensor(0.5)
    assert widest.adjust(teacher, loss) == loss
    expected = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean")
    assert float(narrow.adjust(student, loss)) == pytest.approx(0.5 + float(expected))


@pytest.mark.parametrize(("training", "order"), [("descending", ["8", "4", "2"]), ("ascending", ["2", "4", "8"])])
def test_progressive_training_goes_from_width_to_width(images, training, order):
    method, network = attached(images, bits=(4, 8, 2), training=training)

    class Run:
        steps_per_epoch, total_steps, average, step = 2, 6, None, 0

    run, seen = Run(), []
    run.network = network
    for _ in range(6):
        (one,) = method.passes(network)
        seen.append(one.name)
        run.step += 1
        method.step_end(run)
    assert seen == [name for name in order for _ in range(2)]
    state = json.loads(json.dumps(method.state_dict()))
    other = AdaBits(bits=(4, 8, 2), training=training)
    other.load_state_dict(state)
    assert other._stage == method._stage


def test_direct_adaptation_sets_the_norms_of_the_other_widths(images):
    method, network = attached(images, bits=(8, 2), training="direct")
    (one,) = method.passes(network)
    one.enter()
    network.train()(images)
    norm = next(module for module in network.modules() if isinstance(module, SwitchableBatchNorm))
    assert float(norm.choices[1].running_mean.abs().sum()) == 0
    finished = method.finish(network, iter([images]))
    assert float(norm.choices[1].running_mean.abs().sum()) > 0
    assert [one.name for one in method.passes(finished)] == ["8", "2"]


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="name 4 twice"):
        AdaBits(bits=(8, 4, 4))
    with pytest.raises(UsageError, match="at least one"):
        AdaBits(bits=())
    with pytest.raises(UsageError, match="must be 1 to 8 bits"):
        AdaBits(bits=(9, 4))
    with pytest.raises(UnknownNameError, match="way of training"):
        AdaBits(training="jiont")
    with pytest.raises(UsageError, match="must be a list of numbers or pairs"):
        AdaBits(bits=4)
    with pytest.raises(UsageError, match=r"or a pair of them .* got \(8, 4, 2\)"):
        AdaBits(bits=((8, 4, 2),))
    with pytest.raises(UsageError, match="calibration_batches must be a whole number, 1 or more; got 0"):
        AdaBits(calibration_batches=0)
    with pytest.raises(UsageError, match="distillation must be 0"):
        AdaBits(distillation=-1)
    with pytest.raises(UsageError, match="needs all widths"):
        AdaBits(training="direct", distillation=1.0)


def test_the_grid_is_centered_where_weights_may_have_few_bits():
    assert AdaBits(bits=(8, 4)).scheme == "modified"
    assert AdaBits(bits=(8, 3)).scheme == "centered"
    assert AdaBits(bits=(8, 4), search_share=0.5).scheme == "centered"  # layers go down to 2 bits


def test_a_float_width_is_warned_of_as_no_switchable_file_holds_it(images, caplog):
    attached(images, bits=(8, 4))
    attached(images, bits=((8, 32), (4, 32)))
    assert not caplog.records
    attached(images, bits=((32, 8), (4, 4)))
    assert "the weights are float at some of the widths 32/8, 4" in caplog.text
    assert "activations" not in caplog.text


def test_options_are_json_and_make_the_same_method_again():
    method = AdaBits(bits=(8, (4, 6)), distillation=0.5)
    options = json.loads(json.dumps(method.to_dict()))
    kind = options.pop("kind")
    assert create(kind, **options).to_dict() == method.to_dict()
