"""ResNet: residual blocks with the rectifier after the sum (arXiv 1512.03385).

The bottleneck has its stride in the 3x3 convolution, as later implementations and the SAT authors' costs have it; the
paper had it in the first 1x1. Shortcuts that change the shape are projections (option B).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tenfold.models.blocks import conv_bn, conv_bn_relu
from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; ReLU after the sum with the shortcut.

    Args:
        in_channels: channels of the input.
        channels: channels of both convolutions.
        stride: of the first convolution.
        shortcut: brings the input to the shape of the output.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels, channels, kernel=3, stride=stride)
        self.conv2 = conv_bn(channels, channels, kernel=3)
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the channels; ReLU after the sum with the shortcut.

    Args:
        in_channels: channels of the input.
        channels: channels of the narrow middle; the output has four times as many.
        stride: of the 3x3 convolution.
        shortcut: brings the input to the shape of the output.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels, channels)
        self.conv2 = conv_bn_relu(channels, channels, kernel=3, stride=stride)
        self.conv3 = conv_bn(channels, channels * self.expansion)
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        return self.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B: a strided 1x1 convolution with batch norm where the shape changes, else nothing."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, stride=stride)


def residual_network(
    block: type[BasicBlock] | type[Bottleneck],
    *,
    stem: nn.Module,
    stem_stride: int,
    widths: Sequence[int],
    depths: Sequence[int],
    num_classes: int,
    shortcut: Callable[[int, int, int], nn.Module] = projection,
) -> ImageClassifier:
    """Stages of residual blocks behind a stem; each stage but the first halves the image.

    Args:
        block: kind of block.
        stem: turns the image into `widths[0]` channels.
        stem_stride: stride of the stem.
        widths: channels of each stage, before the block's expansion.
        depths: number of blocks of each stage.
        num_classes: outputs of the classifier.
        shortcut: makes the shortcut of a block from (in_channels, out_channels, stride).
    """
    stages: dict[str, nn.Module] = {"stem": stem}
    features = []
    channels, stride = widths[0], stem_stride
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        blocks = []
        for position in range(depth):
            step = 2 if position == 0 and index > 1 else 1
            out_channels = width * block.expansion
            blocks.append(block(channels, width, step, shortcut(channels, out_channels, step)))
            channels, stride = out_channels, stride * step
        stages[f"stage{index}"] = nn.Sequential(*blocks)
        features.append(FeatureInfo(f"stage{index}", channels, stride))
    return ImageClassifier(stages, features, num_classes)


def _imagenet(
    block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], num_classes: int, in_channels: int
) -> ImageClassifier:
    stem = conv_bn_relu(in_channels, 64, kernel=7, stride=2)
    stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    return residual_network(
        block, stem=stem, stem_stride=4, widths=(64, 128, 256, 512), depths=depths, num_classes=num_classes
    )


@register(
    source="ResNet, arXiv 1512.03385",
    input_shape=(3, 224, 224),
    params=11_689_512,
    macs=1_814_073_344,
    tags=("imagenet", "residual"),
)
def resnet18(*, num_classes: NumClasses = 1000, in_channels: InChannels = 3) -> ImageClassifier:
    """ResNet-18, eight basic blocks."""
    return _imagenet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels)


@register(
    source="ResNet, arXiv 1512.03385",
    input_shape=(3, 224, 224),
    params=21_797_672,
    macs=3_663_761_408,
    tags=("imagenet", "residual"),
)
def resnet34(*, num_classes: NumClasses = 1000, in_channels: InChannels = 3) -> ImageClassifier:
    """ResNet-34, sixteen basic blocks."""
    return _imagenet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels)


@register(
    source="ResNet, arXiv 1512.03385",
    input_shape=(3, 224, 224),
    params=25_557_032,
    macs=4_089_184_256,
    tags=("imagenet", "residual"),
)
def resnet50(*, num_classes: NumClasses = 1000, in_channels: InChannels = 3) -> ImageClassifier:
    """ResNet-50, sixteen bottleneck blocks with the stride in the 3x3 convolution."""
    return _imagenet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels)
