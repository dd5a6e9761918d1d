"""The frame that the house's image classifiers share: named stages, average pooling, one linear layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class FeatureInfo(NamedTuple):
    """One feature map that a network offers to those who build on it, such as a detector."""

    name: str
    """Child of the network whose output it is."""
    channels: int
    """Size of its dimension 1."""
    stride: int
    """Pixels of the image to one pixel of the map, along each side."""


class FeatureStages(nn.Module):
    """Stages one after another, whose feature maps others build on.

    Args:
        stages: name and module of each stage, in the order of computation; they become children of the network.
        features: the feature maps it offers, finest first.
    """

    def __init__(self, stages: Mapping[str, nn.Module], features: Sequence[FeatureInfo]) -> None:
        super().__init__()
        self.feature_info = list(features)
        self._stage_names = list(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)

    def stages(self) -> dict[str, nn.Module]:
        """Name and module of each stage, in the order of computation."""
        return {name: self.get_submodule(name) for name in self._stage_names}

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Compute the feature maps that `feature_info` lists, for images of shape (B, C, H, W).

        Returns:
            One map (B, channels, H / stride, W / stride) for each item of `feature_info`, rounded up where the image's
            sides are no multiples of the stride.
        """
        tapped = {info.name for info in self.feature_info}
        maps = []
        for name in self._stage_names:
            x = self.get_submodule(name)(x)
            if name in tapped:
                maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Any:
        """The feature maps, as `forward_features` gives them."""
        return self.forward_features(x)


class ImageClassifier(FeatureStages):
    """Stages one after another, global average pooling, and a linear classifier.

    Weights start as `initialise` says.

    Args:
        stages: see `FeatureStages`.
        features: see `FeatureStages`; the last map is what is pooled and classified.
        num_classes: outputs of the classifier.
        pool: averages the last map; None for one whose additions are not counted, as in most tables.
        dropout: share of the pooled features that are dropped while training.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        features: Sequence[FeatureInfo],
        num_classes: int,
        *,
        pool: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(stages, features)
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = nn.Linear(features[-1].channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W)."""
        x = self.pool(self.forward_features(x)[-1])  # (B, C, 1, 1)
        return self.classifier(self.dropout(self.flatten(x)))


def initialise(network: nn.Module) -> None:
    """Draw fresh weights as the SAT authors' programs do.

    Convolutions are normal with standard deviation sqrt(2 / (k_h k_w C_out)), whatever their groups; linear layers are
    normal with 0.01; biases are 0, batch norms 1 and 0.

    Source: arXiv 1912.10207, official configurations (sat.md section 4).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        else:
            continue
        if not isinstance(module, nn.BatchNorm2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


def initialise_mnas(network: nn.Module) -> None:
    """Draw fresh weights as the authors of AtomNAS and AutoNL do.

    Convolutions are normal with standard deviation sqrt(2 / fan_out), where a depthwise one counts its own kernel only;
    linear layers are uniform within 1 / sqrt(outputs); biases are 0, batch norms 1 and 0.

    Source: arXiv 1912.09640, official code (atomnas.md section 6).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
