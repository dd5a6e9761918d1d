"""The families against the published tables and against independent implementations of the same networks."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from tenfold.layers.padding import SamePad2d
from tenfold.models import build, load_by_position
from tenfold.models.blocks import scale_channels
from tenfold.models.resnet_cifar import ZeroPaddedShortcut


def _randomise(network):
    """Norms with statistics and factors unlike 0 and 1, so that swapped ones would show."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(std=fan_in**-0.5, generator=generator)
    return network.eval()


def _assert_same_answers(ours, theirs, side=64):
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 0
        torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def _linear_weights(network):
    return sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))


# sat.md section 6.4: weights of convolutions and linear layers, without norms and biases.
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mobilenet_v1", 4_209_088),
        ("mobilenet_v2", 3_469_760),
        ("resnet18", 11_678_912),
        ("preresnet18", 11_678_912),
        ("resnet50", 25_502_912),
        ("preresnet50", 25_502_912),
    ],
)
def test_weights_equal_the_published_table(name, weights):
    assert _linear_weights(build(name)) == weights


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnets_answer_as_torchvisions(name):
    theirs = _randomise(torchvision.models.get_model(name))
    ours = build(name)
    load_by_position(ours, theirs.state_dict())
    _assert_same_answers(ours, theirs)


def test_resnet18_cifar_is_resnet18_with_another_stem():
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    ours = build("resnet18_cifar")
    load_by_position(ours, _randomise(theirs).state_dict())
    _assert_same_answers(ours, theirs, side=32)


def test_mobilenet_v1_answers_as_timms_with_relu():
    theirs = _randomise(timm.create_model("mobilenetv1_100", act_layer=nn.ReLU))
    ours = build("mobilenet_v1")
    load_by_position(ours, theirs.state_dict())
    _assert_same_answers(ours, theirs)


def test_mobilenet_v2_answers_as_timms_with_relu():
    theirs = _randomise(timm.create_model("mobilenetv2_100", act_layer=nn.ReLU))
    ours = build("mobilenet_v2")
    load_by_position(ours, theirs.state_dict())
    _assert_same_answers(ours, theirs)


@pytest.mark.parametrize("side", [64, 75])  # at an odd size, SAME padding is another
def test_efficientnet_lite0_answers_as_timms(side):
    theirs = _randomise(timm.create_model("tf_efficientnet_lite0"))
    ours = build("efficientnet_lite0")
    load_by_position(ours, theirs.state_dict())
    _assert_same_answers(ours, theirs, side)


@pytest.mark.parametrize(("name", "reference"), [("preresnet18", "resnetv2_18"), ("preresnet50", "resnetv2_50")])
def test_preresnets_answer_as_timms(name, reference):
    theirs = _randomise(timm.create_model(reference))
    with torch.no_grad():  # timm's head is a 1x1 convolution
        theirs.head.fc.bias.normal_()
    names = {
        "stem.conv.": "stem.conv.",
        "norm.": "tail.bn.",
        "head.fc.": "classifier.",
    }
    parts = {
        "norm1.": "bn.",
        "conv1.": "conv1.",
        "norm2.": "conv2.bn.",
        "conv2.": "conv2.conv.",
        "norm3.": "conv3.bn.",
        "conv3.": "conv3.conv.",
        "downsample.conv.": "projection.",
    }
    state = {}
    for key, value in theirs.state_dict().items():
        if key.startswith("stages."):
            _, stage, _, block, rest = key.split(".", 4)
            prefix, new, old_names = f"stage{int(stage) + 1}.{block}.", rest, parts
        else:
            prefix, new, old_names = "", key, names
        old = next(old for old in old_names if new.startswith(old))
        state[prefix + old_names[old] + new.removeprefix(old)] = value
    ours = build(name, stem_norm=False)
    state = {key: value.reshape(ours.state_dict()[key].shape) for key, value in state.items()}
    ours.load_state_dict(state)
    _assert_same_answers(ours, theirs)


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.4])
def test_mobilenet_v2_has_torchvisions_shapes_at_every_width(width):
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2(width_mult=width).state_dict()
        ours = build("mobilenet_v2", width=width).state_dict()
    assert [t.shape for t in ours.values()] == [t.shape for t in theirs.values()]


# Tables 6 and 7 of arXiv 1704.04861 (millions of parameters, as printed there).
@pytest.mark.parametrize(("width", "millions"), [(1.0, 4.2), (0.75, 2.6), (0.5, 1.3), (0.25, 0.5)])
def test_mobilenet_v1_has_the_papers_size_at_every_width(width, millions):
    params = sum(p.numel() for p in build("mobilenet_v1", width=width).parameters())
    assert round(params / 1e6, 1) == millions


# Section 4.2 of arXiv 1512.03385, table 6: 0.27 and 0.85 million parameters.
@pytest.mark.parametrize(("name", "millions"), [("resnet20_cifar", 0.27), ("resnet56_cifar", 0.85)])
def test_cifar_resnets_have_the_papers_size(name, millions):
    assert round(sum(p.numel() for p in build(name).parameters()) / 1e6, 2) == millions


def test_zero_padded_shortcut_takes_every_second_pixel_and_adds_channels():
    x = torch.arange(2 * 16.0).reshape(1, 2, 4, 4)
    y = ZeroPaddedShortcut(2, 4, stride=2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, 1].tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert y[0, 2].tolist() == [[16.0, 18.0], [24.0, 26.0]]
    assert y[0, 0].abs().sum() == y[0, 3].abs().sum() == 0


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_same_padding_gives_the_size_rounded_up_and_the_larger_half_behind(size, kernel):
    padded = SamePad2d(kernel, 2)(torch.ones(1, 1, size, size))
    assert (padded.shape[2] - kernel) // 2 + 1 == math.ceil(size / 2)
    row = padded[0, 0, padded.shape[2] // 2]
    before, after = int(row.argmax()), int(row.flip(0).argmax())
    assert after - before in (0, 1)


def test_scaled_channels_are_multiples_of_eight_and_lose_a_tenth_at_most():
    for channels in (16, 24, 32, 96, 160, 320, 1280):
        for percent in range(10, 200, 5):
            scaled = scale_channels(channels, percent / 100)
            assert scaled % 8 == 0
            assert scaled >= max(8, 0.9 * channels * percent / 100)


def test_fresh_weights_have_the_specified_spread():
    torch.manual_seed(0)
    network = build("mobilenet_v1")
    depthwise = network.stage5[1][0].conv.weight
    pointwise = network.stage5[1][1].conv.weight
    assert depthwise.std().item() == pytest.approx(math.sqrt(2 / (9 * 1024)), rel=0.05)
    assert pointwise.std().item() == pytest.approx(math.sqrt(2 / 1024), rel=0.05)
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert network.classifier.bias.abs().max() == 0


def test_the_demo_network_keeps_its_weights_where_bits_can_be_chosen():
    network = build("convnet_tiny")
    outer = network.stem.conv.weight.numel() + network.classifier.weight.numel()
    assert 150_000 < _linear_weights(network) < 300_000
    assert outer < 0.01 * _linear_weights(network)


def test_the_demo_network_takes_grey_images_up_to_28_pixels():
    network = build("convnet_tiny").eval()
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
