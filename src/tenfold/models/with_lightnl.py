"""Any network of the registry with LightNL blocks put into it: what a search for their places leaves.

By default it is MobileNetV2 with the hand-set choice of the paper: behind every bottleneck, a quarter of the channels,
every second row and column where the map is larger than 14x14 (arXiv 2004.01961, `autonl.md` sections 3 and 4.1).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.insertion import insert_light_non_local
from tenfold.models.architecture import Architecture, build
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register

Ratio = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Places = Annotated[
    tuple[tuple[str, Annotated[int, Field(ge=1, le=65536)], Ratio, Annotated[int, Field(ge=1, le=16)]], ...],
    Field(max_length=512),
]
"""Layer, its output channels, part of them that are compared, and stride of the places gathered from."""

_STAGES = ((16, 1, 2), (24, 2, 2), (32, 3, 2), (64, 4, 1), (96, 3, 1), (160, 3, 1), (320, 1, 1))
"""Output channels, blocks, and sampling stride of each stage of MobileNetV2 at 224x224."""
_MOBILENET_V2 = tuple(
    (f"stage{stage}.{block}.project", channels, 0.25, stride)
    for stage, (channels, blocks, stride) in enumerate(_STAGES)
    for block in range(blocks)
)


@register(
    source="AutoNL, arXiv 2004.01961",
    input_shape=(3, 224, 224),
    params=3_521_416,
    macs=315_526_408,
    tags=("imagenet", "mobile", "residual", "non-local"),
)
def with_lightnl(
    *,
    num_classes: NumClasses = 1000,
    in_channels: InChannels = 3,
    network: str = "mobilenet_v2",
    options: dict[str, Any] = {},  # noqa: B006 - never changed
    places: Places = _MOBILENET_V2,
) -> nn.Module:
    """A network with LightNL blocks behind layers of it, by default MobileNetV2 with one behind every bottleneck."""
    if network == "with_lightnl":
        raise UsageError(
            "model 'with_lightnl' cannot take option network='with_lightnl': put all places into one list instead."
        )
    # As read from outside: weights are not among the options that a description may ask for.
    described = Architecture.from_dict({"name": network, "options": dict(options)})
    built = build(described, num_classes=num_classes, in_channels=in_channels)
    return insert_light_non_local(built, places)
