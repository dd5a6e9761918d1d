"""Networks that give each pixel a class: the feature maps of any classifier, and a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.models.architecture import Architecture, build
from tenfold.models.feature_maps import feature_maps
from tenfold.models.libraries import LIBRARIES
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import facts, list_models, register
from tenfold.models.segmentation_heads import HEADS

HeadName = Literal["lraspp", "multires"]
HeadChannels = Annotated[int, Field(ge=1, le=4096)]
Stride = Annotated[int, Field(ge=1, le=64)]

TAG = "segmentation"
"""Marks the networks of the registry that give scores for each pixel and not for the image."""


class Segmenter(nn.Module):
    """A backbone and a head.

    Args:
        backbone: gives feature maps, finest first, and lists them in `feature_info`; see `feature_maps`.
        head: makes scores of them.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, num_classes, H / stride, W / stride) of images (B, C, H, W).

        They stay at the stride of the head: who needs them at the size of the image enlarges them bilinearly.
        """
        return self.head(self.backbone(x))


@register(
    source="LR-ASPP, arXiv 1905.02244, and HRNet, arXiv 1908.07919",
    input_shape=(3, 180, 240),
    params=2_553_590,
    macs=283_289_632,
    tags=(TAG, "mobile"),
)
def segmenter(
    *,
    num_classes: NumClasses = 11,
    in_channels: InChannels = 3,
    network: str = "mobilenet_v2",
    options: dict[str, Any] = {},  # noqa: B006 - never changed
    head: HeadName = "lraspp",
    head_channels: HeadChannels = 128,
    stride: Stride | None = None,
    pretrained: bool = False,
) -> Segmenter:
    """A class for each pixel: any classifier's feature maps under a light or a multi-resolution head."""
    backbone: Any = _backbone(network, dict(options), in_channels, pretrained)
    chosen: dict[str, Any] = {"channels": head_channels} | ({} if stride is None else {"stride": stride})
    return Segmenter(backbone, HEADS[head](backbone.feature_info, num_classes, **chosen))


def _backbone(network: str, options: dict[str, Any], in_channels: int, pretrained: bool) -> nn.Module:
    prefix, colon, name = network.partition(":")
    if TAG in facts(network).tags:
        raise UsageError(f"model 'segmenter' cannot stand on {network!r}, which gives a class for each pixel already.")
    if colon:
        if options:
            raise UsageError(
                f"model 'segmenter' takes no options for {network!r}, got {options}. Leave them out; "
                "pretrained weights are an option of the segmenter itself."
            )
        return LIBRARIES[prefix].features(name, in_channels, pretrained)
    if pretrained:
        raise UsageError(
            f"{network!r} comes without pretrained weights. Leave pretrained out, and start from a file (--weights), "
            "or take a network of timm or torchvision."
        )
    # As read from outside: only what describes the shape.
    return feature_maps(build(Architecture.from_dict({"name": network, "options": options}), in_channels=in_channels))


def for_pixels(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and options of a network that gives each pixel a class.

    Args:
        name: of any network. A classifier gets a head: its own where it has a twin `NAME_segmenter` and the options do
            not ask for another one. Others stay as they are.
        options: of it, and of `segmenter`.

    Returns:
        What `build` takes.

    Raises:
        UnknownNameError: if there is no such network.
    """
    if TAG in facts(name).tags:
        return name, dict(options)
    own = {"head", "head_channels", "stride", "pretrained", "num_classes", "in_channels"}
    outer = {key: value for key, value in options.items() if key in own}
    inner = {key: value for key, value in options.items() if key not in own}
    twin = f"{name}_segmenter"
    if not outer.keys() - {"num_classes", "in_channels"} and twin in list_models(f"{name}_*"):
        return twin, dict(options)
    return "segmenter", {**outer, "network": name, "options": inner}
