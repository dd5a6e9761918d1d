"""A small plain network for small grey images: the model of `make demo` and of fast tests.

Made for showing what quantization saves on few pixels: nearly all of its weights stand in the middle layers, whose bits
a method may choose; the first and the last layer, which usually keep 8 bits, hold half a percent of them.
"""

from __future__ import annotations

from torch import nn

from tenfold.models.blocks import conv_bn_relu
from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register


@register(
    source="ours, after VGG (arXiv 1409.1556) with batch norm",
    input_shape=(1, 8, 8),
    params=278_890,
    macs=3_558_656,
    tags=("digits", "tiny"),
)
def convnet_tiny(*, num_classes: NumClasses = 10, in_channels: InChannels = 1) -> ImageClassifier:
    """Five 3x3 convolutions for grey images of 8x8 to 32x32 pixels."""
    stages: dict[str, nn.Module] = {
        "stem": conv_bn_relu(in_channels, 32, kernel=3),
        "stage1": nn.Sequential(conv_bn_relu(32, 64, kernel=3), conv_bn_relu(64, 64, kernel=3, stride=2)),
        "stage2": nn.Sequential(conv_bn_relu(64, 128, kernel=3), conv_bn_relu(128, 128, kernel=3, stride=2)),
    }
    features = [FeatureInfo("stem", 32, 1), FeatureInfo("stage1", 64, 2), FeatureInfo("stage2", 128, 4)]
    return ImageClassifier(stages, features, num_classes)
