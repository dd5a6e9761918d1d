"""Image classifiers of atomic blocks, each given by its output channels, its stride and its atoms (`atomnas.md`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.atomic import Activation, AtomicBlock, FusedAtomicBlock, conv_norm_act
from tenfold.layers.pooling import GlobalPool
from tenfold.models.architecture import Architecture
from tenfold.models.classifier import FeatureInfo, ImageClassifier, initialise_mnas

KERNELS = (3, 5, 7)
Channels = Annotated[int, Field(ge=1, le=8192)]
Stride = Annotated[int, Field(ge=1, le=2)]
Atoms = Annotated[int, Field(ge=0, le=65536)]
Block = tuple[Channels, Stride, Atoms, Atoms, Atoms]
"""Output channels, stride, and atoms of kernel size 3, 5 and 7. Without any atom the block is the identity."""
Blocks = Annotated[tuple[Block, ...], Field(min_length=1, max_length=256)]

_KEPT_OPTIONS = ("num_classes", "in_channels", "dropout", "squeeze", "activation")


class AtomicClassifier(ImageClassifier):
    """An image classifier of atomic blocks, which knows how to describe itself after a search has changed it.

    Attributes:
        blocks: name, output channels and stride of every block but the fixed first one.
        shape: the options of `atomnas` that no search changes.
    """

    blocks: list[tuple[str, int, int]]
    shape: dict[str, int]

    def found_architecture(self) -> Architecture:
        """The network as it is now: its table of atoms in the place of the one that it was built with."""
        kept = {name: value for name, value in self.architecture.options.items() if name in _KEPT_OPTIONS}  # type: ignore[union-attr, operator]
        table = [
            [channels, stride, *(_atoms_of(self.get_submodule(name)).get(kernel, 0) for kernel in KERNELS)]
            for name, channels, stride in self.blocks
        ]
        return Architecture("atomnas", {"squeeze": 0.0, "activation": "relu", **kept, **self.shape, "blocks": table})


def _atoms_of(block: nn.Module) -> dict[int, int]:
    """Kernel size -> atoms of a block of either layout; empty for one that has vanished."""
    parts = getattr(block, "branches", getattr(block, "depthwise", {}))
    found = {}
    for name, part in parts.items():
        conv = part.get_submodule("depthwise.conv") if isinstance(block, AtomicBlock) else part.get_submodule("conv")
        found[int(name.removeprefix("k"))] = conv.out_channels
    return found


def atomic_classifier(
    blocks: Sequence[Block],
    *,
    stem: int,
    first: int,
    tail: int,
    stride: int,
    squeeze: float,
    activation: Activation,
    dropout: float,
    num_classes: int,
    in_channels: int,
    official_start: bool = True,
) -> AtomicClassifier:
    """Build a network from its table of atoms.

    Args:
        blocks: output channels, stride, and atoms of kernel size 3, 5 and 7 of each block.
        stem: channels of the first convolution.
        first: channels of the first block, which has no expansion.
        tail: channels of the last convolution.
        stride: of the first convolution.
        squeeze: channels inside squeeze-and-excitation over a block's input channels; 0 leaves it out.
        activation: everywhere.
        dropout: before the classifier.
        num_classes: outputs.
        in_channels: of the images.
        official_start: draw fresh weights as the authors do, which suits their RMSprop and 1000 classes. PyTorch's own
            are smaller before batch norms, so SGD turns them faster.

    Raises:
        UsageError: if a block that changes the shape has no atoms.
    """
    stages: dict[str, nn.Module] = {"stem": conv_norm_act(in_channels, stem, activation, 3, stride)}
    finest_first: dict[int, FeatureInfo] = {}
    names: list[str] = []
    width, scale = stem, stride
    table = [
        (first, 1, {3: stem}, False),
        *((c, s, dict(zip(KERNELS, atoms, strict=True)), True) for c, s, *atoms in blocks),
    ]
    stage: list[nn.Module] = []
    for position, (channels, step, atoms, expands) in enumerate(table):
        if not stage or step > 1 or channels != width:
            index = sum(name.startswith("stage") for name in stages)
            stage = []
        name = f"stage{index}.{len(stage)}"
        stage.append(_block(name, width, channels, step, atoms, expands, squeeze, activation))
        stages[f"stage{index}"] = nn.Sequential(*stage)
        if position:
            names.append(name)
        width, scale = channels, scale * step
        finest_first[scale] = FeatureInfo(f"stage{index}", channels, scale)  # the last stage of each stride
    stages["tail"] = conv_norm_act(width, tail, activation)
    finest_first[scale] = FeatureInfo("tail", tail, scale)
    network = AtomicClassifier(stages, list(finest_first.values()), num_classes, pool=GlobalPool(), dropout=dropout)
    if official_start:
        initialise_mnas(network)
    network.blocks = [(name, channels, step) for name, (channels, step, *_) in zip(names, blocks, strict=True)]
    network.shape = {"stem": stem, "first": first, "tail": tail, "stride": stride}
    return network


def _block(
    name: str,
    in_channels: int,
    out_channels: int,
    stride: int,
    atoms: Mapping[int, int],
    expands: bool,
    squeeze: float,
    activation: Activation,
) -> nn.Module:
    if not any(atoms.values()):
        if stride > 1 or in_channels != out_channels:
            raise UsageError(
                f"block {name} has no atoms, but leads from {in_channels} to {out_channels} channels with stride "
                f"{stride}; only a block that keeps the shape can be empty. Give it at least one atom."
            )
        return nn.Identity()
    if not squeeze:
        return AtomicBlock(in_channels, out_channels, atoms, stride=stride, expands=expands, activation=activation)
    # Of the block's input, and rounded half to even, as in the official code.
    return FusedAtomicBlock(
        in_channels,
        out_channels,
        atoms,
        stride=stride,
        expands=expands,
        activation=activation,
        squeezed=max(1, round(squeeze * in_channels)),
    )
