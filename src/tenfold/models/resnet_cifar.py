"""ResNets for 32x32 images.

ResNet-20 and ResNet-56 are those of section 4.2 of arXiv 1512.03385: three stages of 16, 32 and 64 channels, and
shortcuts without parameters (option A). `resnet18_cifar` is ResNet-18 with a 3x3 stem of stride 1 and no pooling after
it, a common network for speed comparisons at this size; its shortcuts are projections.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.models.blocks import conv_bn_relu
from tenfold.models.classifier import ImageClassifier
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register
from tenfold.models.resnet import BasicBlock, residual_network


class ZeroPaddedShortcut(nn.Module):
    """Option A: take every `stride`-th pixel, and fill up with channels of zeros, half of them on either side.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: distance of the pixels taken.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ZeroPaddedShortcut(in_channels, out_channels, stride)


def _cifar(depth: int, num_classes: int, in_channels: int) -> ImageClassifier:
    return residual_network(
        BasicBlock,
        stem=conv_bn_relu(in_channels, 16, kernel=3),
        stem_stride=1,
        widths=(16, 32, 64),
        depths=[(depth - 2) // 6] * 3,
        num_classes=num_classes,
        shortcut=_shortcut,
    )


@register(
    source="ResNet, arXiv 1512.03385, section 4.2",
    input_shape=(3, 32, 32),
    params=269_722,
    macs=40_551_040,
    tags=("cifar", "residual", "tiny"),
)
def resnet20_cifar(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> ImageClassifier:
    """ResNet-20 for 32x32 images, nine basic blocks."""
    return _cifar(20, num_classes, in_channels)


@register(
    source="ResNet, arXiv 1512.03385, section 4.2",
    input_shape=(3, 32, 32),
    params=853_018,
    macs=125_485_696,
    tags=("cifar", "residual"),
)
def resnet56_cifar(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> ImageClassifier:
    """ResNet-56 for 32x32 images, 27 basic blocks."""
    return _cifar(56, num_classes, in_channels)


@register(
    source="ResNet, arXiv 1512.03385; with the stem that is usual for small images",
    input_shape=(3, 32, 32),
    params=11_173_962,
    macs=555_422_720,
    tags=("cifar", "residual"),
)
def resnet18_cifar(*, num_classes: NumClasses = 10, in_channels: InChannels = 3) -> ImageClassifier:
    """ResNet-18 for 32x32 images: a 3x3 stem, no pooling after it."""
    return residual_network(
        BasicBlock,
        stem=conv_bn_relu(in_channels, 64, kernel=3),
        stem_stride=1,
        widths=(64, 128, 256, 512),
        depths=(2, 2, 2, 2),
        num_classes=num_classes,
    )
