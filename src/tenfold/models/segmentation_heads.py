"""Heads that turn feature maps into scores for each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.models.blocks import conv_bn_relu
from tenfold.models.classifier import FeatureInfo, initialise


class LightHead(nn.Module):
    """LR-ASPP of MobileNetV3: the coarsest map, weighed by its mean, and one finer map for the outlines.

    The layers are torchvision's.

    Source: arXiv 1905.02244, section 6.4.

    Args:
        features: of the backbone, finest first; two at least.
        num_classes: scores of each pixel.
        stride: of the scores: the finest map of this stride or a larger one is used, but never the coarsest.
        channels: inside of the head.
    """

    def __init__(
        self, features: Sequence[FeatureInfo], num_classes: int, *, stride: int = 8, channels: int = 128
    ) -> None:
        from torchvision.models.segmentation.lraspp import LRASPPHead  # importing torchvision takes a second

        super().__init__()
        finer = features[:-1]
        self._low = next((at for at, info in enumerate(finer) if info.stride >= stride), len(finer) - 1)
        self.layers = LRASPPHead(features[self._low].channels, features[-1].channels, num_classes, channels)
        initialise(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """From the backbone's maps to scores (B, num_classes, H / stride, W / stride)."""
        return self.layers({"low": maps[self._low], "high": maps[-1]})


class MultiResolutionHead(nn.Module):
    """HRNet's: all maps brought to the size of the finest, concatenated, and mixed by 1x1 convolutions.

    Source: arXiv 1908.07919, section 3.2 (HRNetV2); NCP, arXiv 2106.10653, official code (ncp.md section 3).

    Args:
        features: of the backbone, finest first.
        num_classes: scores of each pixel.
        stride: of the scores: finer maps than this are left out.
        channels: between the two convolutions.
    """

    def __init__(
        self, features: Sequence[FeatureInfo], num_classes: int, *, stride: int = 4, channels: int = 128
    ) -> None:
        super().__init__()
        self._first = next((at for at, info in enumerate(features) if info.stride >= stride), len(features) - 1)
        self.mix = conv_bn_relu(sum(info.channels for info in features[self._first :]), channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        initialise(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """From the backbone's maps to scores (B, num_classes, H / stride, W / stride)."""
        finest, *coarser = maps[self._first :]
        size = finest.shape[-2:]
        alike = [F.interpolate(one, size, mode="bilinear", align_corners=False) for one in coarser]
        return self.classifier(self.mix(torch.cat([finest, *alike], 1)))


HEADS = {"lraspp": LightHead, "multires": MultiResolutionHead}
