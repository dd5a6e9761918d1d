"""MobileNetV1: depthwise separable convolutions (arXiv 1704.04861).

As in the SAT authors' programs the rectifier is ReLU, where later MobileNets take ReLU6.
"""

from __future__ import annotations

from torch import nn

from tenfold.models.blocks import conv_bn_relu, scale_channels
from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import InChannels, NumClasses, Width
from tenfold.models.registry import register


def separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A 3x3 depthwise convolution and a 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        conv_bn_relu(in_channels, in_channels, kernel=3, stride=stride, groups=in_channels),
        conv_bn_relu(in_channels, out_channels),
    )


# Table 1 of the paper: channels and number of blocks at strides 2, 4, 8, 16 and 32.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))


@register(
    source="MobileNets, arXiv 1704.04861",
    input_shape=(3, 224, 224),
    params=4_231_976,
    macs=568_740_352,
    tags=("imagenet", "mobile"),
)
def mobilenet_v1(*, num_classes: NumClasses = 1000, in_channels: InChannels = 3, width: Width = 1.0) -> ImageClassifier:
    """MobileNetV1, depthwise separable convolutions in one straight line."""
    channels = scale_channels(32, width)
    stages: dict[str, nn.Module] = {"stem": conv_bn_relu(in_channels, channels, kernel=3, stride=2)}
    features = []
    for index, (base, count) in enumerate(_STAGES, start=1):
        blocks = []
        for block in range(count):
            out_channels = scale_channels(base, width)
            blocks.append(separable(channels, out_channels, stride=2 if block == 0 and index > 1 else 1))
            channels = out_channels
        stages[f"stage{index}"] = nn.Sequential(*blocks)
        features.append(FeatureInfo(f"stage{index}", channels, 2**index))
    return ImageClassifier(stages, features, num_classes)
