"""AutoSpace: networks of cells, the one that the authors published, and frames to search in (arXiv 2103.11833).

A block is written by its output channels, its stride and the gene of its cell (see `layers/cell_gene.py`), or "skip"
where it is left out. An ordinary inverted residual is a cell too: 512112 with a 3x3 kernel, 712112 with 5x5, 912112
with 7x7. So every network of the family is one table, and what a search leaves is one more.

Neither weights nor code were published. Multiply-adds of the 340M network are 336.3 M in our reading of its file; the
paper says 340 M (and 4.3 M parameters, where we count 4.5 M). We leave the gap open instead of bending definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import Field
from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.cell import CellBlock, norm_conv
from tenfold.layers.cell_gene import Gene
from tenfold.models.architecture import Architecture
from tenfold.models.classifier import FeatureInfo, ImageClassifier
from tenfold.models.options import Dropout, InChannels, NumClasses
from tenfold.models.registry import register

SKIP = "skip"
"""In the place of a gene: the block is the identity."""
Channels = Annotated[int, Field(ge=1, le=8192)]
Stride = Annotated[int, Field(ge=1, le=2)]
Block: TypeAlias = tuple[Channels, Stride, str]
"""Output channels, stride, and gene or "skip"."""
Blocks = Annotated[tuple[Block, ...], Field(min_length=1, max_length=256)]
Epsilon = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
"""What batch norms add to the variance."""
_PUBLISHED_EPSILON = 0.006  # as the authors' file has it, unusual as it is


class Shape(NamedTuple):
    """A block to fill: output channels and stride."""

    channels: int
    stride: int


class Frame(NamedTuple):
    """What surrounds the blocks of a network."""

    stem: int
    tail: int
    stride: int
    dropout: float
    norm_epsilon: float
    num_classes: int
    in_channels: int


class CellClassifier(ImageClassifier):
    """An image classifier of cells, which reads its own table back from its modules.

    Attributes:
        places: name, output channels and stride of every block.
        frame: what surrounds the blocks.
    """

    places: list[tuple[str, int, int]]
    frame: Frame

    def genes(self) -> list[str]:
        """The gene of each block, or "skip"."""
        found = []
        for name, *_ in self.places:
            block = self.get_submodule(name)
            found.append(str(block.cell.gene) if isinstance(block, CellBlock) else SKIP)
        return found

    def found_architecture(self) -> Architecture:
        """The network as it is now."""
        return Architecture("autospace", cell_options(self.places, self.frame, self.genes()))


def cell_options(places: Sequence[tuple[str, int, int]], frame: Frame, genes: Sequence[str]) -> dict[str, Any]:
    """The options of `autospace` that make a network.

    Args:
        places: name, output channels and stride of every block.
        frame: what surrounds them.
        genes: of the blocks, or "skip".
    """
    table = [[channels, stride, gene] for (_, channels, stride), gene in zip(places, genes, strict=True)]
    return {**frame._asdict(), "blocks": table}


def cell_classifier(
    shapes: Sequence[Shape], frame: Frame, make: Callable[[int, int, Shape], nn.Module]
) -> CellClassifier:
    """Build the frame around any blocks.

    Args:
        shapes: of the blocks.
        frame: stem, tail and the rest.
        make: gives a block, from its index, its input channels and its shape.
    """
    stages: dict[str, nn.Module] = {
        "stem": norm_conv(frame.in_channels, frame.stem, 3, frame.stride, rectified=True),
    }
    finest_first: dict[int, FeatureInfo] = {}
    places: list[tuple[str, int, int]] = []
    width, scale, stage = frame.stem, frame.stride, -1
    for index, shape in enumerate(shapes):
        if not places or shape.stride > 1 or shape.channels != width:
            stage += 1
            stages[f"stage{stage}"] = nn.Sequential()
        blocks = stages[f"stage{stage}"]
        assert isinstance(blocks, nn.Sequential)
        places.append((f"stage{stage}.{len(blocks)}", shape.channels, shape.stride))
        blocks.append(make(index, width, shape))
        width, scale = shape.channels, scale * shape.stride
        finest_first[scale] = FeatureInfo(f"stage{stage}", width, scale)  # the last stage of each stride
    stages["tail"] = norm_conv(width, frame.tail, rectified=True)
    finest_first[scale] = FeatureInfo("tail", frame.tail, scale)
    network = CellClassifier(stages, list(finest_first.values()), frame.num_classes, dropout=frame.dropout)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = frame.norm_epsilon
    network.places, network.frame = places, frame
    return network


def _from_table(blocks: Sequence[Block], frame: Frame) -> CellClassifier:
    genes = [_read(index, gene) for index, (*_, gene) in enumerate(blocks)]

    def make(index: int, in_channels: int, shape: Shape) -> nn.Module:
        gene = genes[index]
        if gene is not None:
            return CellBlock(in_channels, shape.channels, gene, shape.stride)
        if shape.stride > 1 or shape.channels != in_channels:
            raise UsageError(
                f"block {index + 1} of the table is skipped, but leads from {in_channels} to {shape.channels} channels "
                f"with stride {shape.stride}; only a block that keeps the shape can be. Give it a gene."
            )
        return nn.Identity()

    return cell_classifier([Shape(channels, stride) for channels, stride, _ in blocks], frame, make)


def _read(index: int, gene: str) -> Gene | None:
    if gene == SKIP:
        return None
    try:
        return Gene.parse(gene)
    except UsageError as error:
        raise UsageError(f'block {index + 1} of the table: {error} "skip" leaves a block out.') from error


class Skeleton(NamedTuple):
    """Blocks to search in: how wide, how many, where they halve the map."""

    stem: int
    stride: int
    """Of the stem."""
    first: int
    """Channels of the first block, which is 512112/0/00 and not searched."""
    stages: tuple[tuple[int, int, int], ...]
    """Channels, blocks, and stride of the first of them."""
    tail: int

    def shapes(self) -> list[Shape]:
        """Of all blocks, the fixed first one included."""
        shapes = [Shape(self.first, 1)]
        for channels, blocks, stride in self.stages:
            shapes += [Shape(channels, stride if index == 0 else 1) for index in range(blocks)]
        return shapes


FIRST_GENE = "512112/0/00"
IMAGENET = Skeleton(
    32, 2, 16, ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1)), 1280
)  # fmt: skip
"""That of the published network, `autospace.md` section 4."""
TINY = Skeleton(16, 1, 8, ((16, 2, 1), (24, 3, 2), (40, 3, 2), (64, 2, 1)), 256)
"""For 32x32 images on a CPU."""
SMALL = Skeleton(16, 2, 16, ((24, 2, 1), (40, 3, 2), (80, 3, 2), (96, 2, 1), (160, 3, 2)), 640)
"""For images of about 64 to 128 pixels on a CPU."""
SKELETONS = {"imagenet": IMAGENET, "small": SMALL, "tiny": TINY}


def _table(skeleton: Skeleton, genes: Sequence[str]) -> tuple[Block, ...]:
    return tuple((*shape, gene) for shape, gene in zip(skeleton.shapes(), (FIRST_GENE, *genes), strict=True))


# `autospace.md` section 4.
_GENES_340M = (
    "512112/2/00", "512112/2/00", SKIP, SKIP,
    "752155/1/10", "252122/2/10", "512112/1/00", SKIP,
    "552155/2/00", "255125/1/00", "512112/2/00", SKIP,
    "752125/2/00", "512112/2/00", SKIP, SKIP,
    "752152/2/00", "912112/2/00", "912112/2/00", "912112/2/00",
    "912112/2/00",
)  # fmt: skip
# The 340M network's kinds of cells where it has them: at changes of resolution and in the middle, large kernels late.
_GENES_TINY = (
    "512112/2/00", "512112/1/00",
    "752155/1/10", "252122/2/10", "512112/1/00",
    "552155/2/00", "255125/1/00", "512112/2/00",
    "752125/2/00", "712112/2/00",
)  # fmt: skip
_GENES_SMALL = (
    "512112/2/00", "512112/2/00",
    "752155/1/10", "252122/2/10", "512112/1/00",
    "552155/2/00", "255125/1/00", "512112/2/00",
    "752125/2/00", "512112/2/00",
    "752152/2/00", "912112/2/00", "912112/2/00",
)  # fmt: skip
_BLOCKS_340M = _table(IMAGENET, _GENES_340M)
_SOURCE = "AutoSpace, arXiv 2103.11833"
_TAGS = ("mobile", "residual", "searched")


@register(source=_SOURCE, input_shape=(3, 224, 224), params=4_507_920, macs=336_336_512, tags=("imagenet", *_TAGS))
def autospace(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    blocks: Blocks = _BLOCKS_340M,
    stem: Channels = 32,
    tail: Channels = 1280,
    stride: Stride = 2,
    dropout: Dropout = 0.0,
    norm_epsilon: Epsilon = 1e-5,
) -> ImageClassifier:
    """A network of cells, each block given by its channels, stride and gene: what a search by AutoSpace leaves."""
    return _from_table(blocks, Frame(stem, tail, stride, dropout, norm_epsilon, num_classes, in_channels))


@register(source=_SOURCE, input_shape=(3, 224, 224), params=4_507_920, macs=336_336_512, tags=("imagenet", *_TAGS))
def autospace_340m(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    dropout: Dropout = 0.0,
    norm_epsilon: Epsilon = _PUBLISHED_EPSILON,
) -> ImageClassifier:
    """The network that the authors of AutoSpace published, decoded from its file."""
    return _from_table(_BLOCKS_340M, Frame(32, 1280, 2, dropout, norm_epsilon, num_classes, in_channels))


def _cut_down(
    skeleton: Skeleton, genes: Sequence[str], *, num_classes: int, in_channels: int, dropout: float
) -> CellClassifier:
    frame = Frame(skeleton.stem, skeleton.tail, skeleton.stride, dropout, 1e-5, num_classes, in_channels)
    return _from_table(_table(skeleton, genes), frame)


@register(
    source=f"after {_SOURCE}; cut down by us for small images",
    input_shape=(3, 32, 32),
    params=192_410,
    macs=20_073_472,
    tags=("cifar", *_TAGS, "tiny"),
)
def autospace_tiny(
    *, num_classes: NumClasses = 10, in_channels: InChannels = 3, dropout: Dropout = 0.0
) -> ImageClassifier:
    """The kinds of cells of the 340M network in a small one, for 32x32 images on a CPU."""
    return _cut_down(TINY, _GENES_TINY, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


@register(
    source=f"after {_SOURCE}; cut down by us for small images",
    input_shape=(3, 96, 96),
    params=1_459_314,
    macs=158_779_648,
    tags=(*_TAGS, "small"),
)
def autospace_small(
    *, num_classes: NumClasses = 10, in_channels: InChannels = 3, dropout: Dropout = 0.0
) -> ImageClassifier:
    """The kinds of cells of the 340M network in a middle-sized one, for images of 64 to 128 pixels on a CPU."""
    return _cut_down(SMALL, _GENES_SMALL, num_classes=num_classes, in_channels=in_channels, dropout=dropout)
