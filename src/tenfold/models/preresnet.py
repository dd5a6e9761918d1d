"""Pre-activation ResNet: batch norm and ReLU before each convolution (arXiv 1603.05027).

The last convolution of each block and the projections end in the running sum and not in a batch norm, so scale-adjusted
training has to rescale the convolutions here. All blocks are alike, the first included; a projection reads its block's
normalised input. Convolutions and their costs are those of the post-activation networks.

Behind the stem stands a batch norm, as in the authors' Torch code for ImageNet. `stem_norm=False` leaves it out, as
other codes do; the stem then writes into the running sum as it is, and raw pixels of 0 to 255 drown the blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register


def bn_relu_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Batch norm, ReLU, and a convolution without bias: children `bn`, `relu` and `conv`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(in_channels), relu=nn.ReLU(inplace=True), conv=conv))


class PreActivationBlock(nn.Module):
    """Normalise, then a residual branch of convolutions and a shortcut that nothing stands on.

    Args:
        in_channels: channels of the input.
        channels: channels of the branch; a bottleneck's output has four times as many.
        stride: of the 3x3 convolution that changes the size.
        is_bottleneck: 1x1, 3x3, 1x1 instead of 3x3, 3x3.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        out_channels = channels * 4 if is_bottleneck else channels
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        if is_bottleneck:
            self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
            self.conv2 = bn_relu_conv(channels, channels, 3, stride)
            self.conv3: nn.Module = bn_relu_conv(channels, out_channels, 1)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
            self.conv2 = bn_relu_conv(channels, out_channels, 3)
            self.conv3 = nn.Identity()
        same_shape = stride == 1 and in_channels == out_channels
        self.projection = None if same_shape else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        normal = self.relu(self.bn(x))
        shortcut = x if self.projection is None else self.projection(normal)
        return self.conv3(self.conv2(self.conv1(normal))) + shortcut


def pre_activation_network(
    *,
    stem: nn.Module,
    stem_stride: int,
    widths: Sequence[int],
    depths: Sequence[int],
    is_bottleneck: bool,
    num_classes: int,
) -> ImageClassifier:
    """Stages of pre-activation blocks behind a stem, and the batch norm and ReLU that the last block lacks.

    Args:
        stem: turns the image into `widths[0]` channels.
        stem_stride: stride of the stem.
        widths: channels of each stage, before a bottleneck's expansion.
        depths: number of blocks of each stage; each stage but the first halves the image.
        is_bottleneck: kind of block.
        num_classes: outputs of the classifier.
    """
    stages: dict[str, nn.Module] = {"stem": stem}
    features = []
    channels, stride = widths[0], stem_stride
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        blocks = []
        for position in range(depth):
            step = 2 if position == 0 and index > 1 else 1
            blocks.append(PreActivationBlock(channels, width, step, is_bottleneck))
            channels, stride = width * 4 if is_bottleneck else width, stride * step
        stages[f"stage{index}"] = nn.Sequential(*blocks)
        features.append(FeatureInfo(f"stage{index}", channels, stride))
    stages["tail"] = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=False)))
    features[-1] = FeatureInfo("tail", channels, stride)
    return ImageClassifier(stages, features, num_classes)


def _stem(in_channels: int, channels: int, kernel: int, stride: int, norm: bool) -> nn.Sequential:
    stem = nn.Sequential()
    stem.add_module("conv", nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False))
    if norm:
        stem.add_module("bn", nn.BatchNorm2d(channels))
        stem.add_module("relu", nn.ReLU(inplace=True))
    return stem


def _imagenet(
    depths: Sequence[int], is_bottleneck: bool, num_classes: int, in_channels: int, stem_norm: bool
) -> ImageClassifier:
    stem = _stem(in_channels, 64, kernel=7, stride=2, norm=stem_norm)
    stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    return pre_activation_network(
        stem=stem,
        stem_stride=4,
        widths=(64, 128, 256, 512),
        depths=depths,
        is_bottleneck=is_bottleneck,
        num_classes=num_classes,
    )


@register(
    source="pre-activation ResNet, arXiv 1603.05027",
    input_shape=(3, 224, 224),
    params=11_687_848,
    macs=1_814_073_344,
    tags=("imagenet", "residual"),
)
def preresnet18(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, stem_norm: bool = True
) -> ImageClassifier:
    """Pre-activation ResNet-18, eight basic blocks."""
    return _imagenet((2, 2, 2, 2), False, num_classes, in_channels, stem_norm)


@register(
    source="pre-activation ResNet, arXiv 1603.05027",
    input_shape=(3, 224, 224),
    params=25_549_480,
    macs=4_089_184_256,
    tags=("imagenet", "residual"),
)
def preresnet50(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, stem_norm: bool = True
) -> ImageClassifier:
    """Pre-activation ResNet-50, sixteen bottleneck blocks."""
    return _imagenet((3, 4, 6, 3), True, num_classes, in_channels, stem_norm)


@register(
    source="pre-activation ResNet, arXiv 1603.05027",
    input_shape=(3, 32, 32),
    params=272_314,
    macs=40_813_184,
    tags=("cifar", "residual", "tiny"),
)
def preresnet20_cifar(
    *, num_classes: NumClasses = 10, in_channels: InChannels = 3, stem_norm: bool = True
) -> ImageClassifier:
    """Pre-activation ResNet-20 for 32x32 images, with projections where the shape changes."""
    return pre_activation_network(
        stem=_stem(in_channels, 16, kernel=3, stride=1, norm=stem_norm),
        stem_stride=1,
        widths=(16, 32, 64),
        depths=(3, 3, 3),
        is_bottleneck=False,
        num_classes=num_classes,
    )
