"""Convolution with batch norm, the brick that all families are made of, and the rounding of channel counts."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv_bn(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, padded symmetrically, and batch norm: children `conv` and `bn`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """`conv_bn` with a rectifier behind: children `conv`, `bn` and `relu`."""
    block = conv_bn(in_channels, out_channels, kernel, stride, groups)
    block.add_module("relu", nn.ReLU(inplace=True))
    return block


def scale_channels(channels: int, width: float) -> int:
    """A channel count times a width multiplier, as the MobileNet authors round it.

    The result is the nearest multiple of 8, at least 8, and never more than 10 % below the exact product.

    Source: arXiv 1801.04381, the authors' program.

    Example:
        >>> scale_channels(24, 0.75), scale_channels(24, 0.5), scale_channels(16, 0.35)
        (24, 16, 8)
    """
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded
