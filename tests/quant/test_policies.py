"""Bits that are switched, and bits that are learned: against the official layers, and by themselves."""

import copy
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reference import Reference, close, close_sum
from tenfold.errors import UsageError
from tenfold.quant import (
    FractionalBits,
    LayerScheme,
    SwitchableBatchNorm,
    available_bits,
    calibrate,
    describe_switch,
    interpolate_activation,
    interpolate_weight,
    make_switchable,
    quantize,
    quantized_layers,
    restore_switch,
    set_bits,
)
from tenfold.quant.interpolation import _quantized
from tenfold.quant.schemes import quantize_unit


@pytest.fixture(scope="session")
def folder(shared):
    return shared / "reference" / "quant"


def test_quantizers_of_0_bits_and_of_several_bits_equal_the_official_ones(folder):
    reference, seen = Reference(folder, "primitives"), 0
    for case in reference.cases:
        if not case["case"].startswith("fracbits/"):
            continue
        tensors, zero = reference.tensors(case), case.get("zp", case.get("zero_point"))
        bits = tensors["bits"].view(-1, 1) if "bits" in tensors else torch.tensor(case.get("bits"))
        got = _quantized(tensors["x"].clone(), bits.float(), case["scheme"], zero)
        torch.testing.assert_close(got, tensors["out"], atol=1e-6, rtol=1e-6)
        seen += 1
    assert seen >= 8


def _fractional_layer(case, tensors):
    """A layer with the case's weight, level and bits."""
    weight = tensors.get("weight", torch.randn(2, tensors["x"].shape[1], 1, 1))
    scheme = LayerScheme(
        w_bits=4,
        a_bits=4,
        scheme=case["scheme"],
        two_sided=case["case"].startswith("double_side"),
        rescale=case.get("rescale", "none"),
        rescale_in_eval=False,
    )
    if weight.dim() == 4:
        layer = quantize(nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False), {"": scheme})
    else:
        layer = quantize(nn.Linear(weight.shape[1], weight.shape[0]), {"": scheme})
    layer.weight.data = weight.clone()
    layer.input_quantizer.alpha.data = tensors["alpha"].clone()
    low, minimum = min(case.get("bits_list", [2])), 8 if case.get("lamda_w") == 8.0 and weight.dim() == 2 else 0
    for quantizer, name, least in ((layer.weight_quantizer, "lamda_w", minimum), (layer.input_quantizer, "lamda_a", 0)):
        start = tensors[name].tolist() if name in tensors else case.get(name, 4.0)
        quantizer.policy = FractionalBits(start, low=low, high=8, minimum=least)
    return layer.train(case.get("mode") != "eval")


def _check_gradients(layer, tensors, input, name):
    policies = {"glamda_w": layer.weight_quantizer.policy, "glamda_a": layer.input_quantizer.policy}
    close(input.grad, tensors["gx"], 3e-6, name)
    close_sum(layer.input_quantizer.alpha.grad, tensors["galpha"], name)
    if "gw" in tensors:
        close(layer.weight.grad, tensors["gw"], 3e-6, name)
    for gradient, policy in policies.items():
        if gradient in tensors:
            close_sum(policy.value.grad, tensors[gradient].reshape_as(policy.value), name)


def test_fractional_layers_equal_the_official_ones(folder):
    reference = Reference(folder, "fracbits_layers")
    for case in reference.cases:
        tensors, name = reference.tensors(case), case["case"]
        layer = _fractional_layer(case, tensors)
        input = tensors["x"].clone().requires_grad_()
        output = layer.input_quantizer(input)
        close(output, tensors["xeff"], 2e-6, name)
        if name.startswith("linear"):
            layer.bias.data = tensors["bias"].clone() if "bias" in tensors else _bias_of(layer, tensors)
            result = layer(input)
            close(result, tensors["y"], 5e-6, name)
            (result * tensors["gout"]).sum().backward()
        else:
            total = (output * tensors["gout_x"]).sum()
            if "weff" in tensors:
                close(layer.effective_weight(), tensors["weff"], 2e-6, name)
                total = total + (layer.effective_weight() * tensors["gout_w"]).sum()
            total.backward()
        _check_gradients(layer, tensors, input, name)
    assert len(reference.cases) == 29


def _bias_of(layer, tensors):
    """The bias before the official layer divides it by the factor in evaluation."""
    if layer.training:
        return tensors["beff"].clone()
    quantized = layer.weight_quantizer(layer.weight)
    return tensors["beff"] * layer.weight_quantizer.factor(quantized, layer.weight)


def test_whole_bits_give_the_integer_quantizer_and_no_slope():
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    bits = torch.tensor(3.0, requires_grad=True)
    got = interpolate_weight(weight, bits, "original", False, True, False)
    assert torch.equal(2 * quantize_unit(_unit(weight), 3, "original") - 1, got) or torch.allclose(
        got, 2 * quantize_unit(_unit(weight), 3, "original") - 1, atol=1e-6
    )
    got.sum().backward()
    assert float(bits.grad) == 0
    weight.grad = bits.grad = None
    interpolate_weight(weight, bits, "original", False, True, True).square().sum().backward()
    assert float(bits.grad) != 0  # with the next number as upper neighbour there is one


def _unit(weight):
    tanh = weight.detach().tanh()
    return (tanh / tanh.abs().max() + 1) / 2


def test_hand_points():
    """fracbits.md section 6.2."""
    unit = torch.tensor([0.4, 1.0])
    for bits, expected, slope in ((2.25, 0.357143, 0.095238), (3.0, 3 / 7, 0.0)):
        learned = torch.tensor(bits, requires_grad=True)
        output = interpolate_activation(unit, torch.tensor(1.0), learned, "original", False, True, False)
        assert float(output[0].detach()) == pytest.approx(expected, abs=1e-6)
        output[0].backward()
        assert float(learned.grad) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("bits", [2.0, 3.4, 3.6, [2.0, 3.4, 5.0, 0.3]])
@pytest.mark.parametrize("two_sided", [False, True])
def test_gradients_equal_those_of_the_plain_formula(bits, two_sided):
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(3, 4, 5, 5, generator=generator).requires_grad_()
    upstream = torch.randn(3, 4, 5, 5, generator=generator)
    alpha = torch.tensor(-1.2, requires_grad=True)
    learned = torch.tensor(bits, requires_grad=True)
    shaped = learned.view(-1, 1, 1) if learned.dim() else learned
    got = interpolate_activation(input, alpha, shaped, "original", two_sided, True, False)
    (got * upstream).sum().backward()
    found = [tensor.grad.clone() for tensor in (input, alpha, learned)]
    for tensor in (input, alpha, learned):
        tensor.grad = None
    level = alpha.abs()
    clipped = torch.maximum(torch.minimum(input, level), -level if two_sided else torch.zeros(()))
    unit = (clipped / level + 1) / 2 if two_sided else clipped / level
    low, high = shaped.detach().floor(), shaped.detach().ceil()

    def rounded(at):
        steps = 2**at - 1
        value = torch.where(at == 0, 0.5 if two_sided else 0.0, (unit * steps).round() / steps.clamp_min(1))
        return unit + (value - unit).detach()

    mixed = (shaped - low) * rounded(high) + (1 + low - shaped) * rounded(low)
    expected = level * (2 * mixed - 1) if two_sided else level * mixed
    close(got, expected, 2e-6)
    (expected * upstream).sum().backward()
    close(found[0], input.grad, 3e-6)
    close_sum(found[1], alpha.grad)
    close_sum(found[2], learned.grad)


def test_numbers_that_move_together_get_the_sum_of_all_gradients_besides_their_own():
    policy = FractionalBits([2.5, 4.0, 1.0, 9.0], moves_together=True)
    learned = policy.learned
    assert learned.tolist() == [2.5, 4.0, 2.0, 8.0]
    (learned * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert policy.value.grad.tolist() == [12.0, 21.0, 11.0, 11.0]  # what lies outside of the range has no own


def test_a_constraint_at_the_ends_of_the_range_passes_gradients_and_beyond_it_does_not():
    policy = FractionalBits([1.5, 2.0, 3.0, 8.0, 8.5])
    policy.learned.sum().backward()
    assert policy.value.grad.tolist() == [0, 1, 1, 1, 0]
    policy.project()
    assert policy.value.tolist() == [2, 2, 3, 8, 8]
    assert FractionalBits(3.5, minimum=8).bits == 8


def test_freezing_rounds_half_to_even_and_stops_learning():
    policy = FractionalBits(4.5)
    assert policy.bits == 4
    policy.freeze(policy.rounded(-0.6))
    assert (policy.bits, policy.active, policy.value.requires_grad) == (4, 4, False)
    kernels = FractionalBits([0.3, 2.7, 5.5], low=0)
    kernels.freeze(kernels.rounded())
    assert kernels.bits == (0, 3, 6)
    assert kernels.active.tolist() == [0, 3, 6]


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.middle, self.last_norm = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.last_norm(self.middle(x)).relu().mean((2, 3)))


WIDTHS = ((8, 8), (4, 4), (2, 4))


@pytest.fixture
def switchable():
    torch.manual_seed(0)
    schemes = {
        "stem": LayerScheme(w_bits=8, a_bits=8, pixels=True, scheme="centered"),
        "middle": LayerScheme(w_bits=8, a_bits=8, scheme="centered"),
        "head": LayerScheme(w_bits=8, a_bits=8, scheme="centered"),
    }
    network = quantize(_Network(), schemes)
    layers = {name: [(8, 8) if name == "stem" else width for width in WIDTHS] for name in schemes}
    return make_switchable(network, WIDTHS, layers)


def test_a_switch_reaches_every_layer_and_norm_and_back_is_exact(switchable):
    images = 2 * torch.rand(4, 3, 8, 8)
    for position, bits in enumerate(WIDTHS):
        set_bits(switchable, bits)
        calibrate(switchable, [images + position])
    switchable.eval()
    set_bits(switchable, 8)
    first = switchable(images)
    outputs = {}
    for bits in WIDTHS:
        set_bits(switchable, bits)
        outputs[bits] = switchable(images)
        wanted = {"stem": (8, 8), "middle": bits, "head": bits}
        assert {name: (layer.w_bits, layer.a_bits) for name, layer in quantized_layers(switchable)} == wanted
        norms = [module for module in switchable.modules() if isinstance(module, SwitchableBatchNorm)]
        assert len(norms) == 2
        assert all(norm.switch.position == WIDTHS.index(bits) for norm in norms)
    set_bits(switchable, (8, 8))
    assert torch.equal(switchable(images), first)
    assert not torch.equal(outputs[4, 4], first)


@pytest.mark.parametrize("bits", [None, "4", 4.0, (8, 4, 2), (8, None)])
def test_what_is_no_width_is_told_apart_from_one_that_is_not_there(switchable, bits):
    with pytest.raises(UsageError, match="a bit-width must be a whole number, or a pair"):
        set_bits(switchable, bits)
    with pytest.raises(UsageError, match="no width of 7 bits"):
        set_bits(switchable, 7)


def test_calibration_sets_the_level_of_the_current_width_only(switchable):
    alpha = switchable.middle.input_quantizer.alpha
    before = alpha.detach().clone()
    set_bits(switchable, 4)
    calibrate(switchable, [torch.rand(4, 3, 8, 8)])
    changed = alpha.detach() != before
    assert changed.tolist() == [False, True, False]


def test_switching_takes_less_than_a_millisecond(switchable):
    start = time.perf_counter()
    for _ in range(100):
        set_bits(switchable, 4)
    assert (
        time.perf_counter() - start < 0.1 * 20
    )  # a hundred switches; twenty times what is promised, for busy machines


def test_a_copy_has_a_switch_of_its_own(switchable):
    twin = copy.deepcopy(switchable)
    set_bits(twin, 4)
    assert twin.middle.w_bits == 4
    assert switchable.middle.w_bits == 8


def test_each_width_trains_its_own_level_and_norm_only(switchable):
    switchable.train()
    before = {name: value.clone() for name, value in switchable.state_dict().items()}
    set_bits(switchable, 4)
    switchable(torch.rand(4, 3, 8, 8)).sum().backward()
    alpha = switchable.middle.input_quantizer.alpha
    assert [bool(slope) for slope in alpha.grad] == [False, True, False]
    changed = {name for name, value in switchable.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{norm}.choices.1.{name}" for norm in ("norm", "last_norm") for name in _RUNNING}


_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("norms", ["private", "statistics", "shared"])
def test_a_description_rebuilds_the_network(norms):
    schemes = {"middle": LayerScheme(w_bits=8, a_bits=8), "head": LayerScheme(w_bits=8, a_bits=8)}
    layers = {name: list(WIDTHS) for name in schemes}
    network = make_switchable(quantize(_Network(), schemes), WIDTHS, layers, norms=norms, private_levels=False)
    twin = restore_switch(quantize(_Network(), schemes), describe_switch(network))
    twin.load_state_dict(network.state_dict())
    assert describe_switch(twin) == describe_switch(network)
    images = torch.rand(2, 3, 8, 8)
    for bits in available_bits(network):
        set_bits(network, bits)
        set_bits(twin, bits)
        assert torch.equal(network.eval()(images), twin.eval()(images))


def test_wrong_widths_are_refused(switchable):
    with pytest.raises(UsageError, match=r"no width of 3 bits; it was trained at 8, 4, 2/4"):
        set_bits(switchable, 3)
    with pytest.raises(UsageError, match="has one bit-width only"):
        set_bits(_Network(), 4)
    with pytest.raises(UsageError, match="name 4 twice"):
        make_switchable(_Network(), [(8, 8), (4, 4), (4, 4)], {})
    with pytest.raises(UsageError, match="several bit-widths already"):
        make_switchable(switchable, WIDTHS, {})
    with pytest.raises(UsageError, match="is damaged"):
        restore_switch(_Network(), {"widths": [3]})


def test_private_clipping_levels_equal_the_official_ones(folder):
    reference = Reference(folder, "scl_bn")
    for case in reference.cases:
        if not case["case"].startswith("scl/"):
            continue
        tensors, listed = reference.tensors(case), case["bits_list"]
        bits = listed if "bits" not in case else [case["bits"]]
        # A width that is not in the list falls back to the first state in the official code; ours refuses it.
        choices = [(bits[0] if bits[0] not in listed else listed[0], *listed[1:])] * 2
        layer = quantize(nn.Conv2d(4, 4, 3), {"": LayerScheme(w_bits=4, a_bits=4)})
        make_switchable(layer, [(b, b) for b in choices[0]], {"": [(b, b) for b in choices[0]]})
        quantizer = layer.input_quantizer
        quantizer.alpha.data = tensors["alpha"].clone()
        input = tensors["x"].clone().requires_grad_()
        for one in bits:
            set_bits(layer, one)
            output = quantizer(input)
            (output * tensors.get("gout", torch.ones(()))).sum().backward()
        if "xeff" in tensors:
            close(output, tensors["xeff"], 2e-6, case["case"])
            close(input.grad, tensors["gx"], 3e-6, case["case"])
        close_sum(quantizer.alpha.grad, tensors["galpha"], case["case"])


def test_private_batch_norms_equal_the_official_ones(folder):
    reference = Reference(folder, "scl_bn")
    (case,) = [case for case in reference.cases if case["case"] == "switchbn"]
    tensors = reference.tensors(case)
    network = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
    widths = [(bits, bits) for bits in case["bits_list"]]
    quantize(network, {"0": LayerScheme(w_bits=4, a_bits=4)})
    norm = make_switchable(network, widths, {"0": widths})[1]
    for number, choice in enumerate(norm.choices):
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(choice, name).data.copy_(tensors[f"bn{number}.{name}"])
    set_bits(network, 3)
    close(norm.train()(tensors["x"]), tensors["y_train_bits1"], 2e-6)
    set_bits(network, 4)
    close(norm(0.5 * tensors["x"]), tensors["y_train_bits0_on_half_x"], 2e-6)
    close(norm.eval()(tensors["x"]), tensors["y_eval_unknown_bits"], 2e-6)
    for number, choice in enumerate(norm.choices):
        for name in ("weight", "bias", "running_mean", "running_var"):
            close(getattr(choice, name), tensors[f"after_bn{number}.{name}"], 2e-6)


def test_sharing_the_normalization_gives_the_same_gradients(switchable):
    images, gradients = torch.rand(4, 3, 8, 8), []
    for shared in (False, True):
        switchable.train().zero_grad()
        layers = [layer for _, layer in quantized_layers(switchable)]
        contexts = [layer.weight_quantizer.sharing_normalization(layer.weight) for layer in layers if shared]
        for context in contexts:
            context.__enter__()
        for bits in WIDTHS:
            set_bits(switchable, bits)
            F.cross_entropy(switchable(images), torch.arange(4)).backward()
        for context in contexts:
            context.__exit__(None, None, None)
        gradients.append([parameter.grad.clone() for parameter in switchable.parameters()])
    for separate, together in zip(*gradients, strict=True):
        torch.testing.assert_close(together, separate, atol=2e-6, rtol=2e-5)
