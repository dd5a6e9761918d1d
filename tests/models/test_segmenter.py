"""Segmentation heads on networks of every make."""

import json

import pytest
import torch
from torch import nn

from tenfold import build, profile
from tenfold.errors import UsageError
from tenfold.models import Architecture, facts, feature_maps, for_pixels

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
OURS = ["mobilenet_v2_tiny", "resnet20_cifar", "preresnet20_cifar", "mobilenet_v1", "atomnas_a", "autonl_s"]
THEIRS = ["timm:mobilenetv3_small_100", "torchvision:resnet18", "torchvision:mobilenet_v2"]


@pytest.mark.parametrize("head", ["lraspp", "multires"])
@pytest.mark.parametrize("network", [*OURS, *THEIRS])
def test_any_classifier_carries_either_head(network, head):
    name, options = for_pixels(network, {"head": head, "num_classes": 5, "head_channels": 16})
    segmenter = build(name, **options).train()
    scores = segmenter(IMAGES)
    assert scores.shape[:2] == (2, 5)
    strides = [info.stride for info in segmenter.backbone.feature_info]
    assert 64 / scores.shape[2] in strides
    scores.square().sum().backward()
    missing = [name for name, parameter in segmenter.named_parameters() if parameter.grad is None]
    assert not missing  # nothing of the classifier is left over
    description = json.loads(json.dumps(segmenter.architecture.to_dict()))
    again = build(Architecture.from_dict(description)).eval()
    again.load_state_dict(segmenter.state_dict())
    with torch.no_grad():
        assert torch.equal(again(IMAGES), segmenter.eval()(IMAGES))


@pytest.mark.parametrize("network", ["mobilenet_v2_tiny", *THEIRS])
def test_feature_maps_are_as_declared(network):
    name, options = for_pixels(network, {})
    backbone = build(name, **options).eval().backbone
    with torch.no_grad():
        maps = backbone(IMAGES)
    assert [tuple(one.shape[1:]) for one in maps] == [
        (info.channels, 64 // info.stride, 96 // info.stride) for info in backbone.feature_info
    ]


def test_the_backbone_computes_what_the_classifier_computes():
    classifier = build("mobilenet_v2_tiny").eval()
    with torch.no_grad():
        for got, wanted in zip(feature_maps(classifier)(IMAGES), classifier.forward_features(IMAGES), strict=True):
            assert torch.equal(got, wanted)


def test_declared_facts_are_true():
    declared = facts("segmenter")
    counted = profile(build("segmenter"), declared.input_shape)
    assert (counted.macs, counted.params) == (declared.macs, declared.params)


def test_the_stride_of_the_scores_can_be_chosen():
    for head, stride in (("lraspp", 4), ("multires", 8)):
        scores = build("segmenter", head=head, stride=stride).eval()(IMAGES)
        assert scores.shape[2:] == (64 // stride, 96 // stride)


def test_options_go_to_the_network_or_to_the_head():
    name, options = for_pixels("mobilenet_v2", {"width": 0.5, "head": "multires", "num_classes": 7})
    assert name == "segmenter"
    assert options == {"head": "multires", "num_classes": 7, "network": "mobilenet_v2", "options": {"width": 0.5}}
    assert for_pixels("segmenter", {"stride": 4}) == ("segmenter", {"stride": 4})
    assert build(name, **options).architecture.title == "segmenter on mobilenet_v2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "segmenter"}, "cannot stand on 'segmenter', which gives a class for each pixel already"),
        ({"network": "timm:resnet18", "options": {"drop_rate": 0.1}}, "takes no options for 'timm:resnet18'"),
        ({"pretrained": True}, "'mobilenet_v2' comes without pretrained weights"),
        ({"head": "aspp"}, "cannot take option head='aspp'"),
        ({"network": "mobilenet_v3"}, "unknown model 'mobilenet_v3'"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        build("segmenter", **options)


def test_a_network_without_maps_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(4 * 128 * 128, 2))
    with pytest.raises(UsageError, match=r"Sequential gives feature maps of 1 sizes; .* needs at least two"):
        feature_maps(network)
