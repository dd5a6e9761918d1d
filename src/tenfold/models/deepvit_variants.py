"""The published DeepViTs and their plain twins by name, and small ones for 32x32 images.

Multiply-adds are those of linear layers, convolutions, both products of attention and the mixing of heads.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tenfold.layers.reattention import Norm, Theta
from tenfold.models.deepvit import Stem, VisionTransformer
from tenfold.models.options import Dropout, InChannels, NumClasses
from tenfold.models.registry import register

ImageSize = Annotated[int, Field(ge=8, le=4096)]
"""Side of the image that the position embedding is made for."""
PatchSize = Annotated[int, Field(ge=1, le=256)]
Dim = Annotated[int, Field(ge=1, le=8192)]
"""Channels of a token."""
Depth = Annotated[int, Field(ge=1, le=256)]
Heads = Annotated[int, Field(ge=1, le=256)]
MlpRatio = Annotated[float, Field(gt=0.0, le=64.0, allow_inf_nan=False)]
"""Channels inside the MLPs over those of a token."""
Blocks = Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(max_length=256)]
"""Numbers of the blocks with re-attention, from 0."""
Gain = Annotated[float, Field(gt=0.0, le=1024.0, allow_inf_nan=False)]
"""Factor on the normalised maps."""
ResidualScale = Annotated[float, Field(gt=0.0, le=64.0, allow_inf_nan=False)]
"""What a branch's input is multiplied by, and its output divided."""

_SOURCE = "DeepViT, arXiv 2103.11886"
_TAGS = ("imagenet", "transformer")
_TOY = "after DeepViT, arXiv 2103.11886; cut down by us for small images"
_DEEP_S, _DEEP_L = tuple(range(11, 16)), tuple(range(20, 32))


@register(source=_SOURCE, input_shape=(3, 224, 224), params=24_426_664, macs=5_272_300_800, tags=_TAGS)
def deepvit(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    patch_size: PatchSize = 16,
    dim: Dim = 384,
    depth: Depth = 16,
    heads: Heads = 12,
    mlp_ratio: MlpRatio = 3.0,
    blocks: Blocks | None = None,
    stem: Stem = "patch",
    theta: Theta = "random",
    norm: Norm = "batch",
    gain: Gain = 1.0,
    residual_scale: ResidualScale = 1.0,
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """A vision transformer of any size, with re-attention in any blocks: all, or by `blocks=[...]` some or none."""
    return VisionTransformer(
        image_size=image_size,
        patch_size=patch_size,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        blocks=blocks,
        stem=stem,
        theta=theta,
        norm=norm,
        gain=gain,
        residual_scale=residual_scale,
        drop_path=drop_path,
        dropout=dropout,
        num_classes=num_classes,
        in_channels=in_channels,
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=27_312_632, macs=6_361_317_552, tags=_TAGS)
def deepvit_s(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    blocks: Blocks = _DEEP_S,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """DeepViT-S: 16 blocks, re-attention in the last 5, a stem of three convolutions."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
        dim=396,
        depth=16,
        stem="conv",
        gain=33**-0.5,
        residual_scale=0.5,
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=58_883_708, macs=13_148_542_560, tags=_TAGS)
def deepvit_l(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    blocks: Blocks = _DEEP_L,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """DeepViT-L: 32 blocks, re-attention in the last 12, a stem of three convolutions."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
        dim=420,
        depth=32,
        stem="conv",
        residual_scale=0.5,
    )


@register(source=_SOURCE, input_shape=(3, 384, 384), params=59_043_308, macs=44_792_024_160, tags=_TAGS)
def deepvit_l_384(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 384,
    blocks: Blocks = _DEEP_L,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """DeepViT-L for images of 384x384."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
        dim=420,
        depth=32,
        stem="conv",
        residual_scale=0.5,
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=24_426_664, macs=5_272_300_800, tags=_TAGS)
def deepvit_16b(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    blocks: Blocks | None = None,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """DeepViT of 16 blocks, all with re-attention."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
        depth=16,
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=36_261_448, macs=7_879_357_824, tags=_TAGS)
def deepvit_24b(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    blocks: Blocks | None = None,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """DeepViT of 24 blocks, all with re-attention."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
        depth=24,
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=48_096_232, macs=10_486_414_848, tags=_TAGS)
def deepvit_32b(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    blocks: Blocks | None = None,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """DeepViT of 32 blocks, all with re-attention."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
        depth=32,
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=24_423_784, macs=5_182_884_864, tags=_TAGS)
def vit_16b(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """The plain twin of `deepvit_16b`: the same vision transformer without re-attention."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        drop_path=drop_path,
        dropout=dropout,
        depth=16,
        blocks=(),
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=36_257_128, macs=7_745_233_920, tags=_TAGS)
def vit_24b(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """The plain twin of `deepvit_24b`: the same vision transformer without re-attention."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        drop_path=drop_path,
        dropout=dropout,
        depth=24,
        blocks=(),
    )


@register(source=_SOURCE, input_shape=(3, 224, 224), params=48_090_472, macs=10_307_582_976, tags=_TAGS)
def vit_32b(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    image_size: ImageSize = 224,
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """The plain twin of `deepvit_32b`: the same vision transformer without re-attention."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        drop_path=drop_path,
        dropout=dropout,
        depth=32,
        blocks=(),
    )


@register(source=_TOY, input_shape=(3, 32, 32), params=676_234, macs=52_530_048, tags=("cifar", "tiny", "transformer"))
def deepvit_tiny(
    *,
    num_classes: NumClasses = 10,
    in_channels: InChannels = 3,
    image_size: ImageSize = 32,
    patch_size: PatchSize = 4,
    dim: Dim = 64,
    depth: Depth = 16,
    heads: Heads = 4,
    mlp_ratio: MlpRatio = 3.0,
    blocks: Blocks | None = None,
    theta: Theta = "random",
    norm: Norm = "batch",
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """A small DeepViT for 32x32 images on a CPU, of any depth."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch_size,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        blocks=blocks,
        theta=theta,
        norm=norm,
        drop_path=drop_path,
        dropout=dropout,
    )


@register(source=_TOY, input_shape=(3, 32, 32), params=675_786, macs=51_448_448, tags=("cifar", "tiny", "transformer"))
def vit_tiny(
    *,
    num_classes: NumClasses = 10,
    in_channels: InChannels = 3,
    image_size: ImageSize = 32,
    patch_size: PatchSize = 4,
    dim: Dim = 64,
    depth: Depth = 16,
    heads: Heads = 4,
    mlp_ratio: MlpRatio = 3.0,
    drop_path: Dropout = 0.0,
    dropout: Dropout = 0.0,
) -> VisionTransformer:
    """The plain twin of `deepvit_tiny`."""
    return deepvit(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch_size,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        drop_path=drop_path,
        dropout=dropout,
        blocks=(),
    )
