"""AtomNAS: the supernets that shrink while they train, and the networks that the authors found (arXiv 1912.09640).

A block is written by its output channels, its stride, and its numbers of atoms of kernel size 3, 5 and 7. The published
networks are tables of such numbers, a supernet has 6 C of each, and what a search leaves is one more table: so all are
one builder, and a found network is described by its options alone. The "+" networks are the published ones with
squeeze-and-excitation and swish.

Multiply-adds follow the authors' count, which includes the global average pools (`layers/pooling.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from tenfold.layers.atomic import Activation
from tenfold.models.atomic_classifier import (
    KERNELS,
    AtomicClassifier,
    Block,
    Blocks,
    Channels,
    Stride,
    atomic_classifier,
)
from tenfold.models.classifier import ImageClassifier
from tenfold.models.options import Dropout, InChannels, NumClasses
from tenfold.models.registry import register


class _Rows(NamedTuple):
    channels: int
    blocks: int
    stride: int  # of the first block; the others have 1


# `atomnas.md` section 3: every searchable block of the supernets.
_IMAGENET = (
    _Rows(24, 4, 2), _Rows(40, 4, 2), _Rows(80, 4, 2), _Rows(96, 4, 1), _Rows(192, 4, 2), _Rows(320, 1, 1),
)  # fmt: skip
# For 32x32 images on a CPU: the rows of `mobilenet_v2_tiny` at a third of the width, its bottlenecks a little wider.
_TINY = (_Rows(8, 2, 1), _Rows(12, 2, 2), _Rows(20, 3, 2), _Rows(28, 2, 1), _Rows(48, 3, 2))

# `atomnas.md` section 7.
_FOUND_A = (
    (16, 12, 9), (19, 2, 1), (9, 7, 1), (14, 1, 0), (46, 49, 50), (27, 19, 14), (22, 11, 3), (30, 14, 3),
    (127, 130, 111), (33, 25, 45), (38, 12, 34), (53, 23, 19), (344, 196, 168), (44, 18, 27), (37, 29, 18),
    (52, 21, 24), (381, 364, 342), (123, 76, 162), (179, 107, 212), (238, 111, 171), (654, 495, 546),
)  # fmt: skip
_FOUND_B = (
    (7, 15, 17), (16, 4, 0), (17, 7, 1), (22, 4, 1), (58, 66, 67), (39, 24, 17), (22, 13, 3), (38, 16, 3),
    (166, 148, 151), (31, 43, 65), (41, 15, 28), (77, 21, 43), (378, 256, 204), (54, 31, 32), (54, 26, 26),
    (73, 42, 26), (442, 433, 430), (154, 112, 263), (234, 142, 282), (295, 190, 202), (766, 631, 671),
)  # fmt: skip
_FOUND_C = (
    (15, 23, 13), (20, 3, 2), (21, 8, 1), (21, 4, 0), (64, 65, 70), (40, 23, 28), (36, 21, 9), (40, 22, 7),
    (169, 170, 157), (45, 55, 74), (58, 21, 37), (77, 18, 39), (393, 263, 247), (57, 40, 36), (61, 34, 26),
    (87, 38, 33), (454, 468, 468), (188, 137, 306), (253, 187, 314), (345, 202, 233), (823, 738, 749),
)  # fmt: skip


def _supernet_blocks(rows: Sequence[_Rows], first: int, kernels: Sequence[int], expansion: int) -> list[Block]:
    width, blocks = first, list[Block]()
    for row in rows:
        for index in range(row.blocks):
            small, middle, large = (expansion * width if kernel in kernels else 0 for kernel in KERNELS)
            blocks.append((row.channels, row.stride if index == 0 else 1, small, middle, large))
            width = row.channels
    return blocks


def _found_blocks(atoms: Sequence[tuple[int, int, int]]) -> list[Block]:
    shapes = _supernet_blocks(_IMAGENET, 16, (), 0)
    return [(channels, stride, *counts) for (channels, stride, *_), counts in zip(shapes, atoms, strict=True)]


Kernels = Annotated[
    tuple[Annotated[int, Field(json_schema_extra={"enum": KERNELS})], ...], Field(min_length=1, max_length=3)
]
"""Kernel sizes of the search space: any of 3, 5, 7."""
Expansion = Annotated[int, Field(ge=1, le=32)]
"""Atoms of each kernel size over the block's input channels."""
Squeeze = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""Channels inside squeeze-and-excitation over the block's input channels; 0 leaves it out."""

_BLOCKS_C = tuple(_found_blocks(_FOUND_C))
_SOURCE = "AtomNAS, arXiv 1912.09640"


def _published(
    found: Sequence[tuple[int, int, int]],
    stem: int,
    is_plus: bool,
    *,
    num_classes: int,
    in_channels: int,
    dropout: float,
) -> AtomicClassifier:
    return atomic_classifier(
        _found_blocks(found),
        stem=stem,
        first=16,
        tail=1280,
        stride=2,
        squeeze=0.5 if is_plus else 0.0,
        activation="swish" if is_plus else "relu",
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
    )


def _supernet(
    rows: Sequence[_Rows],
    *,
    stem: int,
    first: int,
    tail: int,
    stride: int,
    kernels: Sequence[int],
    expansion: int,
    dropout: float,
    num_classes: int,
    in_channels: int,
    official_start: bool = True,
) -> AtomicClassifier:
    return atomic_classifier(
        _supernet_blocks(rows, first, kernels, expansion),
        stem=stem,
        first=first,
        tail=tail,
        stride=stride,
        squeeze=0.0,
        activation="relu",
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
        official_start=official_start,
    )


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=4_782_696,
    macs=359_864_205,
    tags=("imagenet", "mobile", "residual", "searched"),
)
def atomnas(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    blocks: Blocks = _BLOCKS_C,
    stem: Channels = 32,
    first: Channels = 16,
    tail: Channels = 1280,
    stride: Stride = 2,
    squeeze: Squeeze = 0.0,
    activation: Activation = "relu",
    dropout: Dropout = 0.28,
) -> ImageClassifier:
    """A network of atomic blocks, each given by its channels, stride and atoms: what a search by AtomNAS leaves."""
    return atomic_classifier(
        blocks,
        stem=stem,
        first=first,
        tail=tail,
        stride=stride,
        squeeze=squeeze,
        activation=activation,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
        official_start=False,
    )


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=3_885_272,
    macs=258_293_281,
    tags=("imagenet", "mobile", "residual", "searched"),
)
def atomnas_a(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.28
) -> ImageClassifier:
    """AtomNAS-A, found from the supernet with the thin stem."""
    return _published(_FOUND_A, 16, False, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=4_453_927,
    macs=326_051_363,
    tags=("imagenet", "mobile", "residual", "searched"),
)
def atomnas_b(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.28
) -> ImageClassifier:
    """AtomNAS-B."""
    return _published(_FOUND_B, 32, False, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=4_782_696,
    macs=359_864_205,
    tags=("imagenet", "mobile", "residual", "searched"),
)
def atomnas_c(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.28
) -> ImageClassifier:
    """AtomNAS-C."""
    return _published(_FOUND_C, 32, False, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=4_718_080,
    macs=260_353_874,
    tags=("imagenet", "mobile", "residual", "searched", "squeeze-excitation"),
)
def atomnas_a_plus(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.28
) -> ImageClassifier:
    """AtomNAS-A+: AtomNAS-A with squeeze-and-excitation and swish."""
    return _published(_FOUND_A, 16, True, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=5_509_410,
    macs=328_789_798,
    tags=("imagenet", "mobile", "residual", "searched", "squeeze-excitation"),
)
def atomnas_b_plus(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.28
) -> ImageClassifier:
    """AtomNAS-B+: AtomNAS-B with squeeze-and-excitation and swish."""
    return _published(_FOUND_B, 32, True, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=5_968_040,
    macs=362_910_842,
    tags=("imagenet", "mobile", "residual", "searched", "squeeze-excitation"),
)
def atomnas_c_plus(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.28
) -> ImageClassifier:
    """AtomNAS-C+: AtomNAS-C with squeeze-and-excitation and swish."""
    return _published(_FOUND_C, 32, True, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=11_242_152,
    macs=1_521_035_776,
    tags=("imagenet", "mobile", "residual", "supernet"),
)
def atomnas_supernet(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    stem: Channels = 32,
    kernels: Kernels = KERNELS,
    expansion: Expansion = 6,
    dropout: Dropout = 0.2,
) -> ImageClassifier:
    """The supernet that AtomNAS-B and C are found from: shrink it with --method atomnas."""
    return _supernet(
        _IMAGENET,
        stem=stem,
        first=16,
        tail=1280,
        stride=2,
        kernels=kernels,
        expansion=expansion,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
    )


@register(
    source=_SOURCE,
    input_shape=(3, 224, 224),
    params=11_241_256,
    macs=1_510_599_168,
    tags=("imagenet", "mobile", "residual", "supernet"),
)
def atomnas_supernet_a(
    *, num_classes: NumClasses = 1000, in_channels: InChannels = 3, dropout: Dropout = 0.2
) -> ImageClassifier:
    """The supernet with the thin stem, which AtomNAS-A is found from."""
    return _supernet(
        _IMAGENET,
        stem=16,
        first=16,
        tail=1280,
        stride=2,
        kernels=KERNELS,
        expansion=6,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
    )


@register(
    source="after AtomNAS, arXiv 1912.09640; cut down by us for small images",
    input_shape=(3, 32, 32),
    params=313_890,
    macs=22_024_960,
    tags=("cifar", "mobile", "residual", "supernet", "tiny"),
)
def atomnas_supernet_tiny(
    *,
    num_classes: NumClasses = 10,
    in_channels: InChannels = 3,
    kernels: Kernels = KERNELS,
    expansion: Expansion = 4,
    dropout: Dropout = 0.0,
) -> ImageClassifier:
    """A small supernet of atomic blocks for 32x32 images on a CPU."""
    return _supernet(
        _TINY,
        stem=8,
        first=8,
        tail=256,
        stride=1,
        kernels=kernels,
        expansion=expansion,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
        official_start=False,
    )
