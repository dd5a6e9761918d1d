"""Any vision transformer of the registry with re-attention put into blocks of it: deepening a network that exists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.layers.reattention import Norm, Theta
from tenfold.layers.reattention_insertion import insert_reattention
from tenfold.models.architecture import Architecture, build
from tenfold.models.deepvit_variants import Blocks, Gain
from tenfold.models.options import InChannels, NumClasses
from tenfold.models.registry import register


def reattention(
    network: nn.Module,
    blocks: Iterable[int] | None = None,
    *,
    theta: Theta = "identity",
    norm: Norm = "batch",
    gain: float = 1.0,
    images: Tensor | None = None,
) -> nn.Module:
    """Give blocks of a vision transformer re-attention, in place; its weights stay, and in evaluation its answers too.

    As `insert_reattention`, and a network that `build` made knows afterwards how to be built again.

    Args:
        network: of timm, or ours, such as `build("timm:vit_small_patch16_224")`.
        blocks: numbers of the blocks, from 0; None is all.
        theta: how the mixing of heads starts.
        norm: of the mixed maps.
        gain: factor on the normalised maps.
        images: a batch (B, C, H, W) as the network is used to. With it, training too starts where the network was;
            without, a batch norm changes the maps as soon as it trains.

    Returns:
        The network.

    Raises:
        UsageError: if it is no vision transformer, has no such block, or one whose attention cannot be replaced.

    Example:
        >>> from tenfold.models import build
        >>> type(reattention(build("vit_tiny", depth=4), [2, 3]).blocks[3].attn).__name__
        'ReAttention'
    """
    blocks = None if blocks is None else tuple(blocks)
    insert_reattention(network, blocks, theta=theta, norm=norm, gain=gain, images=images)
    described = getattr(network, "architecture", None)
    if isinstance(described, Architecture):
        network.architecture = _described(described, blocks, theta, norm, gain)  # type: ignore[assignment]
    return network


def _described(
    described: Architecture, blocks: tuple[int, ...] | None, theta: Theta, norm: Norm, gain: float
) -> Architecture:
    known = {"num_classes", "in_channels"}
    plain = described.to_dict()["options"]
    outer = {option: value for option, value in plain.items() if option in known}
    inner = {option: value for option, value in plain.items() if option not in known}
    options = {"network": described.name, "options": inner, "blocks": blocks, "theta": theta}
    return Architecture("with_reattention", {**outer, **options, "norm": norm, "gain": gain})


@register(
    source="after DeepViT, arXiv 2103.11886; cut down by us for small images",
    input_shape=(3, 32, 32),
    params=676_234,
    macs=52_530_048,
    tags=("cifar", "tiny", "transformer"),
)
def with_reattention(
    *,
    num_classes: NumClasses = 10,
    in_channels: InChannels = 3,
    network: str = "vit_tiny",
    options: dict[str, Any] = {},  # noqa: B006 - never changed
    blocks: Blocks | None = None,
    theta: Theta = "identity",
    norm: Norm = "batch",
    gain: Gain = 1.0,
) -> nn.Module:
    """A vision transformer with re-attention in some or all blocks, of this registry or of timm."""
    # As read from outside: weights are not among the options that a description may ask for.
    described = Architecture.from_dict({"name": network, "options": dict(options)})
    if network == "with_reattention":
        raise UsageError(
            "model 'with_reattention' cannot take option network='with_reattention': name all blocks at once instead."
        )
    built = build(described, num_classes=num_classes, in_channels=in_channels)
    return insert_reattention(built, blocks, theta=theta, norm=norm, gain=gain)
