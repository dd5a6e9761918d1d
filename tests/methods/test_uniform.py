"""QAT and SAT on whole networks: which layer gets which bits, scale and sign, and what a budget decides."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.methods import QAT, SAT, AdaBits, FracBits, Method, create, list_methods
from tenfold.quant import calibrate, describe, quantized_layers


class _Residual(nn.Module):
    """Post-activation if `normalized`; else one convolution has no batch norm behind it, as in pre-activation nets."""

    def __init__(self, normalized: bool):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.body_norm = nn.BatchNorm2d(8) if normalized else nn.Identity()
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(x + self.body_norm(self.body(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _schemes(method: Method, images, normalized=True, budget=None):
    return describe(method.attach(_Residual(normalized), budget, images))


def test_the_first_and_last_layer_keep_eight_bits_and_the_image_is_not_quantized_again(images):
    for method in (SAT(w_bits=3, a_bits=2), QAT(w_bits=3, a_bits=2)):
        schemes = _schemes(method, images)
        assert [(s.w_bits, s.a_bits) for s in schemes.values()] == [(8, 8), (3, 2), (8, 2)]
        assert [s.pixels for s in schemes.values()] == [True, False, False]
        network = method.attach(_Residual(True), None, images)
        assert network.stem.input_quantizer is None


def test_auto_takes_the_grid_that_fits_int8_at_eight_bits_and_the_papers_below(images):
    schemes = _schemes(SAT(w_bits=4, a_bits=4), images)
    assert [s.scheme for s in schemes.values()] == ["symmetric", "original", "symmetric"]
    everywhere = _schemes(SAT(w_bits=4, a_bits=4, scheme="original"), images)
    assert {s.scheme for s in everywhere.values()} == {"original"}


def test_sat_scales_the_last_layer_and_all_layers_where_a_batch_norm_is_missing(images):
    def rescaled(normalized, **options):
        schemes = _schemes(SAT(w_bits=4, a_bits=4, **options), images, normalized)
        return [scheme.rescale for scheme in schemes.values()]

    assert rescaled(True) == ["none", "none", "constant"]
    assert rescaled(False) == ["constant", "constant", "constant"]
    assert rescaled(False, rescale="linear") == ["none", "none", "constant"]
    assert rescaled(True, rescale="all", rescale_rule="stddev") == ["stddev"] * 3
    assert rescaled(True, rescale="none") == ["none"] * 3


def test_plain_training_has_the_original_gradient_and_no_scale(images):
    for scheme in _schemes(QAT(w_bits=4, a_bits=4), images).values():
        assert not scheme.calibrated
        assert scheme.rescale == "none"


def test_a_scaled_layer_has_the_variance_that_the_paper_asks_for(images):
    network = SAT(w_bits=2, a_bits=2).attach(_Residual(False), None, images)
    for _, layer in quantized_layers(network):
        weight = layer.effective_weight()
        fan_out = weight.shape[0] * weight[0, 0].numel() if weight.dim() == 4 else weight.shape[0]
        assert float(weight.std().detach()) * fan_out**0.5 == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("deviation", [0.0, 1e-4, 0.01, 0.2])
def test_a_last_layer_that_starts_small_learns_at_the_rate_of_the_others(images, deviation):
    torch.manual_seed(0)
    network = _Residual(True)
    nn.init.normal_(network.head.weight, mean=0.1 if deviation == 0 else 0.0, std=deviation)
    start = network.head.weight.detach().clone()
    with torch.no_grad():
        normalized = start.tanh() / start.tanh().abs().max()
    network = SAT(w_bits=32, a_bits=32).attach(network, None, images)
    weight = network.head.weight.detach()
    target = 10**-0.5
    if deviation in (0.0, 0.2):  # nothing that could be enlarged to it, or near enough: it stays as it is
        assert torch.equal(weight, start)
        return
    assert 0.7 * target < float(weight.std()) < 1.3 * target
    # Quantizers see tanh over its maximum, and that is what it was.
    torch.testing.assert_close(weight.tanh() / weight.tanh().abs().max(), normalized, rtol=1e-5, atol=1e-6)


def test_the_budget_decides_the_largest_bits_that_keep_it(images):
    network = _Residual(True)
    at_five = profile(network, images, bits=(5, 5)).bitops
    quantized = SAT().attach(network, Budget(bitops=at_five), images)
    assert quantized.body.w_bits == quantized.body.a_bits == 5
    assert profile(quantized, images).bitops <= at_five
    assert _schemes(SAT(), images)["body"].w_bits == 4
    assert _schemes(SAT(), images, budget=Budget(macs=1e9))["body"].w_bits == 4


def test_a_budget_out_of_reach_says_the_smallest_cost(images):
    smallest = profile(_Residual(True), images, bits=(2, 2)).bitops
    with pytest.raises(BudgetError, match=rf"no uniform bit-width keeps the budget.*smallest {smallest:,}"):
        SAT().attach(_Residual(True), Budget(bitops=1000), images)


def test_first_stage_of_sat_clamps_and_scales_float_weights(images):
    network = SAT(w_bits=32, a_bits=32).attach(_Residual(True), None, images)
    assert float(network.body.effective_weight().abs().max().detach()) == 1
    assert network.body.input_quantizer is None


def test_a_convolution_that_gives_the_answer_keeps_8_bit_weights(images):
    for normalized, bits in ((False, 8), (True, 4)):
        answer = [nn.Conv2d(8, 5, 1), *([nn.BatchNorm2d(5)] if normalized else [])]
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), *answer
        )
        schemes = describe(QAT(w_bits=4, a_bits=4).attach(network, None, images))
        assert [schemes[name].w_bits for name in ("0", "3", "5")] == [8, 4, bits]


@pytest.mark.parametrize("method", [SAT(w_bits=4, a_bits=4), AdaBits(bits=(8, 4)), FracBits(like=3)], ids=type)
def test_quantizing_twice_is_refused(images, method):
    network = AdaBits(bits=(8, 4)).attach(_Residual(True), None, images)
    with pytest.raises(UsageError, match="quantized already"):
        method.attach(network, None, images)


@torch.no_grad()
def test_post_training_quantization_keeps_the_function(images):
    network = _Residual(True)
    for norm in (network.stem_norm, network.body_norm):
        norm.momentum = None  # the statistics of the images, so that calibration finds them again
    network.train()(images)
    expected = network.eval()(images)
    method = QAT(w_bits=8, a_bits=8, clamp=False, per_channel=True)
    quantized = method.attach(network, None, images)
    calibrate(quantized, [images])
    error = float((quantized.eval()(images) - expected).abs().max()) / float(expected.abs().max())
    assert 0 < error < 0.02


def test_methods_are_created_by_name_and_describe_themselves():
    assert {"adabits", "qat", "sat"} <= set(list_methods())
    method = create("sat", w_bits=3, a_bits=3)
    assert method == SAT(w_bits=3, a_bits=3)
    settings = method.to_dict()
    assert create(settings.pop("kind"), **settings) == method


def test_wrong_names_and_options_are_refused_with_suggestions():
    with pytest.raises(UnknownNameError, match=r"unknown method 'satt'\. Did you mean sat"):
        create("satt")
    with pytest.raises(UnknownNameError, match=r"unknown option of method 'sat' 'w_bit'\. Did you mean w_bits"):
        create("sat", w_bit=4)
    with pytest.raises(UsageError, match="w_bits is 4 and a_bits is None: give both"):
        SAT(w_bits=4)
    with pytest.raises(UsageError, match="a_bits must be 1 to 8"):
        QAT(w_bits=4, a_bits=0)
    with pytest.raises(UnknownNameError, match="unknown choice of rescaled layers 'conv'"):
        SAT(rescale="conv")
    with pytest.raises(UnknownNameError, match="unknown rescale rule"):
        SAT(rescale_rule="none")
    with pytest.raises(UnknownNameError, match="unknown quantization scheme 'dorefa'"):
        QAT(scheme="dorefa")


class _Branched(_Residual):
    """With a branch whose last layer begins as zeros, and so as nothing."""

    def __init__(self):
        super().__init__(True)
        self.branch = nn.Conv2d(8, 8, 1)
        nn.init.zeros_(self.branch.weight)
        nn.init.zeros_(self.branch.bias)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(x + self.body_norm(self.body(x)) + self.branch(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adabits", {"calibration_batches": 1.5}, "calibration_batches of adabits must be a whole number; got 1.5"),
        ("adabits", {"search_share": "half"}, "search_share of adabits must be a finite number; got 'half'"),
        ("adabits", {"private_levels": "no"}, "private_levels of adabits must be true or false; got 'no'"),
        ("adabits", {"two_sided": "x"}, "two_sided of adabits must be true or false, or be left out; got 'x'"),
        ("fracbits", {"w_range": 5}, "w_range of fracbits must be a list; got 5"),
        ("fracbits", {"a_range": None}, "a_range of fracbits must be a list; got None"),
        ("fracbits", {"kappa": float("inf")}, "kappa of fracbits must be a finite number; got inf"),
        ("fracbits", {"strict": 1}, "strict of fracbits must be true or false; got 1"),
        ("sat", {"w_bits": "4", "a_bits": 4}, "w_bits of sat must be a whole number, or be left out; got '4'"),
    ],
)
def test_an_option_of_another_kind_is_refused_before_anything_runs(name, options, message):
    with pytest.raises(UsageError, match=message):
        create(name, **options)


def test_timms_linear_layers_are_quantized_and_what_stays_in_float_is_said(images, caplog):
    timm_layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3), timm_layers.StdConv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*parts, timm_layers.Linear(8, 5))
    expected = network(images)
    quantized = SAT(w_bits=4, a_bits=4).attach(network, None, images)
    assert [(name, scheme.w_bits) for name, scheme in describe(quantized).items()] == [("0", 8), ("4", 8)]
    assert "1 of the layers stay in float, as they are not plain convolutions or linear layers: 1." in caplog.text
    assert quantized(images).shape == expected.shape


@pytest.mark.parametrize("method", [QAT(w_bits=4, a_bits=4), SAT(w_bits=4, a_bits=4, rescale="all")])
def test_a_branch_that_begins_as_nothing_still_does_and_grows_with_its_steps(images, method):
    torch.manual_seed(0)
    network = method.attach(_Branched(), None, images)
    scheme = describe(network)["branch"]
    assert (scheme.clamp, scheme.rescale) == (False, "none")
    network(images).square().sum().backward()
    assert network.branch.weight.grad.abs().sum() > 0
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
    with torch.no_grad():
        network.branch.weight += 1e-4
    assert network.branch.effective_weight().abs().max() < 1.1e-4
    assert network.body.effective_weight().abs().max() > 0.1


def test_only_the_named_parts_of_a_network_are_quantized(images):
    network = nn.Sequential()
    network.add_module("backbone", nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)))
    network.add_module("head", nn.Conv2d(8, 5, 1))
    for method in (SAT(w_bits=4, a_bits=4, only=["backbone"]), QAT(w_bits=4, a_bits=4, only="backbone")):
        quantized = method.attach(copy.deepcopy(network), None, images)
        assert list(describe(quantized)) == ["backbone.0", "backbone.3"]
        assert describe(quantized)["backbone.3"].w_bits == 4  # it does not give the answer
    one = QAT(w_bits=4, a_bits=4, only=["backbone.3", "head"]).attach(copy.deepcopy(network), None, images)
    assert list(describe(one)) == ["backbone.3", "head"]
    halves = create("adabits", bits=(8, 4), only=["head"]).attach(copy.deepcopy(network), None, images)
    assert list(describe(halves)) == ["head"]
    with pytest.raises(UnknownNameError, match=r"unknown part with layers to quantize 'hed'\. Did you mean head"):
        SAT(only=["hed"]).attach(network, None, images)


def test_bits_that_a_budget_decides_count_the_other_parts_in_float(images):
    network = _Residual(True)
    learned = create("fracbits", like=4, only=["body"]).attach(copy.deepcopy(network), None, images)
    assert list(describe(learned)) == ["body"]
    in_float = profile(network, images).bitops
    body = next(row.macs for row in profile(network, images).layers if row.name == "body")
    limit = in_float - body * (32 * 32 - 4 * 4)
    assert SAT(only=["body"]).attach(network, Budget(bitops=limit), images).body.w_bits == 4
