"""AutoNL: mobile networks with a LightNL block wherever a search wants one, and the supernets of that search.

A block is written by its output channels, its stride, its atoms (hidden channels) of kernel size 3 and 5, and the
settings of squeeze-and-excitation and LightNL. The published networks are tables of such numbers, and what a search
leaves is one more table: so a found network is described by its options alone.

Multiply-adds follow the authors' count, which includes the global average pools and the cheaper products of LightNL.

Source: "Neural Architecture Search for Lightweight Non-Local Networks" (arXiv 2004.01961), `autonl.md` section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import Field
from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.atomic import Activation, FusedAtomicBlock, Padding, conv_norm_act
from tenfold.layers.lightnl import LightNonLocal
from tenfold.layers.pooling import GlobalPool
from tenfold.layers.searchable_block import SearchableBlock
from tenfold.layers.searchable_lightnl import RATIOS, STARTING_SCALE, STRIDES, SearchableNonLocal
from tenfold.models.architecture import Architecture
from tenfold.models.classifier import FeatureInfo, ImageClassifier, initialise_mnas
from tenfold.models.options import Dropout, InChannels, NumClasses
from tenfold.models.registry import register

Channels = Annotated[int, Field(ge=1, le=8192)]
Stride = Annotated[int, Field(ge=1, le=2)]
Atoms = Annotated[int, Field(ge=0, le=65536)]
Squeeze = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""Channels inside squeeze-and-excitation over the block's input channels; 0 leaves it out."""
Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""Part of the channels that LightNL compares; 0 leaves it out."""
Sampling = Annotated[int, Field(ge=1, le=16)]
Block: TypeAlias = tuple[Channels, Stride, Atoms, Atoms, Squeeze, Ratio, Sampling]
"""Output channels, stride, atoms of kernel size 3 and 5, squeeze, ratio and sampling stride of LightNL. Without any
atom the block is the identity."""
Blocks = Annotated[tuple[Block, ...], Field(min_length=1, max_length=256)]


class _Row(NamedTuple):
    """A block as the paper's tables have it."""

    channels: int
    stride: int
    expansion: int
    kernel: int
    squeeze: float = 0.0
    ratio: float = 0.0
    sampling: int = 1


# `autonl.md` section 6.
_S = (
    _Row(16, 1, 1, 3),
    _Row(24, 2, 3, 3, 0.0, 0.25, 1),
    _Row(24, 1, 3, 3),
    _Row(40, 2, 3, 5, 0.0, 0.25, 1),
    _Row(40, 1, 3, 3, 0.0, 0.25, 2),
    _Row(40, 1, 3, 3),
    _Row(80, 2, 6, 5, 0.25, 0.25, 1),
    *(_Row(80, 1, 3, 3, 0.5),) * 2,
    _Row(96, 1, 6, 5, 0.25, 0.25, 1),
    *(_Row(96, 1, 3, 3, 0.5),) * 3,
    _Row(192, 2, 6, 5, 0.25, 0.25, 1),
    *(_Row(192, 1, 3, 5, 0.5),) * 3,
    _Row(320, 1, 6, 5, 0.5, 0.25, 1),
)
_L = (
    _Row(16, 1, 1, 3),
    _Row(24, 2, 3, 5, 0.0, 0.25, 1),
    _Row(24, 1, 3, 5),
    _Row(24, 1, 3, 3, 0.0, 0.25, 2),
    _Row(40, 2, 6, 5, 0.0, 0.25, 1),
    *(_Row(40, 1, 3, 3, 0.0, 0.25, 2),) * 3,
    _Row(80, 2, 6, 5, 0.0, 0.25, 1),
    *(_Row(80, 1, 3, 3, 0.5),) * 2,
    _Row(80, 1, 3, 3, 0.5, 0.125, 2),
    _Row(96, 1, 6, 5, 0.5, 0.25, 1),
    *(_Row(96, 1, 3, 5, 0.5),) * 2,
    _Row(96, 1, 3, 3, 0.5, 0.25, 2),
    _Row(192, 2, 6, 5, 0.5, 0.25, 1),
    *(_Row(192, 1, 6, 5, 0.5, 0.125, 1),) * 2,
    _Row(192, 1, 6, 5, 0.5),
    _Row(320, 1, 6, 5, 0.5, 0.25, 1),
)


class NonLocalClassifier(ImageClassifier):
    """An image classifier of such blocks, which knows how to describe itself after a search has changed it.

    Attributes:
        blocks: name, output channels, stride and squeeze of every block.
        shape: the options of `autonl` that no search changes.
    """

    blocks: list[tuple[str, int, int, float]]
    shape: dict[str, int | float | str | bool]

    def found_architecture(self) -> Architecture:
        """The network as it is now: its table of blocks in the place of the one that it was built with."""
        table = []
        for name, channels, stride, squeeze in self.blocks:
            block = self.get_submodule(name)
            atoms = {}
            if isinstance(block, FusedAtomicBlock):
                atoms = {kernel: part.get_submodule("conv").out_channels for kernel, part in block.depthwise.items()}
            attention = getattr(block, "attention", None)
            placed = isinstance(attention, LightNonLocal)
            light = (attention.ratio, attention.stride) if placed else (0.0, 1)  # type: ignore[union-attr]
            table.append([channels, stride, atoms.get("k3", 0), atoms.get("k5", 0), squeeze, *light])
        return Architecture("autonl", {**self.shape, "blocks": table})


class _Frame(NamedTuple):
    """What surrounds the blocks."""

    stem: int
    tail: int
    stride: int
    activation: Activation
    dropout: float
    num_classes: int
    in_channels: int


class _Place(NamedTuple):
    """A block and what the network says of it."""

    channels: int
    stride: int
    squeeze: float
    block: nn.Module


def _network(places: Sequence[_Place], frame: _Frame, padding: Padding, legacy_scale: bool) -> NonLocalClassifier:
    stem = conv_norm_act(frame.in_channels, frame.stem, frame.activation, 3, frame.stride, padding=padding)
    stages: dict[str, nn.Module] = {"stem": stem}
    finest_first: dict[int, FeatureInfo] = {}
    names: list[str] = []
    width, scale, index = frame.stem, frame.stride, -1
    stage = nn.Sequential()
    for place in places:
        if not names or place.stride > 1 or place.channels != width:
            index, stage = index + 1, nn.Sequential()
            stages[f"stage{index}"] = stage
        names.append(f"stage{index}.{len(stage)}")
        stage.append(place.block)
        width, scale = place.channels, scale * place.stride
        finest_first[scale] = FeatureInfo(f"stage{index}", width, scale)  # the last stage of each stride
    stages["tail"] = conv_norm_act(width, frame.tail, frame.activation)
    finest_first[scale] = FeatureInfo("tail", frame.tail, scale)
    network = NonLocalClassifier(
        stages, list(finest_first.values()), frame.num_classes, pool=GlobalPool(), dropout=frame.dropout
    )
    initialise_mnas(network)
    for module in network.modules():
        if isinstance(module, LightNonLocal):
            module.close()
        elif isinstance(module, SearchableNonLocal):
            module.start(STARTING_SCALE)
    network.blocks = [(name, one.channels, one.stride, one.squeeze) for name, one in zip(names, places, strict=True)]
    network.shape = {**frame._asdict(), "padding": padding, "legacy_scale": legacy_scale}
    return network


def _plain(blocks: Sequence[Block], frame: _Frame, padding: Padding, legacy_scale: bool) -> NonLocalClassifier:
    places: list[_Place] = []
    width = frame.stem
    for position, (channels, stride, small, large, squeeze, ratio, sampling) in enumerate(blocks):
        name = f"block {position + 1} of the table"
        if not small + large:
            _check_identity(name, width, channels, stride)
            places.append(_Place(channels, stride, squeeze, nn.Identity()))
            continue
        if position == 0 and small + large != width:
            raise UsageError(
                f"{name} has {small + large} atoms; it does not expand, and so has one for each of the {width} "
                f"channels of the stem. Give it {width}, or change the stem."
            )
        attention = LightNonLocal(channels, ratio=ratio, stride=sampling, legacy_scale=legacy_scale) if ratio else None
        block = FusedAtomicBlock(
            width,
            channels,
            {3: small, 5: large},
            stride=stride,
            expands=position > 0,
            activation=frame.activation,
            squeezed=squeezed_channels(squeeze, width),
            attention=attention,
            padding=padding,
        )
        places.append(_Place(channels, stride, squeeze, block))
        width = channels
    return _network(places, frame, padding, legacy_scale)


def _check_identity(name: str, in_channels: int, out_channels: int, stride: int) -> None:
    if stride > 1 or in_channels != out_channels:
        raise UsageError(
            f"{name} has no atoms, but leads from {in_channels} to {out_channels} channels with stride {stride}; only "
            "a block that keeps the shape can be empty. Give it at least one atom."
        )


def squeezed_channels(squeeze: float, in_channels: int) -> int:
    """Channels inside squeeze-and-excitation: a share of the block's input, rounded half to even as the authors do."""
    return max(1, round(squeeze * in_channels)) if squeeze else 0


def _table(rows: Sequence[_Row], stem: int = 32) -> tuple[Block, ...]:
    blocks: list[Block] = []
    width = stem
    for row in rows:
        hidden = row.expansion * width
        atoms = (hidden, 0) if row.kernel == 3 else (0, hidden)
        blocks.append((row.channels, row.stride, *atoms, row.squeeze, row.ratio, row.sampling))
        width = row.channels
    return tuple(blocks)


class _Stage(NamedTuple):
    channels: int
    blocks: int
    stride: int  # of the first block; the others have 1


# `autonl.md` section 4.3.
_IMAGENET = (
    _Stage(24, 4, 2), _Stage(40, 4, 2), _Stage(80, 4, 2), _Stage(96, 4, 1), _Stage(192, 4, 2), _Stage(320, 1, 1),
)  # fmt: skip
# For 32x32 images on a CPU.
_TINY = (_Stage(16, 2, 1), _Stage(24, 3, 2), _Stage(40, 3, 2), _Stage(64, 2, 1))


def _supernet(
    stages: Sequence[_Stage],
    frame: _Frame,
    *,
    first: int,
    expansion: int,
    squeeze: float,
    squeezed_from: int,
    ratios: Sequence[float],
    strides: Sequence[int],
) -> NonLocalClassifier:
    """Searchable blocks behind a fixed first one, with squeeze-and-excitation from a total stride on."""
    block = FusedAtomicBlock(
        frame.stem,
        first,
        {3: frame.stem},
        expands=False,
        activation=frame.activation,
        attention=SearchableNonLocal(first, ratios, strides),
    )
    places, width, scale = [_Place(first, 1, 0.0, block)], first, frame.stride
    for channels, count, step in stages:
        for index in range(count):
            stride = step if index == 0 else 1
            scale *= stride
            share = squeeze if scale >= squeezed_from else 0.0
            searchable = SearchableBlock(
                width,
                channels,
                expansion * width,
                -(-expansion // 2) * width,
                stride=stride,
                activation=frame.activation,
                squeezed=squeezed_channels(share, width),
                attention=SearchableNonLocal(channels, ratios, strides),
            )
            places.append(_Place(channels, stride, share, searchable))
            width = channels
    return _network(places, frame, "symmetric", legacy_scale=False)


_BLOCKS_S, _BLOCKS_L = _table(_S), _table(_L)
_SOURCE = "AutoNL, arXiv 2004.01961"
_TAGS = ("imagenet", "mobile", "residual", "searched", "squeeze-excitation", "non-local")
Expansion = Annotated[int, Field(ge=1, le=32)]
"""Hidden channels over the block's input channels at the larger of two expansions; the smaller is half of it."""
Ratios = Annotated[tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...], Field(min_length=1, max_length=8)]
"""Parts of the channels that a LightNL block may compare."""
Samplings = Annotated[tuple[Sampling, ...], Field(min_length=1, max_length=8)]
"""Sampling strides that a LightNL block may have."""


@register(source=_SOURCE, input_shape=(3, 224, 224), params=4_389_350, macs=266_878_784, tags=_TAGS)
def autonl(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    blocks: Blocks = _BLOCKS_S,
    stem: Channels = 32,
    tail: Channels = 1280,
    stride: Stride = 2,
    activation: Activation = "swish",
    padding: Padding = "symmetric",
    legacy_scale: bool = False,
    dropout: Dropout = 0.2,
) -> ImageClassifier:
    """A network of inverted residuals with LightNL, each given by its table row: what a search by AutoNL leaves."""
    frame = _Frame(stem, tail, stride, activation, dropout, num_classes, in_channels)
    return _plain(blocks, frame, padding, legacy_scale)


@register(source=_SOURCE, input_shape=(3, 224, 224), params=4_389_350, macs=266_878_784, tags=_TAGS)
def autonl_s(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    padding: Padding = "symmetric",
    legacy_scale: bool = False,
    dropout: Dropout = 0.2,
) -> ImageClassifier:
    """AutoNL-S, with LightNL at seven places."""
    frame = _Frame(32, 1280, 2, "swish", dropout, num_classes, in_channels)
    return _plain(_BLOCKS_S, frame, padding, legacy_scale)


@register(source=_SOURCE, input_shape=(3, 224, 224), params=5_580_336, macs=352_829_728, tags=_TAGS)
def autonl_l(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    padding: Padding = "symmetric",
    legacy_scale: bool = False,
    dropout: Dropout = 0.2,
) -> ImageClassifier:
    """AutoNL-L, with LightNL at fourteen places."""
    frame = _Frame(32, 1280, 2, "swish", dropout, num_classes, in_channels)
    return _plain(_BLOCKS_L, frame, padding, legacy_scale)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=6_153_975,
    macs=553_037_072,
    tags=("imagenet", "mobile", "residual", "supernet", "squeeze-excitation", "non-local"),
)
def autonl_supernet(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    expansion: Expansion = 6,
    squeeze: Squeeze = 0.5,
    ratios: Ratios = RATIOS,
    strides: Samplings = STRIDES,
    activation: Activation = "swish",
    dropout: Dropout = 0.2,
) -> ImageClassifier:
    """The supernet of AutoNL: search it with --method autonl for places of LightNL, kernel sizes and expansions."""
    frame = _Frame(32, 1280, 2, activation, dropout, num_classes, in_channels)
    return _supernet(
        _IMAGENET,
        frame,
        first=16,
        expansion=expansion,
        squeeze=squeeze,
        squeezed_from=16,  # where the published networks have it
        ratios=ratios,
        strides=strides,
    )


@register(
    source="after AutoNL, arXiv 2004.01961; cut down by us for small images",
    input_shape=(3, 32, 32),
    params=155_053,
    macs=21_145_600,
    tags=("cifar", "mobile", "residual", "supernet", "tiny", "non-local"),
)
def autonl_supernet_tiny(
    *,
    num_classes: NumClasses = 10,
    in_channels: InChannels = 3,
    expansion: Expansion = 4,
    squeeze: Squeeze = 0.0,
    ratios: Ratios = RATIOS,
    strides: Samplings = STRIDES,
    activation: Activation = "swish",
    dropout: Dropout = 0.0,
) -> ImageClassifier:
    """A small supernet of AutoNL for 32x32 images on a CPU."""
    frame = _Frame(16, 256, 1, activation, dropout, num_classes, in_channels)
    return _supernet(
        _TINY,
        frame,
        first=8,
        expansion=expansion,
        squeeze=squeeze,
        squeezed_from=1,
        ratios=ratios,
        strides=strides,
    )
