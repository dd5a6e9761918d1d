"""Feature maps of any convolutional network, by their stride and channels: what segmentation heads build on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.models.classifier import FeatureInfo, FeatureStages, ImageClassifier

_PROBE_SIDE = 256
_LARGEST_STRIDE = 32


class FeatureMaps(nn.Module):
    """A network of another library that gives feature maps.

    Args:
        body: gives its maps as a list, or as a dictionary in the order of `features`.
        features: what it gives, finest first.
    """

    def __init__(self, body: nn.Module, features: Sequence[FeatureInfo]) -> None:
        super().__init__()
        self.body = body
        self.feature_info = list(features)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps (B, channels, H / stride, W / stride) that `feature_info` lists, for images (B, C, H, W)."""
        maps = self.body(x)
        return list(maps.values() if isinstance(maps, dict) else maps)


def feature_maps(network: nn.Module, in_channels: int = 3) -> nn.Module:
    """The part of a classifier that makes feature maps; what classifies is left out.

    Args:
        network: one of ours, or any that torch.fx can trace.
        in_channels: channels of its images.

    Returns:
        A module with an attribute `feature_info`, whose call gives the maps that it lists, finest first. It shares the
        network's parameters.

    Raises:
        UsageError: if no feature maps can be found.
    """
    body = getattr(network, "body", None)
    if isinstance(body, nn.Module) and hasattr(body, "feature_info"):
        return body  # maps of several branches, which no chain of stages gives
    if isinstance(network, ImageClassifier):
        return FeatureStages(network.stages(), network.feature_info)
    return extracted_features(network, in_channels)


def extracted_features(network: nn.Module, in_channels: int) -> nn.Module:
    """As `feature_maps`, by looking where the maps of a network of unknown make change their size."""
    from torchvision.models.feature_extraction import create_feature_extractor

    features = _last_of_each_stride(network, in_channels)
    if len(features) < 2:
        raise UsageError(
            f"{type(network).__name__} gives feature maps of {len(features)} sizes; a segmentation head needs at least "
            "two. Choose a convolutional network, such as mobilenet_v2."
        )
    try:
        body = create_feature_extractor(network, {info.name: info.name for info in features})
    except Exception as error:  # torch.fx raises errors of many kinds
        raise UsageError(
            f"the feature maps of {type(network).__name__} cannot be taken out ({error}). "
            "Choose another network, such as mobilenet_v2."
        ) from error
    return FeatureMaps(body, features)


def _last_of_each_stride(network: nn.Module, in_channels: int) -> list[FeatureInfo]:
    """Run a probe, and note the last module that gives maps of each stride."""
    found: dict[int, FeatureInfo] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3]:
                stride, rest = divmod(_PROBE_SIDE, output.shape[2])
                if not rest and stride <= _LARGEST_STRIDE:
                    found[stride] = FeatureInfo(name, output.shape[1], stride)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, in_channels, _PROBE_SIDE, _PROBE_SIDE))
    finally:
        for handle in hooks:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return [found[stride] for stride in sorted(found)]
