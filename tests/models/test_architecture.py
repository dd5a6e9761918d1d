import copy

import pytest

from tenfold.errors import ArtifactError, UnknownNameError, UsageError
from tenfold.models import Architecture, build


def test_a_network_carries_its_complete_description():
    network = build("mobilenet_v2", num_classes=5, width=0.5)
    assert network.architecture == Architecture("mobilenet_v2", {"num_classes": 5, "in_channels": 3, "width": 0.5})
    assert copy.deepcopy(network).architecture == network.architecture


def test_options_given_with_an_architecture_take_the_place_of_its_own():
    network = build(Architecture("convnet_tiny", {"num_classes": 5, "in_channels": 3}), num_classes=7)
    assert network.architecture.options == {"num_classes": 7, "in_channels": 3}


def test_a_description_without_options_means_the_defaults():
    description = {"name": "convnet_tiny", "options": {}}
    assert Architecture.from_dict(description).options == {"num_classes": 10, "in_channels": 1}


def test_a_description_never_asks_for_a_download():
    wanted = Architecture("timm:resnet10t", {"pretrained": True})
    assert wanted.to_dict() == {"name": "timm:resnet10t", "options": {}}
    read = Architecture.from_dict({"name": "timm:resnet10t", "options": {"pretrained": True}})
    assert "pretrained" not in read.options
    assert "pretrained" not in build("timm:resnet10t").architecture.options


@pytest.mark.parametrize(
    "description",
    [
        None,
        "mobilenet_v2",
        [],
        {},
        {"name": "mobilenet_v2"},
        {"name": "mobilenet_v2", "options": {}, "code": "import os"},
        {"name": ["mobilenet_v2"], "options": {}},
        {"name": "mobilenet_v2", "options": [1]},
        {"name": "x" * 1000, "options": None},
    ],
)
def test_a_description_of_another_form_is_refused(description):
    with pytest.raises(ArtifactError, match="damaged, or was not written by Tenfold") as caught:
        Architecture.from_dict(description)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "os.system", "options": {}}, "unknown model 'os.system'"),
        ({"name": "timm:hf-hub:someone/network", "options": {}}, "unknown model 'timm:hf-hub:someone/network'"),
        ({"name": "timm:local-dir:/tmp", "options": {}}, "unknown model 'timm:local-dir:/tmp'"),
        ({"name": "mobilenet_v2", "options": {"builder": "x"}}, "option of model 'mobilenet_v2': 'builder'"),
        ({"name": "timm:resnet10t", "options": {"checkpoint_path": "/tmp/x"}}, "'checkpoint_path'"),
        ({"name": "timm:resnet10t", "options": {"pretrained_cfg": {"file": "/tmp/x"}}}, "'pretrained_cfg'"),
        ({"name": "torchvision:resnet18", "options": {"weights": "DEFAULT"}}, "'weights'"),
    ],
)
def test_a_description_can_only_say_what_the_registry_knows(description, message):
    with pytest.raises(UnknownNameError, match=message):
        Architecture.from_dict(description)


def test_a_description_with_an_absurd_value_is_refused():
    with pytest.raises(UsageError, match="num_classes"):
        Architecture.from_dict({"name": "resnet18", "options": {"num_classes": 10**15}})


def test_what_is_no_name_cannot_be_built():
    with pytest.raises(UsageError, match="takes a model's name or an Architecture, not 3"):
        build(3)
