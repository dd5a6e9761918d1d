"""Classification networks of timm and torchvision under `timm:NAME` and `torchvision:NAME`.

Neither library is imported before one of its names is asked for. Only options that describe a network's shape are
passed on, each declared below: a library's other arguments can name files and addresses, and a description that came
with a file must not reach those. For the same reason timm's `hf-hub:` and `local-dir:` names are not known here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from tenfold.errors import DataError, UsageError
from tenfold.models.classifier import FeatureInfo
from tenfold.models.entry import Entry, ModelFacts
from tenfold.models.feature_maps import FeatureMaps, extracted_features
from tenfold.models.options import InChannels, NumClasses

Rate = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Library:
    """A package that brings networks of its own."""

    names: Callable[[str], list[str]]
    """Its names, given the pattern that they will be matched with."""
    entry: Callable[[str], Entry | None]
    """The entry of one of its names; None if it has no such name."""
    features: Callable[[str, int, bool], nn.Module]
    """From (name, in_channels, pretrained) to a network of feature maps, as `tenfold.models.features` describes it."""


def _timm_names(pattern: str) -> list[str]:
    import timm

    return timm.list_models(include_tags=True) if "." in pattern else timm.list_models()


def _timm_entry(name: str) -> Entry | None:
    import timm
    from timm.models import is_model

    if not is_model(name):
        return None
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that this architecture does not have
        return None
    facts = ModelFacts(
        name=f"timm:{name}",
        summary=f"{name} of timm",
        source=str(getattr(published, "paper_ids", None) or "timm"),
        licence=str(getattr(published, "license", None) or "Apache-2.0"),
        input_shape=getattr(published, "input_size", (3, 224, 224)),
        num_classes=getattr(published, "num_classes", 1000),
        params=None,
        macs=None,
        tags=("timm",),
    )
    return Entry(facts, functools.partial(_build_timm, name))


def _build_timm(
    name: str,
    *,
    num_classes: NumClasses | None = None,
    in_channels: InChannels = 3,
    img_size: Annotated[int, Field(ge=8, le=4096)] | None = None,
    drop_rate: Rate | None = None,
    drop_path_rate: Rate | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """A network of timm; None leaves an option to timm, which does not know each of them for every network."""
    import timm
    from timm.models import is_model_pretrained

    if pretrained and not is_model_pretrained(name):
        raise UsageError(f"timm has no pretrained weights for {name!r}. Build it without, or choose another name.")
    options = {
        "num_classes": num_classes,
        "img_size": img_size,
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    given = {option: value for option, value in options.items() if value is not None}
    create = functools.partial(timm.create_model, name, pretrained=pretrained, in_chans=in_channels, **given)
    try:
        return _downloaded(create, f"timm:{name}") if pretrained else create()
    except TypeError as error:
        raise UsageError(f"timm cannot build {name!r} with {given | {'in_channels': in_channels}}: {error}.") from error


def _timm_features(name: str, in_channels: int, pretrained: bool) -> nn.Module:
    """The backbone alone, which timm knows how to cut out."""
    import timm

    create = functools.partial(timm.create_model, name, features_only=True, in_chans=in_channels, pretrained=pretrained)
    try:
        body: Any = _downloaded(create, f"timm:{name}") if pretrained else create()
    except (TypeError, RuntimeError, AttributeError, AssertionError) as error:
        raise UsageError(
            f"timm offers no feature maps of {name!r} ({error}). Choose a convolutional network, such as "
            "timm:mobilenetv3_small_100."
        ) from error
    taps = zip(body.feature_info.channels(), body.feature_info.reduction(), strict=True)
    return FeatureMaps(body, [FeatureInfo(f"map{at}", *tap) for at, tap in enumerate(taps)])


def _torchvision_features(name: str, in_channels: int, pretrained: bool) -> nn.Module:
    return extracted_features(_build_torchvision(name, in_channels=in_channels, pretrained=pretrained), in_channels)


def _torchvision_names(pattern: str) -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


def _torchvision_entry(name: str) -> Entry | None:
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    size = _torchvision_size(name)
    facts = ModelFacts(
        name=f"torchvision:{name}",
        summary=f"{name} of torchvision",
        source="torchvision",
        licence="BSD-3-Clause",
        input_shape=(3, size, size),
        num_classes=len(weights.meta["categories"]),
        params=None,
        macs=None,
        tags=("torchvision",),
    )
    return Entry(facts, functools.partial(_build_torchvision, name))


def _build_torchvision(
    name: str, *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, pretrained: bool = False
) -> nn.Module:
    """A network of torchvision; other numbers of classes than the weights' own get a fresh last layer."""
    from torchvision import models

    if in_channels != 3:
        raise UsageError(
            f"torchvision:{name} takes images of 3 channels only, not in_channels={in_channels}. "
            "Leave the option out, or take the network from timm, whose networks take any number."
        )
    arguments = _torchvision_arguments(name)
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    if pretrained:
        arguments.pop("init_weights", None)
        create = functools.partial(models.get_model, name, weights="DEFAULT", **arguments)
        published = _downloaded(create, f"torchvision:{name}")
        _copy_but_last_layer(published.state_dict(), network)
    return network


def _torchvision_arguments(name: str) -> dict[str, Any]:
    """Arguments that make a fresh network the same in shape and behaviour as the one with torchvision's weights."""
    if name in {"googlenet", "inception_v3"}:
        # Without side classifiers, which would make training return a tuple; init_weights silences a warning.
        return {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": _torchvision_size(name)}
    return {}


def _torchvision_size(name: str) -> int:
    from torchvision import models

    size: int = models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    return size


def _copy_but_last_layer(published: dict[str, Tensor], network: nn.Module) -> None:
    """Load published weights; where the numbers of classes differ, the last layer keeps its fresh ones."""
    state = network.state_dict()
    last = list(state)[-1].rpartition(".")[0] + "."
    fitting = {
        key: value for key, value in published.items() if not key.startswith(last) or value.shape == state[key].shape
    }
    network.load_state_dict(state | fitting)


def _downloaded(create: Callable[[], nn.Module], name: str) -> nn.Module:
    """Call a library's function that may download, and turn whatever goes wrong on the way into one clear error."""
    try:
        return create()
    except TypeError:  # an argument that the network does not take
        raise
    except Exception as error:  # downloaders raise the errors of many packages
        raise DataError(
            f"the pretrained weights of {name} could not be had: {str(error).rstrip('.')}. "
            "They are downloaded on first use: check the connection, or build the network with pretrained=False."
        ) from error


LIBRARIES = {
    "timm": Library(_timm_names, _timm_entry, _timm_features),
    "torchvision": Library(_torchvision_names, _torchvision_entry, _torchvision_features),
}
