"""The multi-resolution networks of NAS-Bench-MR and of network code propagation (arXiv 2103.13253).

A code of 27 numbers (`multires_code.py`) says how wide and how deep each of up to four parallel resolutions is. Each
module exchanges neighbouring resolutions (HRNet exchanges all pairs), then runs a chain of residual units on each.

`multires` classifies images, and clips by the mean of their frames; `multires_segmenter` gives each pixel a class with
the authors' head. Bodies are the same, so weights move from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from tenfold.errors import ShapeError
from tenfold.layers.alignment import Align
from tenfold.models.blocks import conv_bn_relu
from tenfold.models.classifier import FeatureInfo
from tenfold.models.multires_code import DEFAULT_CODE, IS_CHANNELS, LENGTH, NAMES, split_code
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register

# Wider than the published space, so that networks may be scaled; still no absurd network from a file.
_MOST_CHANNELS, _MOST_COUNT = 1024, 16


def _checked(code: tuple[int, ...]) -> tuple[int, ...]:
    for name, number, is_channels in zip(NAMES, code, IS_CHANNELS, strict=True):
        most = _MOST_CHANNELS if is_channels else _MOST_COUNT
        if not 1 <= number <= most:
            raise ValueError(f"{name} should be 1 to {most}, not {number}")
    return code


Code = Annotated[tuple[int, ...], Field(min_length=LENGTH, max_length=LENGTH), AfterValidator(_checked)]
"""The 27 numbers of `multires_code.NAMES`."""


class Fusion(nn.Module):
    """Brings the branches before a module to those of the module: each hears its neighbours.

    A finer neighbour comes through a 3x3 convolution of stride 2, a coarser one through a 1x1 convolution and nearest
    enlargement, the branch itself through a 3x3 convolution; the sum is rectified. A new branch is made from the last
    sum. Maps that do not fit, because a side was odd, are resized bilinearly.

    Args:
        incoming: channels of the branches before.
        channels: channels of the module's branches: as many, or one more.
    """

    def __init__(self, incoming: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        kept = min(len(incoming), len(channels))
        self.rows = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(source): conv_bn_relu(
                        incoming[source], channels[row], 1 if source > row else 3, 2 if source < row else 1
                    )
                    for source in range(max(row - 1, 0), min(row + 2, len(incoming)))
                }
            )
            for row in range(kept)
        )
        self.align = Align()
        # A lone branch has no sum; it is rectified already.
        self.act = nn.ReLU(inplace=True) if len(incoming) > 1 else nn.Identity()
        self.grow = conv_bn_relu(channels[-2], channels[-1], 3, 2) if len(channels) > kept else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """From one map for each incoming branch to one for each branch of the module."""
        fused = []
        for number, row in enumerate(self.rows):
            terms = []
            for name, layer in row.items():  # type: ignore[operator]
                term = layer(maps[int(name)])
                terms.append(F.interpolate(term, scale_factor=2.0, mode="nearest") if int(name) > number else term)
            total, *others = terms
            for term in others:
                total = total + self.align(term, total)
            fused.append(self.act(total))
        if self.grow is not None:
            fused.append(self.grow(fused[-1]))
        return fused


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions of one width with batch norms, and the input added.

    Args:
        channels: of the input, the output and between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(y)) + x)


class MultiResolutionModule(nn.Module):
    """A fusion, then a chain of residual units on each branch.

    Args:
        incoming: channels of the branches before.
        channels: channels of each branch.
        units: residual units of each branch.
    """

    def __init__(self, incoming: Sequence[int], channels: Sequence[int], units: Sequence[int]) -> None:
        super().__init__()
        self.fusion = Fusion(incoming, channels)
        self.branches = nn.ModuleList(
            nn.Sequential(*(ResidualUnit(width) for _ in range(count)))
            for width, count in zip(channels, units, strict=True)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map for each branch."""
        return [branch(one) for branch, one in zip(self.branches, self.fusion(maps), strict=True)]


class MultiResolutionBody(nn.Module):
    """The network without its head: images to four maps.

    Attributes:
        feature_info: the maps, of stride 4, 8, 16 and 32.

    Args:
        code: see `multires_code`.
        in_channels: of the images.
    """

    def __init__(self, code: Sequence[int], in_channels: int = 3) -> None:
        super().__init__()
        (first, second), stages, _ = split_code(code)
        self.stem = nn.Sequential(conv_bn_relu(in_channels, first, 3, 2), conv_bn_relu(first, second, 3, 2))
        self.blocks = nn.ModuleList()
        incoming = [second]
        for stage in stages:
            for _ in range(stage.modules):
                self.blocks.append(MultiResolutionModule(incoming, stage.channels, stage.units))
                incoming = list(stage.channels)
        self.feature_info = [
            FeatureInfo(f"blocks.{len(self.blocks) - 1}.branches.{branch}", channels, 4 * 2**branch)
            for branch, channels in enumerate(incoming)
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps (B, channels, H / stride, W / stride) of images (B, C, H, W), finest first; sizes are rounded up."""
        maps = [self.stem(x)]
        for block in self.blocks:
            maps = block(maps)
        return maps


class MultiResolutionClassifier(nn.Module):
    """A body, its maps brought to the size of the coarsest and mixed, the mean over positions, a linear classifier.

    Clips are recognised by the mean of their frames' scores.

    Args:
        body: gives the maps.
        channels: of the mixture.
        num_classes: outputs.
    """

    def __init__(self, body: MultiResolutionBody, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.feature_info = body.feature_info
        self.align = Align()
        self.mix = conv_bn_relu(sum(info.channels for info in body.feature_info), channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)
        initialise_multires(self)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The maps of images (B, C, H, W) that `feature_info` lists."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, num_classes) of images (B, C, H, W) or of clips (B, T, C, H, W).

        Raises:
            ShapeError: if the input is neither.
        """
        if x.dim() == 5:
            frames = self.forward(x.flatten(0, 1))  # (B * T, num_classes)
            return frames.unflatten(0, x.shape[:2]).mean(1)
        if x.dim() != 4:
            raise ShapeError(f"images are (B, C, H, W) and clips (B, T, C, H, W), not {tuple(x.shape)}.")
        maps = self.body(x)
        mixed = self.mix(torch.cat([self.align(one, maps[-1]) for one in maps], 1))
        return self.classifier(self.flatten(self.pool(mixed)))


class MultiResolutionSegmenter(nn.Module):
    """A body, its maps brought to the size of the finest and mixed, a 1x1 convolution to scores.

    The head is HRNet's, `segmentation_heads.MultiResolutionHead`, with the authors' start and their count of the cost.

    Args:
        body: gives the maps.
        channels: of the mixture.
        num_classes: scores of each pixel.
    """

    def __init__(self, body: MultiResolutionBody, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.align = Align()
        self.mix = conv_bn_relu(sum(info.channels for info in body.feature_info), channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        initialise_multires(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, num_classes, H / 4, W / 4) of images (B, C, H, W)."""
        maps = self.body(x)
        return self.classifier(self.mix(torch.cat([self.align(one, maps[0]) for one in maps], 1)))


def initialise_multires(network: nn.Module) -> None:
    """Draw fresh weights as the authors do: each weight normal with variance 2 / fan-out, the classifier's too.

    Source: arXiv 2103.13253, official code (ncp.md section 3).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# A fortieth of the default's multiply-adds at the same image.
_TINY = (16, 16, 1, 1, 16, 1, 1, 1, 16, 24, 1, 1, 1, 1, 16, 24, 32, 1, 1, 1, 1, 1, 16, 24, 32, 48, 64)
_SOURCE = "NCP and NAS-Bench-MR, arXiv 2103.13253"


@register(
    source=_SOURCE,
    input_shape=(3, 128, 128),
    params=4_128_754,
    macs=1_952_189_568,
    tags=("imagenet", "multi-resolution", "residual"),
)
def multires(
    *, num_classes: NumClasses = 50, in_channels: InChannels = 3, code: Code = DEFAULT_CODE
) -> MultiResolutionClassifier:
    """A multi-resolution network by its code, for images and clips; by default where the authors' search starts."""
    return MultiResolutionClassifier(MultiResolutionBody(code, in_channels), code[-1], num_classes)


@register(
    source=_SOURCE,
    input_shape=(3, 128, 128),
    params=4_126_739,
    macs=1_969_946_624,
    tags=("segmentation", "multi-resolution", "residual"),
)
def multires_segmenter(
    *, num_classes: NumClasses = 19, in_channels: InChannels = 3, code: Code = DEFAULT_CODE
) -> MultiResolutionSegmenter:
    """A multi-resolution network by its code, with the authors' head that gives each pixel a class."""
    return MultiResolutionSegmenter(MultiResolutionBody(code, in_channels), code[-1], num_classes)


@register(
    source=f"after {_SOURCE}; a small code of ours",
    input_shape=(3, 32, 32),
    params=209_242,
    macs=3_175_552,
    tags=("cifar", "multi-resolution", "residual", "tiny"),
)
def multires_tiny(
    *, num_classes: NumClasses = 10, in_channels: InChannels = 3, code: Code = _TINY
) -> MultiResolutionClassifier:
    """A small multi-resolution network for small images on a CPU."""
    return MultiResolutionClassifier(MultiResolutionBody(code, in_channels), code[-1], num_classes)


@register(
    source=f"after {_SOURCE}; a small code of ours",
    input_shape=(3, 180, 240),
    params=209_307,
    macs=158_047_488,
    tags=("segmentation", "multi-resolution", "residual", "tiny"),
)
def multires_tiny_segmenter(
    *, num_classes: NumClasses = 11, in_channels: InChannels = 3, code: Code = _TINY
) -> MultiResolutionSegmenter:
    """A small multi-resolution network that gives each pixel a class."""
    return MultiResolutionSegmenter(MultiResolutionBody(code, in_channels), code[-1], num_classes)
