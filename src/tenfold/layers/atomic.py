"""Atomic blocks: inverted residuals whose hidden channels may have different kernel sizes.

Two pointwise convolutions around a depthwise one are a sum over hidden channels of independent paths, the *atoms*. So a
block may mix kernel sizes channel by channel, and may lose any atom without touching the others.

Source: AtomNAS (arXiv 1912.09640), `atomnas.md` section 2. Both layouts of the official code are here: one branch for
each kernel size, which a search can shrink, and one expansion for all, which squeeze-and-excitation needs. With the
same weights they compute the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from tenfold.layers.padding import SamePad2d
from tenfold.layers.pooling import GlobalPool
from tenfold.layers.recompute import norm_act_conv

Activation: TypeAlias = Literal["relu", "swish"]
Padding: TypeAlias = Literal["symmetric", "same"]
"""Half of the kernel on every side, or TensorFlow's SAME where a convolution is strided."""
BN_EPSILON, BN_MOMENTUM = 1e-3, 0.01
"""Those of the official code, where TensorFlow's momentum is 0.99."""


def activation_layer(activation: Activation) -> nn.Module:
    """The rectifier of the searched networks, or the swish of the "+" networks."""
    return nn.ReLU(inplace=True) if activation == "relu" else nn.SiLU(inplace=True)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
) -> nn.Sequential:
    """Convolution without bias and batch norm: children `conv` and `bn`; in front `pad`, where SAME needs it."""
    pads = padding == "same" and stride > 1
    layers: OrderedDict[str, nn.Module] = OrderedDict(pad=SamePad2d(kernel, stride)) if pads else OrderedDict()
    around = 0 if pads else kernel // 2
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel, stride, around, groups=groups, bias=False)
    layers["bn"] = nn.BatchNorm2d(out_channels, BN_EPSILON, BN_MOMENTUM)
    return nn.Sequential(layers)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    activation: Activation,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
) -> nn.Sequential:
    """`conv_norm` with the activation behind: children `conv`, `bn` and `act`."""
    layers = conv_norm(in_channels, out_channels, kernel, stride, groups, padding)
    layers.add_module("act", activation_layer(activation))
    return layers


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate that a small network computes from the means of all.

    Args:
        channels: of the input.
        squeezed: channels in the middle. The official code takes a share of the *block's* input channels.
        activation: between the two convolutions.
    """

    def __init__(self, channels: int, squeezed: int, activation: Activation) -> None:
        super().__init__()
        self.pool = GlobalPool()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = activation_layer(activation)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class AtomicBlock(nn.Module):
    """An inverted residual with one branch for each kernel size, whose projections are added up.

    Args:
        in_channels: of the input, a linear bottleneck.
        out_channels: of the output, another one.
        atoms: kernel size -> number of hidden channels with it; sizes without atoms may be left out.
        stride: of the depthwise convolutions.
        expands: without it there is no expanding convolution, and the hidden channels are the input's.
        activation: behind the expanding and the depthwise convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        atoms: Mapping[int, int],
        *,
        stride: int = 1,
        expands: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleDict()
        for kernel, hidden in _present(atoms).items():
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if expands:
                layers["expand"] = conv_norm_act(in_channels, hidden, activation)
            layers["depthwise"] = conv_norm_act(hidden, hidden, activation, kernel, stride, hidden)
            layers["project"] = nn.Conv2d(hidden, out_channels, 1, bias=False)
            self.branches[f"k{kernel}"] = AtomicBranch(layers)
        self.norm = nn.BatchNorm2d(out_channels, BN_EPSILON, BN_MOMENTUM)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        first, *others = (branch(x) for branch in self.branches.values())
        for other in others:
            first = first + other
        y = self.norm(first)
        return x + y if self.is_residual else y


class AtomicBranch(nn.Sequential):
    """The atoms of one kernel size: `expand` (where there is one), `depthwise` and `project`, in turn.

    In training the rectified maps are computed again for the backward pass instead of kept.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        layer = self.get_submodule
        if "expand" in self._modules:
            expand: Any = layer("expand")
            y = norm_act_conv(expand.bn, expand.act, layer("depthwise.conv"), x, expand=expand.conv)
        else:
            y = layer("depthwise.conv")(x)
        return norm_act_conv(layer("depthwise.bn"), layer("depthwise.act"), layer("project"), y)


class FusedAtomicBlock(nn.Module):
    """An inverted residual with one expansion and one projection; each kernel size filters its slice of the channels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        atoms: as of `AtomicBlock`.
        stride: of the depthwise convolutions.
        expands: as of `AtomicBlock`.
        activation: everywhere in the block.
        squeezed: channels in the middle of squeeze-and-excitation; 0 leaves it out.
        attention: works on the output before the input is added, such as `LightNonLocal`; None leaves it out.
        padding: of the depthwise convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        atoms: Mapping[int, int],
        *,
        stride: int = 1,
        expands: bool = True,
        activation: Activation = "relu",
        squeezed: int = 0,
        attention: nn.Module | None = None,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        present = _present(atoms)
        hidden = sum(present.values())
        self.expand = conv_norm_act(in_channels, hidden, activation) if expands else nn.Identity()
        self.depthwise = nn.ModuleDict(
            {
                f"k{kernel}": conv_norm_act(count, count, activation, kernel, stride, count, padding)
                for kernel, count in present.items()
            }
        )
        self.project = conv_norm(hidden, out_channels)
        self.squeeze_excite = SqueezeExcite(hidden, squeezed, activation) if squeezed else nn.Identity()
        self.attention = nn.Identity() if attention is None else attention
        self.is_residual = stride == 1 and in_channels == out_channels
        self._counts = list(present.values())

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = self.expand(x)
        parts = y.split(self._counts, 1) if len(self._counts) > 1 else (y,)
        filtered = [layer(part) for layer, part in zip(self.depthwise.values(), parts, strict=True)]
        y = torch.cat(filtered, 1) if len(filtered) > 1 else filtered[0]
        y = self.attention(self.project(self.squeeze_excite(y)))
        return x + y if self.is_residual else y


def _present(atoms: Mapping[int, int]) -> dict[int, int]:
    """The kernel sizes that have atoms, the smallest first, as in the official code."""
    return {kernel: atoms[kernel] for kernel in sorted(atoms) if atoms[kernel]}
