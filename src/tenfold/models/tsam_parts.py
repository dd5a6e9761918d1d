"""The parts of TSAM: residual blocks and gated convolutions that see the neighbouring frames (arXiv 2104.03507)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.layers.gated import GatedConv2d
from tenfold.models.blocks import conv_bn, conv_bn_relu

CHANNELS = 5
"""Of the input: three colours, what is known, what was copied."""
_ENCODER_DIVISOR, _DECODER_DIVISOR = 8, 4
_SLOPE = 0.2


class Clock(Protocol):
    """What gives a layer its neighbours in time: `WholeClip`, or `ClipStream` frame by frame."""

    def shift(self, layer: nn.Module, x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
        """See WholeClip."""

    def meet(self, layer: nn.Module, *maps: Tensor) -> tuple[Tensor, ...]:
        """See WholeClip."""


class ShiftedBottleneck(nn.Module):
    """A residual block whose first 1x1 convolution is gated and sees the shifted map.

    Args:
        in_channels: of the input.
        planes: channels of the narrow middle; the output has four times as many.
        stride: of the 3x3 convolution.
        dilation: of the 3x3 convolution.
        project: whether the shortcut is a 1x1 convolution with batch norm.
    """

    def __init__(self, in_channels: int, planes: int, *, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.conv1 = GatedConv2d(in_channels, planes, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = conv_bn_relu(planes, planes, 3, stride)
        self.conv2.conv.dilation = self.conv2.conv.padding = (dilation, dilation)  # type: ignore[union-attr]
        self.conv3 = conv_bn(planes, 4 * planes)
        self.shortcut = conv_bn(in_channels, 4 * planes, stride=stride) if project else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, clock: Clock) -> Tensor:
        """(N, in_channels, H, W) to (M, 4 * planes, H / stride, W / stride), of frames whose neighbours are there."""
        shifted, x = clock.shift(self, x, _ENCODER_DIVISOR)
        return self.relu(self.conv3(self.conv2(self.relu1(self.bn1(self.conv1(shifted))))) + self.shortcut(x))


class Encoder(nn.Module):
    """A dilated residual network; four maps, of stride 4, 8, 8 and 8.

    Args:
        stem: channels and kernel of the first convolution.
        planes: of the first stage; each further one has twice as many.
        blocks: of each stage.
    """

    def __init__(self, stem: tuple[int, int], planes: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = conv_bn_relu(CHANNELS, stem[0], stem[1], 2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        channels = stem[0]
        # The first block of a stage still has the dilation of the stage before.
        for stage, (first, others) in enumerate(((1, 1), (1, 1), (1, 2), (2, 4))):
            width = planes * 2**stage
            rows = nn.ModuleList()
            for block in range(blocks[stage]):
                rows.append(
                    ShiftedBottleneck(
                        channels if block == 0 else 4 * width,
                        width,
                        stride=2 if (stage, block) == (1, 0) else 1,
                        dilation=others if block else first,
                        project=block == 0,
                    )
                )
            self.stages.append(rows)
            channels = 4 * width

    def forward(self, x: Tensor, clock: Clock) -> list[Tensor]:
        """Maps of (N, 5, H, W), each of the frames that it is ready for."""
        x = self.pool(self.stem(x))
        maps = []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, clock)
            maps.append(x)
        return maps


class ShiftedGate(nn.Module):
    """Gated convolution of the decoder: the feature branch sees the shifted map, the gate the plain one.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of both kernels.
        is_last: no activation behind the feature branch.
        gated: False leaves the gate out.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, is_last: bool = False, gated: bool = True
    ) -> None:
        super().__init__()
        act = nn.Identity() if is_last else nn.LeakyReLU(_SLOPE)
        self.conv = GatedConv2d(in_channels, out_channels, kernel, act=act, gated=gated)

    def forward(self, x: Tensor, clock: Clock) -> Tensor:
        """(N, in_channels, H, W) to (M, out_channels, H, W), of frames whose neighbours are there."""
        shifted, x = clock.shift(self, x, _DECODER_DIVISOR)
        return self.conv(shifted, x)


class Enlarge(nn.Module):
    """Twice the size by nearest neighbour, then a 1x1 convolution and LeakyReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.act = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, 2 H, 2 W)."""
        return self.act(self.conv(_enlarged(x, 2)))


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


class Decoder(nn.Module):
    """From the coarsest map back to the frame, with the finer maps added on the way.

    Args:
        maps: channels of the encoder's maps.
        widths: channels at 1/4, 1/2 and the full size.
        gated_end: whether the last layer has a gate.
    """

    def __init__(self, maps: Sequence[int], widths: Sequence[int], *, gated_end: bool = True) -> None:
        super().__init__()
        quarter, half, full = widths
        self.skip_half = ShiftedGate(maps[1], half, 1)
        self.skip_quarter = ShiftedGate(maps[2], quarter, 1)
        self.skip_full = nn.Identity() if maps[0] == full else nn.Conv2d(maps[0], full, 1)
        self.up_quarter = Enlarge(maps[3], quarter)
        self.mix_quarter = ShiftedGate(quarter, quarter, 3)
        self.up_half = Enlarge(quarter, half)
        self.mix_half = ShiftedGate(half, half, 3)
        self.up_full = Enlarge(half, full)
        self.last = ShiftedGate(full, 3, 3, is_last=True, gated=gated_end)

    def forward(self, maps: Sequence[Tensor], clock: Clock) -> Tensor:
        """Frames (N, 3, H, W) from the encoder's maps."""
        c1, c2, c3, c4 = maps
        half = self.skip_half(c2, clock)
        quarter = self.skip_quarter(c3, clock)
        c4, quarter = clock.meet(self.up_quarter, c4, quarter)
        x = self.mix_quarter(self.up_quarter(c4) + _enlarged(quarter, 2), clock)
        x, half = clock.meet(self.up_half, x, half)
        x = self.mix_half(self.up_half(x) + _enlarged(half, 4), clock)
        x, c1 = clock.meet(self.up_full, x, c1)
        return self.last(self.up_full(x) + _enlarged(self.skip_full(c1), 4), clock)
