import pytest
import timm
import torch
import torchvision

from tenfold.errors import DataError, UnknownNameError, UsageError
from tenfold.models import Architecture, build, facts, list_models


def test_libraries_are_searched_with_their_prefix():
    assert "timm:mobilenetv3_small_050" in list_models("timm:mobilenetv3*")
    assert list_models("torchvision:resnet*") == [f"torchvision:resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    assert "timm:resnet50.a1_in1k" in list_models("timm:resnet50.*")
    assert not any(":" in name for name in list_models("*"))
    with pytest.raises(UnknownNameError, match="unknown model library 'tim'"):
        list_models("tim:*")


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("timm:resnet10t", {"num_classes": 7, "in_channels": 1}, 64),
        ("timm:test_vit", {"num_classes": 7, "img_size": 32, "drop_path_rate": 0.1}, 32),
        ("torchvision:squeezenet1_1", {"num_classes": 7}, 64),
        ("torchvision:googlenet", {"num_classes": 7}, 64),
    ],
)
def test_a_librarys_network_is_built_and_rebuilt(name, options, side):
    network = build(name, **options)
    images = torch.randn(2, options.get("in_channels", 3), side, side)
    assert network.train()(images).shape == (2, 7)
    again = build(Architecture.from_dict(network.architecture.to_dict()))
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))


def test_the_number_of_classes_is_pinned_in_the_description():
    assert build("timm:resnet10t").architecture.options["num_classes"] == 1000


def test_facts_of_a_librarys_network_come_from_the_library():
    declared = facts("timm:inception_v3.tf_in1k")
    assert declared.name == "timm:inception_v3.tf_in1k"
    assert declared.input_shape == (3, 299, 299)
    assert declared.num_classes == 1000
    assert declared.params is None
    assert facts("torchvision:vit_h_14").input_shape == (3, 518, 518)


@pytest.mark.parametrize("name", ["timm:mobilenetv3_smal_100", "timm:resnet50.nope", "torchvision:resnet19", "timm:"])
def test_an_unknown_name_of_a_library_is_refused(name):
    with pytest.raises(UnknownNameError, match=rf"unknown model '{name}'.*lists all"):
        build(name)


def test_torchvisions_networks_refuse_other_channels():
    with pytest.raises(UsageError, match="3 channels only, not in_channels=1"):
        build("torchvision:resnet18", in_channels=1)


def test_an_option_that_one_network_of_timm_does_not_take_is_refused():
    with pytest.raises(UsageError, match=r"timm cannot build 'resnet10t' .*img_size"):
        build("timm:resnet10t", img_size=32)


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match="no pretrained weights for 'efficientnet_b8'"):
        build("timm:efficientnet_b8", pretrained=True)


def test_a_failed_download_says_so(monkeypatch):
    create, get_model = timm.create_model, torchvision.models.get_model

    def offline_timm(name, *, pretrained, **options):
        if pretrained:
            raise ConnectionError("no route to host.")
        return create(name, **options)

    def offline_torchvision(name, *, weights, **options):
        if weights:
            raise ConnectionError("no route to host.")
        return get_model(name, weights=None, **options)

    monkeypatch.setattr(timm, "create_model", offline_timm)
    monkeypatch.setattr(torchvision.models, "get_model", offline_torchvision)
    for name in ("timm:resnet10t", "torchvision:squeezenet1_1"):
        with pytest.raises(DataError, match=f"weights of {name} could not be had: no route to host. They are"):
            build(name, pretrained=True)


@pytest.mark.parametrize("num_classes", [7, 1000])
def test_torchvisions_weights_are_taken_but_for_a_last_layer_of_another_size(monkeypatch, num_classes):
    get_model = torchvision.models.get_model
    published = get_model("squeezenet1_1", weights=None)

    def stored(name, *, weights, **options):
        return published if weights else get_model(name, weights=None, **options)

    monkeypatch.setattr(torchvision.models, "get_model", stored)
    network = build("torchvision:squeezenet1_1", pretrained=True, num_classes=num_classes)
    taken = [key for key, value in network.state_dict().items() if torch.equal(value, published.state_dict()[key])]
    left = set(network.state_dict()) - set(taken)
    assert left == (set() if num_classes == 1000 else {"classifier.1.weight", "classifier.1.bias"})
