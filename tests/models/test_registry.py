import pytest
import torch
from torch import nn

from tenfold.errors import UnknownNameError, UsageError
from tenfold.models import build, facts, list_models, registry
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register

FACTS = {"source": "a test", "input_shape": (3, 8, 8), "params": 30, "macs": 30}


@pytest.fixture
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {})


def _linear(num_classes, in_channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))


@pytest.mark.usefixtures("empty_registry")
def test_a_registered_function_is_found_and_stays_what_it_was():
    def plain_2(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> nn.Module:
        """One layer.

        More about it.
        """
        return _linear(num_classes, in_channels)

    def plain_10(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> nn.Module:
        return _linear(num_classes, in_channels)

    assert register(**FACTS)(plain_10) is plain_10
    assert register(**FACTS, tags=("tiny",))(plain_2) is plain_2
    assert list_models() == ["plain_2", "plain_10"]
    assert facts("plain_2").summary == "One layer."
    assert facts("plain_2").num_classes == 10
    assert facts("plain_2").tags == ("tiny",)
    assert build("plain_2", num_classes=4)(torch.zeros(1, 3, 8, 8)).shape == (1, 4)


@pytest.mark.usefixtures("empty_registry")
def test_what_cannot_be_registered_says_why():
    def twice(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> nn.Module: ...
    def Loud(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> nn.Module: ...  # noqa: N802
    def fixed(*, num_classes: NumClasses = 10) -> nn.Module: ...
    def positional(depth: int, *, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> nn.Module: ...
    def required(*, depth: int, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> nn.Module: ...

    register(**FACTS)(twice)
    with pytest.raises(UsageError, match="a model named 'twice' is already registered"):
        register(**FACTS)(twice)
    with pytest.raises(UsageError, match="model name 'Loud' may only hold a-z"):
        register(**FACTS)(Loud)
    with pytest.raises(UsageError, match="builder 'fixed' lacks the keyword-only option in_channels"):
        register(**FACTS)(fixed)
    for builder in (positional, required):
        with pytest.raises(UsageError, match="may only have keyword-only options that all have defaults"):
            register(**FACTS)(builder)


def test_lists_take_wildcards_and_sort_numbers_as_numbers():
    names = ["resnet18", "resnet18_cifar", "resnet20_cifar", "resnet34", "resnet50", "resnet56_cifar"]
    assert list_models("resnet*") == names
    assert list_models("nothing*") == []


def test_an_unknown_name_offers_the_nearest_and_the_list():
    with pytest.raises(
        UnknownNameError, match=r"unknown model 'mobilnet_v2'\. Did you mean mobilenet_v2,.*`tenfold mo"
    ):
        build("mobilnet_v2")
    with pytest.raises(UnknownNameError, match=r"`tenfold models` lists all\."):
        facts("zzz")


def test_a_name_that_a_library_has_is_offered_with_its_prefix():
    with pytest.raises(UnknownNameError, match="timm:resnet101"):
        build("resnet101")


def test_an_unknown_option_offers_the_nearest_and_all_that_are_allowed():
    with pytest.raises(
        UnknownNameError, match=r"option of model 'mobilenet_v2': 'widht'\. Did you mean width\? It takes"
    ):
        build("mobilenet_v2", widht=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "wide"}, r"option width='wide': input should be a valid number.*default, 1\.0"),
        ({"width": True}, "option width=True: input should be a valid number"),
        ({"width": 100}, "option width=100: input should be less than or equal to 4"),
        ({"width": float("nan")}, "option width=nan: input should be a plain JSON value"),
        ({"num_classes": 0}, "option num_classes=0: input should be greater than or equal to 1"),
        ({"num_classes": 10.5}, "option num_classes=10.5: input should be a valid integer"),
        ({"num_classes": torch.tensor(10)}, "option num_classes=.*plain JSON value"),
        ({"in_channels": None}, "option in_channels=None: input should be a valid integer"),
        ({"num_classes": 10**12}, "less than or equal to 1000000"),
    ],
)
def test_an_ill_typed_option_is_refused_by_name(options, message):
    with pytest.raises(UsageError, match=message):
        build("mobilenet_v2", **options)


def test_an_integer_will_do_for_a_width():
    assert build("mobilenet_v1", width=1).architecture.options["width"] == 1.0
