"""CompFeat by name: for servers, for laptops, and small enough to train on a few processor cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register

Count = Annotated[int, Field(ge=1, le=4096)]
Factor = Annotated[float, Field(ge=0.25, le=64, allow_inf_nan=False)]
Strides = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(max_length=4)]
Scope = Annotated[str, Field(max_length=12)]

_SOURCE = "CompFeat, arXiv 2012.03400; MaskTrack R-CNN, arXiv 1905.04804"
_STANDARDS = {"efficientnet_lite0": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}


@register(
    takes="frame",
    source=_SOURCE,
    input_shape=(3, 240, 432),
    params=4_126_871,
    macs=6_105_788_864,
    tags=("video", "instances"),
)
def compfeat(
    *,
    num_classes: NumClasses = 40,
    in_channels: InChannels = 3,
    network: str = "mobilenet_v2",
    options: dict[str, Any] = {},  # noqa: B006 - never changed
    finest: Annotated[int, Field(ge=2, le=16)] = 4,
    channels: Count = 96,
    anchor_scale: Factor = 4.0,
    proposals: Count = 100,
    region_width: Count = 256,
    mask_layers: Annotated[int, Field(ge=1, le=8)] = 2,
    canonical_scale: Annotated[int, Field(ge=8, le=1024)] = 112,
    detections: Count = 10,
    score_threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05,
    frames: Strides = (16, 32),
    objects: Scope = "roi:2",
    tracker: Literal["correlation", "fc"] = "correlation",
    inner: Count = 64,
    object_inner: Count = 48,
    scope: Scope = "global",
    position: bool = False,
    supports: Annotated[int, Field(ge=1, le=16)] = 3,
    support_stride: Annotated[int, Field(ge=1, le=100)] = 1,
    memory: Annotated[int, Field(ge=1, le=1000)] = 20,
    detached_supports: bool = False,
    frozen_norm: bool = False,
    pretrained: bool = False,
) -> nn.Module:
    """Finds and follows objects in video: any convolutional network's maps under CompFeat's parts."""
    # Here, because torchvision takes a second to import.
    from tenfold.models.backbones import detection_backbone
    from tenfold.models.compfeat_network import CompFeat, CompFeatSettings
    from tenfold.models.mask_rcnn import DetectorSettings

    backbone = detection_backbone("compfeat", network, dict(options), in_channels, pretrained, finest)
    settings = CompFeatSettings(
        detector=DetectorSettings(
            channels=channels,
            anchor_scale=anchor_scale,
            proposals=proposals,
            region_width=region_width,
            mask_layers=mask_layers,
            canonical_scale=canonical_scale,
            regions=128 if region_width > 512 else 32,
            detections=detections,
            score_threshold=score_threshold,
        ),
        frames=tuple(frames),
        objects=objects,
        tracker=tracker,
        inner=inner,
        object_inner=object_inner,
        scope=scope,
        position=position,
        supports=supports,
        support_stride=support_stride,
        memory=memory,
        detached_supports=detached_supports,
        frozen_norm=frozen_norm,
    )
    standard: tuple[Sequence[float], Sequence[float]] | None = _STANDARDS.get(network)
    if in_channels != 3:
        standard = ((0.5,) * in_channels, (0.25,) * in_channels)
    return CompFeat(backbone, num_classes, settings, standard)


@register(
    takes="frame",
    source=_SOURCE,
    input_shape=(3, 360, 640),
    params=51_471_687,
    macs=121_385_684_480,
    tags=("video", "instances"),
)
def compfeat_r50(
    *,
    num_classes: NumClasses = 40,
    in_channels: InChannels = 3,
    frames: Strides = (16, 32),
    objects: Scope = "dense",
    tracker: Literal["correlation", "fc"] = "correlation",
    scope: Scope = "global",
    memory: Annotated[int, Field(ge=1, le=1000)] = 20,
    detached_supports: bool = False,
    frozen_norm: bool = False,
) -> nn.Module:
    """CompFeat as published, on ResNet-50; 40 classes of YouTube-VIS."""
    return compfeat(
        num_classes=num_classes,
        in_channels=in_channels,
        network="resnet50",
        channels=256,
        anchor_scale=8.0,
        proposals=200,
        region_width=1024,
        mask_layers=4,
        canonical_scale=224,
        frames=frames,
        objects=objects,
        tracker=tracker,
        inner=256,
        object_inner=128,
        scope=scope,
        memory=memory,
        detached_supports=detached_supports,
        frozen_norm=frozen_norm,
    )


@register(
    takes="frame",
    source=_SOURCE,
    input_shape=(3, 240, 432),
    params=16_890_567,
    macs=13_801_725_184,
    tags=("video", "instances"),
)
def compfeat_small(
    *,
    num_classes: NumClasses = 40,
    in_channels: InChannels = 3,
    frames: Strides = (16, 32),
    objects: Scope = "roi:2",
    tracker: Literal["correlation", "fc"] = "correlation",
    scope: Scope = "global",
    memory: Annotated[int, Field(ge=1, le=1000)] = 20,
    detached_supports: bool = False,
    frozen_norm: bool = False,
) -> nn.Module:
    """CompFeat on ResNet-18 with a pyramid of 128 channels."""
    return compfeat(
        num_classes=num_classes,
        in_channels=in_channels,
        network="resnet18",
        channels=128,
        region_width=512,
        frames=frames,
        objects=objects,
        tracker=tracker,
        inner=128,
        object_inner=64,
        scope=scope,
        memory=memory,
        detached_supports=detached_supports,
        frozen_norm=frozen_norm,
    )


@register(
    takes="frame",
    source=_SOURCE,
    input_shape=(3, 240, 432),
    params=4_372_735,
    macs=3_952_867_136,
    tags=("video", "instances", "tiny"),
)
def compfeat_tiny(
    *,
    num_classes: NumClasses = 8,
    in_channels: InChannels = 3,
    frames: Strides = (8, 16, 32),
    objects: Scope = "roi:2",
    tracker: Literal["correlation", "fc"] = "correlation",
    scope: Scope = "global",
    memory: Annotated[int, Field(ge=1, le=1000)] = 20,
    detached_supports: bool = False,
    frozen_norm: bool = False,
    pretrained: bool = False,
) -> nn.Module:
    """CompFeat on EfficientNet-Lite0, for SpriteVIS and for a few processor cores."""
    return compfeat(
        num_classes=num_classes,
        in_channels=in_channels,
        network="efficientnet_lite0",
        channels=64,
        anchor_scale=2.0,
        frames=frames,
        objects=objects,
        tracker=tracker,
        inner=48,
        scope=scope,
        memory=memory,
        detached_supports=detached_supports,
        frozen_norm=frozen_norm,
        pretrained=pretrained,
    )
