"""Which layers read whose channels, and removing pruned channels: the outputs stay, the cost falls."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tenfold
from tenfold.cost import profile
from tenfold.errors import UnknownNameError, UsageError
from tenfold.quant import (
    FractionalBits,
    LayerScheme,
    WeightQuantizer,
    describe,
    make_switchable,
    quantizable_layers,
    quantize,
    quantized_layers,
    survey,
)
from tenfold.quant.channels import channel_paths
from tenfold.quant.constant_channels import pruned_kernels
from tenfold.quant.cutting import cut_channels
from tenfold.quant.removal import remove_channels


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _images(size=8, channels=3, count=2):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def _trained(network):
    """A network in eval mode whose batch norms have statistics and shifts, as after a training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@torch.no_grad()
def _kill(network, **kernels):
    """Set kernels of float layers to zero."""
    for name, channels in kernels.items():
        network.get_submodule(name).weight[list(channels)] = 0
    return network


def _quantized(network, images, **options):
    """All layers quantized, each kernel with bits of its own, many of them 0; the last layer keeps all kernels."""
    schemes = {}
    for name, facts in survey(network, images).items():
        draws = torch.rand(len(network.get_submodule(name).weight)).tolist()
        bits = tuple(0 if draw < 0.4 and not facts.is_last else 2 + int(draw * 6) for draw in draws)
        schemes[name] = LayerScheme(w_bits=bits, a_bits=4, two_sided=facts.signed_input, **options)
    return quantize(network, schemes)


def _removed(network, images, tolerance=1e-6):
    """Remove all that can go; the description, after a check that the outputs stay and that only shapes change."""
    with torch.no_grad():
        before = network(images)
        training = {name: module.training for name, module in network.named_modules()}
        description = remove_channels(network, images, pruned_kernels(network))
        torch.testing.assert_close(network(images), before, atol=tolerance, rtol=tolerance)
    assert training == {name: module.training for name, module in network.named_modules()}
    assert json.loads(json.dumps(description)) == description
    return description


def _chain(padding=1, second=3, behind=True, activation=nn.ReLU):
    parts = [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), activation()]
    parts += [nn.Conv2d(6, 5, second, padding=padding, bias=False)]
    return _trained(nn.Sequential(*parts, *([nn.BatchNorm2d(5)] if behind else [])))


class _Inverted(nn.Module):
    """A block of MobileNetV2 between a stem and a classifier."""

    def __init__(self, padding=1):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.expand, self.expand_norm = nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.depthwise_norm = (
            nn.Conv2d(8, 8, 3, padding=padding, groups=8, bias=False),
            nn.BatchNorm2d(8),
        )
        self.project, self.project_norm = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu6(self.expand_norm(self.expand(self.stem(x))))
        x = F.hardswish(self.depthwise_norm(self.depthwise(x)))
        x = self.project_norm(self.project(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_the_path_of_channels_through_norms_activations_and_depthwise_convolutions():
    network = _trained(_Inverted())
    paths = channel_paths(network, _images())
    assert list(paths) == ["stem", "expand", "project"]
    path = paths["expand"]
    assert (path.norm, path.through) == ("expand_norm", ("depthwise", "depthwise_norm"))
    assert path.consumers == ("project",)
    assert path.routes == (("expand", "depthwise", "project"),)
    assert path.readers == {"depthwise", "project"}
    assert path.carriers == ("expand_norm", "depthwise", "depthwise_norm")
    assert (paths["stem"].norm, paths["stem"].consumers, paths["project"].consumers) == (None, ("expand",), ("head",))


class _Place(nn.Module):
    """A convolution `a` whose channels go to a convolution `b`, in one of several ways."""

    def __init__(self, way, b=None):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), b or nn.Conv2d(4, 4, 3, padding=1)
        self.gate, self.wide, self.scale = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 2, 1), nn.Parameter(torch.ones(4, 1, 1))
        self.prelu, self.head, self.way = nn.PReLU(4), nn.Linear(4, 2), way

    def forward(self, x):
        return self.way(self, self.a(x))


KNOWN = {
    "directly": lambda m, x: m.b(x),
    "to two readers": lambda m, x: m.b(x) + m.gate(F.relu(x)),
    "multiplied by itself": lambda m, x: m.b(x * torch.sigmoid(x) / 2),
    "made another constant": lambda m, x: m.b(x + 1),
    "pooled": lambda m, x: m.b(F.avg_pool2d(F.max_pool2d(x, 3, 2, 1), 2)),
    "enlarged": lambda m, x: m.b(F.interpolate(x.clamp(0, 6), scale_factor=2)),
    "in place": lambda m, x: m.b(F.dropout(x, training=False).relu_()),
    "mean and linear": lambda m, x: m.head(x.mean((2, 3))),
    "pooled, viewed": lambda m, x: m.head(F.adaptive_avg_pool2d(x, 1).view(len(x), -1)),
    "one place": lambda m, x: m.head(x[:, :, 0, 0]),
    "padded outside": lambda m, x: m.b(F.pad(x, (1, 1, 1, 1))),
}
UNKNOWN = {
    "output": lambda m, x: (m.b(x), x),
    "residual": lambda m, x: m.b(x) + x,
    "residual in place": lambda m, x: m.b(x).add_(x),
    "concatenated": lambda m, x: m.wide(torch.cat([x, m.b(x)], 1)),
    "squeeze and excite": lambda m, x: m.b(x * torch.sigmoid(m.gate(x.mean((2, 3), keepdim=True)))),
    "scaled by a parameter": lambda m, x: m.b(x * m.scale),
    "activation with weights": lambda m, x: m.b(m.prelu(x)),
    "norm over channels": lambda m, x: m.b(F.layer_norm(x, x.shape[1:])),
    "softmax": lambda m, x: m.b(x.softmax(1)),
    "split": lambda m, x: m.b(torch.cat(x.chunk(2, 1), 1)),
    "flattened maps": lambda m, x: F.linear(x.flatten(1), x.new_ones(2, 4 * 64)),
    "viewed by number": lambda m, x: m.head(F.adaptive_avg_pool2d(x, 1).view(-1, 4)),
    "channels padded": lambda m, x: m.wide(F.pad(x, (0, 0, 0, 0, 2, 2))),
    "zeros averaged": lambda m, x: m.b(F.avg_pool2d(x, 3, 1, 1)),
    "random": lambda m, x: m.b(F.dropout(x, training=True)),
    "written into": lambda m, x: (m.b(x), x.relu_())[0],
    "written into through a view": lambda m, x: (m.b(x.view(2, -1, 8, 8)), x.contiguous().relu_())[0],
    "weight read by hand": lambda m, x: m.b(x) + m.b.weight.sum(),
    "called twice": lambda m, x: m.b(m.b(x)),
    "without a module": lambda m, x: F.conv2d(x, m.b.weight),
}


@pytest.mark.parametrize("way", KNOWN)
def test_channels_are_followed(way):
    network = _kill(_Place(KNOWN[way]).eval(), a=[1, 2])
    assert "a" in channel_paths(network, _images())
    with torch.no_grad():
        network.a.bias[1:3] = 0
    removed = _removed(network, _images())["removed"]
    assert removed == ({} if way == "made another constant" else {"a": [1, 2]})


@pytest.mark.parametrize("way", UNKNOWN)
def test_channels_that_cannot_be_followed_stay(way):
    assert "a" not in channel_paths(_Place(UNKNOWN[way]).eval(), _images())


def test_grouped_shared_and_tied_layers_have_no_path():
    grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    assert channel_paths(nn.Sequential(nn.Conv2d(3, 4, 1), grouped, nn.Conv2d(4, 4, 1)), _images()) == {}
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert channel_paths(nn.Sequential(block, nn.ReLU(), block, nn.Conv2d(3, 3, 1)), _images()) == {}
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    tied[2].weight = tied[1].weight
    assert channel_paths(tied, _images()) == {}
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 3, 1))
    assert channel_paths(computed, _images()) == {}


def test_a_network_that_cannot_be_drawn_keeps_all(capfd):
    class Moody(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    network = Moody(*_kill(_chain(), **{"0": [1]}))
    assert channel_paths(network, _images()) == {}
    assert remove_channels(network, _images(), {"0": [1]})["removed"] == {}
    assert capfd.readouterr() == ("", "")


def test_a_channel_of_zeros_goes_in_spite_of_padding_and_another_constant_stays():
    network = _kill(_chain(), **{"0": [1, 2, 4]})
    with torch.no_grad():
        network[1].bias[[1, 2, 4]] = torch.tensor([-1.0, 1.0, -2.0])
        network[1].running_mean[[1, 2, 4]] = 0
    parameters = dict(network.named_parameters())
    before = network(_images())
    description = remove_channels(network, _images(), {"0": [1, 2, 4]})
    assert torch.equal(network(_images()), before)
    assert description == {
        "removed": {"0": [1, 4]},
        "through": {"0": ["1"]},
        "consumers": {"0": ["3"]},
        "biased": [],
    }
    assert (network[0].out_channels, network[1].num_features, network[3].in_channels) == (4, 4, 4)
    assert dict(network.named_parameters()).keys() == parameters.keys()
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())


@pytest.mark.parametrize("place", ["bias", "norm", "new bias"])
def test_a_constant_goes_into_what_is_behind_where_nothing_is_padded(place):
    network = _kill(_chain(padding=0, behind=place == "norm", activation=nn.GELU), **{"0": [0, 3]})
    if place == "bias":
        network[3].bias = nn.Parameter(torch.randn(5))
    description = _removed(network, _images())
    assert description["removed"] == {"0": [0, 3]}
    assert description["biased"] == (["3"] if place == "new bias" else [])
    torch.testing.assert_close(network(_images(12, count=3)).shape, torch.Size((3, 5, 10, 10)))


def test_reflected_padding_is_no_zero_padding():
    network = _kill(_chain(), **{"0": [0, 3]})
    network[3].padding_mode = "reflect"
    network[3]._reversed_padding_repeated_twice = [1, 1, 1, 1]
    assert _removed(network, _images())["removed"] == {"0": [0, 3]}


def test_a_hidden_unit_goes_with_its_constant():
    network = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 3, bias=False))
    _kill(network, **{"0": [2, 7]})
    tokens = torch.randn(2, 5, 3)
    assert _removed(network, tokens)["removed"] == {"0": [2, 7]}
    assert network[2].weight.shape == (3, 6)
    assert network[2].bias is not None


@pytest.mark.parametrize("padding", [0, 1])
def test_depthwise_channels_go_with_those_before(padding):
    network = _kill(_trained(_Inverted(padding)), expand=[0, 1, 2], depthwise=[2, 5, 6])
    with torch.no_grad():
        network.expand_norm.bias[:2] = torch.tensor([-9.0, 9.0])
    description = _removed(network, _images())
    # 0 is zero everywhere; 1 is the constant 6 at the depthwise convolution, where padding counts; of 2, 5 and 6 the
    # depthwise kernel is zero, and no one reads what is before it.
    assert description["removed"] == {"expand": [0, 2, 5, 6] if padding else [0, 1, 2, 5, 6]}
    left = 4 if padding else 3
    assert (network.depthwise.groups, network.depthwise.in_channels, network.depthwise.out_channels) == (left,) * 3
    assert network.depthwise.weight.shape == (left, 1, 3, 3)
    assert network.depthwise_norm.num_features == left


def test_one_channel_stays_in_each_layer():
    network = _kill(_chain(padding=0), **{"0": range(6)})
    assert _removed(network, _images())["removed"] == {"0": [1, 2, 3, 4, 5]}


def test_code_that_counts_on_a_number_of_channels_keeps_them():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.first(x)
            if x.shape[1] != 4:
                raise ValueError("four channels, please")
            return self.third(self.second(x))

    network = _kill(Strict().eval(), first=[1], second=[0])
    assert _removed(network, _images())["removed"] == {"second": [0]}


def test_only_the_inner_channels_of_residual_blocks_go():
    images = _images(16)
    network = _quantized(_trained(tenfold.build("resnet20_cifar")), images, rescale="constant")
    before = profile(network, (3, 16, 16))
    untouched = copy.deepcopy(network)
    description = _removed(network, images)
    stages = [f"stage{stage}.{block}.conv1.conv" for stage in (1, 2, 3) for block in range(3)]
    assert list(description["removed"]) == stages
    after = profile(network, (3, 16, 16))
    assert after.macs < before.macs * 0.8
    assert after.bitops < before.bitops
    assert after.params < before.params
    _check_rebuilding(untouched, network, description, images, lambda: tenfold.build("resnet20_cifar"))


def _check_rebuilding(untouched, network, description, images, build):
    """A fresh network takes the state of the small one: quantized before the cut (with either bits) or after it."""
    wanted = network(images)
    orders = [
        lambda: cut_channels(quantize(build(), describe(network)), description),
        lambda: cut_channels(quantize(build(), describe(untouched)), description),
        lambda: quantize(cut_channels(build(), description), describe(network)),
    ]
    for order in orders:
        rebuilt = order().eval()
        rebuilt.load_state_dict(network.state_dict())
        assert torch.equal(rebuilt(images), wanted)
        assert describe(rebuilt) == describe(network)


def test_a_quantized_mobilenet_gets_smaller_and_computes_the_same():
    images = _images(16)
    network = _quantized(_trained(tenfold.build("mobilenet_v2_tiny", width=0.25)), images, rescale="constant")
    params = sum(parameter.numel() for parameter in network.parameters())
    removed = _removed(network, images)["removed"]
    assert sum(".expand." in name for name in removed) > 10
    assert sum(parameter.numel() for parameter in network.parameters()) < params * 0.8
    layers = dict(quantized_layers(network))
    assert all(len(layers[name].w_bits) == len(layers[name].weight) for name in removed)
    for name, layer in layers.items():
        codes = layer.integer_weight()
        rows = codes.scale.view(-1, *[1] * (codes.codes.dim() - 1))
        torch.testing.assert_close(codes.codes * rows, layer.effective_weight().detach(), msg=name)


def test_a_network_of_timm_gets_smaller_and_computes_the_same():
    network = _trained(tenfold.build("timm:mobilenetv3_small_050"))
    for name, layer in quantizable_layers(network).items():
        if not name.startswith("classifier"):
            with torch.no_grad():
                layer.weight[torch.rand(len(layer.weight)) < 0.4] = 0
    description = _removed(network, _images(32), tolerance=1e-4)
    removed = description["removed"]
    assert "blocks.1.0.conv_pw" in removed
    assert "blocks.2.0.conv_pw" not in removed  # its channels meet the gate of squeeze-and-excite
    assert "blocks.2.0.se.conv_reduce" in removed


@pytest.mark.parametrize(("scheme", "official"), [("original", False), ("modified", True)])
@pytest.mark.parametrize(("clamp", "per_channel"), [(True, False), (True, True), (False, True), (False, False)])
def test_remaining_weights_keep_their_values_whatever_the_quantizer(scheme, clamp, per_channel, official):
    network = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    network = _trained(nn.Sequential(*network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    options = {"clamp": clamp, "per_channel": per_channel, "rescale": "constant", "rescale_in_eval": not official}
    common = {"scheme": scheme, **options}
    with torch.no_grad():
        network[0].weight[1, 0, 0, 0] = 4.0  # the maxima are among what goes
        network[3].weight[:, 1] = torch.arange(3.0, 7.0).view(4, 1, 1)
        network[3].bias.add_(1)
    schemes = {
        "0": LayerScheme(w_bits=(4, 0, 3, 0, 2, 5), a_bits=8, **common),
        "3": LayerScheme(w_bits=(3, 3, 0, 4), a_bits=(4, 4, 0, 2, 3, 4), **common),
        "6": LayerScheme(w_bits=4, a_bits=4, **{**common, "rescale": "stddev"}),
    }
    network = quantize(network, schemes)
    weights = {name: layer.effective_weight().detach() for name, layer in quantized_layers(network)}
    description = _removed(network, _images())
    assert description["removed"] == {"0": [1, 3], "3": [2]}
    kept = [0, 2, 4, 5]
    assert torch.equal(network[0].effective_weight(), weights["0"][kept])
    assert torch.equal(network[3].effective_weight(), weights["3"][[0, 1, 3]][:, kept])
    assert torch.equal(network[6].effective_weight(), weights["6"][:, [0, 1, 3]])
    assert (network[3].w_bits, network[3].a_bits) == ((3, 3, 4), (4, 0, 3, 4))
    for _, layer in quantized_layers(network):
        integers = layer.integer_weight()
        scale = integers.scale.view(-1, *[1] * (layer.weight.dim() - 1))
        torch.testing.assert_close(integers.codes * scale, layer.effective_weight())


def test_a_second_removal_keeps_what_the_first_kept():
    network = quantize(_chain(padding=0), {name: LayerScheme(w_bits=4, a_bits=8, rescale="stddev") for name in "03"})
    original = copy.deepcopy(network)
    images, descriptions = _images(), []
    for bits in ((4, 0, 3, 0, 2, 5), (0, 3, 4, 4)):
        network[0].use_scheme(LayerScheme(w_bits=bits, a_bits=8, rescale="stddev"))
        descriptions.append(_removed(network, images))
    assert [one["removed"] for one in descriptions] == [{"0": [1, 3]}, {"0": [0]}]
    fresh = quantize(_chain(padding=0), describe(network))
    for description in descriptions:
        cut_channels(fresh, description)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh.eval()(images), network(images))
    assert original[0].weight.shape[0] == 6


def test_a_pinned_weight_is_trained_as_before():
    quantizer = WeightQuantizer(LayerScheme(w_bits=3, a_bits=8, rescale="constant"))
    whole, kept = torch.randn(6, 4, 3, 3), [0, 1, 3, 4, 5]
    whole[2, 1, 0, 0] = 5.0
    rest, upstream = whole[kept].requires_grad_(), torch.randn(5, 4, 3, 3)
    whole.requires_grad_()
    quantized = quantizer(whole)
    quantized[kept].backward(upstream)
    factor = quantizer.factor(quantized, whole)
    quantizer.pin(whole, factor.reshape(1))
    again = quantizer(rest)
    again.backward(upstream)
    assert torch.equal(again, quantized[kept])
    torch.testing.assert_close(rest.grad, whole.grad[kept])
    assert quantizer.factor(again, rest) == factor
    alone, rest.grad = rest.grad, None
    with quantizer.sharing_normalization(rest):  # as AdaBits trains
        shared = quantizer(rest)
        shared.backward(upstream)
    torch.testing.assert_close(shared, again)
    torch.testing.assert_close(rest.grad, alone)


def test_networks_of_several_widths_lose_what_is_zero_at_all_of_them():
    network = _chain(padding=0)
    scheme = LayerScheme(w_bits=8, a_bits=8, scheme="modified", rescale="constant")
    quantize(network, dict.fromkeys("03", scheme))
    widths = [(8, 8), (4, 4), (2, 2)]
    make_switchable(network, widths, {"0": [(8, 8)] * 3, "3": widths}, norms="statistics")
    _kill(network, **{"0": [0, 2, 4]})
    with torch.no_grad():
        for choice in network[1].choices:
            choice.bias[[0, 2, 4]] = -1.0
            choice.running_mean.normal_()
            choice.running_mean[[0, 2, 4]] = 0.0
        network[1].choices[1].running_mean[2] = -5.0  # positive at the second width only
    assert channel_paths(network, _images())["0"].norm == "1"
    switch, before = network[1].switch, []
    for switch.position in range(3):
        before.append(network(_images()))
    description = remove_channels(network, _images(), pruned_kernels(network))
    assert description["removed"] == {"0": [0, 4]}
    assert switch.position == 2
    for switch.position in range(3):
        torch.testing.assert_close(network(_images()), before[switch.position], atol=1e-6, rtol=1e-6)
    assert all(choice.num_features == 4 for choice in network[1].choices)
    assert network[1].choices[0].weight is network[1].choices[2].weight


def test_mistakes_are_said_and_leave_the_network_as_it_was():
    network = _kill(_chain(), **{"0": [1]})
    with pytest.raises(UsageError, match=r"kernels \[2\] of layer '0' are not zero"):
        remove_channels(network, _images(), {"0": [1, 2]})
    with pytest.raises(UnknownNameError, match="unknown layer 'stem'"):
        remove_channels(network, _images(), {"stem": [1]})
    quantize(network, {"0": LayerScheme(w_bits=4, a_bits=4)})
    network[0].weight_quantizer.policy = FractionalBits([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], low=0)
    with pytest.raises(UsageError, match=r"still learned.*fix_bits"):
        remove_channels(network, _images(), {"0": [0]})
    assert network[0].weight.shape[0] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"removed": {"9": [0]}}, "damaged"),
        ({"removed": [1]}, "damaged"),
        ({"removed": {"0": [7]}}, "6 channels"),
        ({"removed": {"0": list(range(6))}}, "6 channels"),
        ({"consumers": {"0": ["9"]}}, "no layer '9'"),
        ({"consumers": {"0": ["1"]}}, "is a BatchNorm2d here"),
        ({"consumers": {"0": ["0"]}}, "reads 3 channels"),
        ({"through": {"0": ["3"]}}, "no depthwise convolution"),
        ({"through": {"0": ["2"]}}, "a ReLU, is no batch norm of 6 channels"),
        ({"biased": ["5"]}, "no layer '5'"),
    ],
)
def test_a_description_from_outside_is_checked(change, message):
    description = {"removed": {"0": [1]}, "through": {"0": ["1"]}, "consumers": {"0": ["3"]}, "biased": []}
    with pytest.raises(UsageError, match=message):
        cut_channels(_chain(), {**description, **change})
