"""EfficientNet-Lite0: EfficientNet-B0 made for integers (arXiv 1905.11946, and Google's Lite variant of it).

Against B0: no squeeze-and-excitation, and ReLU6 where that has swish. As in Google's release, strided convolutions pad
like TensorFlow's and batch norm has eps 1e-3, so that the released weights give the released answers. Dropout, 0.2 in
the release, is left out.
"""

from __future__ import annotations

from torch import Tensor, nn

from tenfold.layers.padding import SamePad2d
from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register


def _conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    block = nn.Sequential()
    if stride > 1:
        block.add_module("pad", SamePad2d(kernel, stride))
    padding = 0 if stride > 1 else kernel // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    block.add_module("conv", conv)
    block.add_module("bn", nn.BatchNorm2d(out_channels, eps=1e-3))
    return block


def _conv_relu6(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    block = _conv(in_channels, out_channels, kernel, stride, groups)
    block.add_module("relu", nn.ReLU6(inplace=True))
    return block


class LiteBlock(nn.Module):
    """Expand with 1x1, filter each channel, project with 1x1; add the input where the shapes agree.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: channels in the middle over `in_channels`; with 1 there is no expanding convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = _conv_relu6(in_channels, hidden) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_relu6(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _conv(hidden, out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


# Table 1 of EfficientNet: expansion, channels, blocks, stride, kernel of each stage.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


@register(
    source="EfficientNet, arXiv 1905.11946; Lite variant of tensorflow/tpu",
    input_shape=(3, 224, 224),
    params=4_652_008,
    macs=385_187_552,
    tags=("imagenet", "mobile", "residual"),
)
def efficientnet_lite0(*, num_classes: NumClasses = 1000, in_channels: InChannels = 3) -> ImageClassifier:
    """EfficientNet-Lite0, EfficientNet-B0 without the parts that integers do badly."""
    channels, stride = 32, 2
    stages: dict[str, nn.Module] = {"stem": _conv_relu6(in_channels, channels, kernel=3, stride=2)}
    finest_first: dict[int, FeatureInfo] = {}
    for index, (expansion, out_channels, count, step, kernel) in enumerate(_STAGES):
        blocks = []
        for block in range(count):
            blocks.append(LiteBlock(channels, out_channels, kernel, step if block == 0 else 1, expansion))
            channels = out_channels
        stages[f"stage{index}"] = nn.Sequential(*blocks)
        stride *= step
        finest_first[stride] = FeatureInfo(f"stage{index}", channels, stride)  # the last stage of each stride
    stages["tail"] = _conv_relu6(channels, 1280)
    finest_first[stride] = FeatureInfo("tail", 1280, stride)
    return ImageClassifier(stages, list(finest_first.values()), num_classes)
