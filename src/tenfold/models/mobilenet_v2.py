"""MobileNetV2: inverted residuals with linear bottlenecks (arXiv 1801.04381).

As in the SAT authors' programs the rectifier is ReLU, where the paper takes ReLU6, and the tail keeps its 1280 channels
when the width multiplier is below 1 (the paper's own rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from tenfold.models.blocks import conv_bn, conv_bn_relu, scale_channels
from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import InChannels, NumClasses, Width
from tenfold.models.registry import register


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter each channel with 3x3, project with 1x1; add the input where the shapes agree.

    Args:
        in_channels: channels of the input, a linear bottleneck.
        out_channels: channels of the output, another one.
        stride: of the depthwise convolution.
        expansion: channels in the middle over `in_channels`; with 1 there is no expanding convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = conv_bn_relu(in_channels, hidden) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn_relu(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = conv_bn(hidden, out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class _Stage(NamedTuple):
    expansion: int
    channels: int
    blocks: int
    stride: int  # of the first block; the others have 1


def _mobilenet_v2(
    table: Sequence[_Stage], *, stem_stride: int, tail_channels: int, num_classes: int, in_channels: int, width: float
) -> ImageClassifier:
    channels, stride = scale_channels(32, width), stem_stride
    stages: dict[str, nn.Module] = {"stem": conv_bn_relu(in_channels, channels, kernel=3, stride=stem_stride)}
    finest_first: dict[int, FeatureInfo] = {}
    for index, stage in enumerate(table):
        blocks = []
        for block in range(stage.blocks):
            out_channels = scale_channels(stage.channels, width)
            blocks.append(InvertedResidual(channels, out_channels, stage.stride if block == 0 else 1, stage.expansion))
            channels = out_channels
        stages[f"stage{index}"] = nn.Sequential(*blocks)
        stride *= stage.stride
        finest_first[stride] = FeatureInfo(f"stage{index}", channels, stride)  # the last stage of each stride
    stages["tail"] = conv_bn_relu(channels, tail_channels)
    finest_first[stride] = FeatureInfo("tail", tail_channels, stride)
    return ImageClassifier(stages, list(finest_first.values()), num_classes)


# Table 2 of the paper.
_IMAGENET = (
    _Stage(1, 16, 1, 1),
    _Stage(6, 24, 2, 2),
    _Stage(6, 32, 3, 2),
    _Stage(6, 64, 4, 2),
    _Stage(6, 96, 3, 1),
    _Stage(6, 160, 3, 2),
    _Stage(6, 320, 1, 1),
)

# For 32x32 images: a quarter of the total stride, and less of what is wide.
_TINY = (
    _Stage(1, 16, 1, 1),
    _Stage(6, 24, 2, 1),
    _Stage(6, 32, 2, 2),
    _Stage(6, 64, 3, 2),
    _Stage(6, 96, 2, 1),
    _Stage(6, 160, 3, 2),
)


@register(
    source="MobileNetV2, arXiv 1801.04381",
    input_shape=(3, 224, 224),
    params=3_504_872,
    macs=300_774_272,
    tags=("imagenet", "mobile", "residual"),
)
def mobilenet_v2(*, num_classes: NumClasses = 1000, in_channels: InChannels = 3, width: Width = 1.0) -> ImageClassifier:
    """MobileNetV2, inverted residuals with linear bottlenecks."""
    return _mobilenet_v2(
        _IMAGENET,
        stem_stride=2,
        tail_channels=scale_channels(1280, max(1.0, width)),
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
    )


@register(
    source="after MobileNetV2, arXiv 1801.04381; cut down by us for small images",
    input_shape=(3, 32, 32),
    params=366_762,
    macs=19_752_704,
    tags=("cifar", "mobile", "residual", "tiny"),
)
def mobilenet_v2_tiny(
    *, num_classes: NumClasses = 10, in_channels: InChannels = 3, width: Width = 0.5
) -> ImageClassifier:
    """MobileNetV2 of half the width and a quarter of the total stride, for 32x32 images on a CPU."""
    return _mobilenet_v2(
        _TINY,
        stem_stride=1,
        tail_channels=scale_channels(1280, width),
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
    )
