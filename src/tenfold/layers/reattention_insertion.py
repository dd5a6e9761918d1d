"""Re-attention for a vision transformer that exists, with its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.layers.map_capture import is_timm_attention, self_attentions, watch_maps
from tenfold.layers.mixed_attention import Statistics
from tenfold.layers.reattention import Attention, Norm, ReAttention, Theta
from tenfold.modes import evaluating


def insert_reattention(
    network: nn.Module,
    blocks: Iterable[int] | None = None,
    *,
    theta: Theta = "identity",
    norm: Norm = "batch",
    gain: float = 1.0,
    images: Tensor | None = None,
) -> nn.Module:
    """Give blocks of a vision transformer re-attention, in place; all weights stay.

    Started as the identity, the network answers in evaluation as before. In training a batch norm takes the statistics
    of the batch, and with the plain identity that changes the maps at once: it removes their mean. With `images` the
    norm's scale and shift start at the statistics of the maps of these images, and training starts where the network
    was, too.

    Args:
        network: with the attention of timm's vision transformers, or Tenfold's.
        blocks: numbers of the blocks, from 0; None is all.
        theta: how the mixing of heads starts.
        norm: of the mixed maps.
        gain: factor on the normalised maps.
        images: a batch (B, C, H, W) as the network is used to; goes with the identity.

    Returns:
        The network.

    Raises:
        UsageError: if it is no vision transformer, has no such block, or one whose attention cannot be replaced.
    """
    names = list(self_attentions(network))
    chosen = choose_blocks(len(names), blocks)
    attentions = {number: _checked(network.get_submodule(names[number]), names[number]) for number in chosen}
    if images is not None and theta != "identity":
        raise UsageError(f"images set where the identity starts, not theta={theta!r}. Leave one of them out.")
    measured = _measure(network, images) if images is not None else {}
    for number, attention in attentions.items():
        parent, _, child = names[number].rpartition(".")
        mixed = _with_mixing(attention, theta, norm, gain)
        if number in measured:
            mixed.start_at(measured[number])
        setattr(network.get_submodule(parent), child, mixed)
    return network


def choose_blocks(depth: int, blocks: Iterable[int] | None) -> tuple[int, ...]:
    """The numbers of blocks, checked and in order.

    Args:
        depth: how many blocks there are.
        blocks: their numbers, from 0; None is all.

    Raises:
        UsageError: if there is no such block.

    Example:
        >>> choose_blocks(4, [3, 1])
        (1, 3)
    """
    chosen = sorted(set(range(depth) if blocks is None else blocks))
    unknown = [number for number in chosen if not 0 <= number < depth]
    if unknown:
        raise UsageError(
            f"there is no block {', '.join(map(str, unknown))}: the network has {depth} blocks, numbered 0 to "
            f"{depth - 1}. Name those, or leave them out for all."
        )
    return tuple(chosen)


def expose_products(network: nn.Module) -> dict[str, Attention]:
    """Give a vision transformer of timm the attention of Tenfold, in place, whose products are modules.

    All weights and their names stay, and up to rounding the answers.

    Returns:
        Every attention by name.

    Raises:
        UsageError: if the network has no attention, or one that cannot be replaced.
    """
    attentions: dict[str, Attention] = {}
    for name, module in self_attentions(network).items():
        if isinstance(module, Attention):
            attentions[name] = module
            continue
        _check_replaceable(module, name, "be opened")
        parent, _, child = name.rpartition(".")
        attentions[name] = _opened(module)
        setattr(network.get_submodule(parent), child, attentions[name])
    return attentions


def _checked(attention: Any, name: str) -> Any:
    if isinstance(attention, ReAttention):
        raise UsageError(f"{name} has re-attention already. Name other blocks.")
    _check_replaceable(attention, name, "be given re-attention")
    return attention


def _check_replaceable(attention: Any, name: str, what: str) -> None:
    if not isinstance(attention, Attention):
        reason = ""
        if not is_timm_attention(attention):
            reason = f"it is {type(attention).__name__}"
        elif getattr(attention, "gate", None) is not None:
            reason = "its output is gated"
        elif not isinstance(getattr(attention, "norm", None), nn.Identity | None):
            reason = "its output is normalised"
        if reason:
            raise UsageError(
                f"{name} cannot {what}: {reason}. Wanted is the plain attention of timm's vision "
                "transformers, or Tenfold's."
            )


def _opened(attention: Any) -> Attention:
    heads = attention.num_heads
    return _with_layers(Attention(heads, heads, scale=float(attention.scale)), attention)


def _with_mixing(attention: Any, theta: Theta, norm: Norm, gain: float) -> ReAttention:
    """Re-attention with the layers of an attention."""
    heads = attention.num_heads
    mixed = ReAttention(heads, heads, scale=float(attention.scale), theta=theta, norm=norm, gain=gain)
    return _with_layers(mixed, attention)


_Attention = TypeVar("_Attention", bound=Attention)


def _with_layers(twin: _Attention, attention: Any) -> _Attention:
    """A new attention with the layers of another."""
    weight = attention.qkv.weight
    twin.to(weight.device, weight.dtype).train(attention.training)
    for name in ("qkv", "q_norm", "k_norm", "attn_drop", "proj", "proj_drop"):
        setattr(twin, name, getattr(attention, name))
    return twin


@torch.no_grad()
def _measure(network: nn.Module, images: Tensor) -> dict[int, Statistics]:
    """Mean and variance of each head's maps in each block, in evaluation mode."""
    found: dict[int, Statistics] = {}

    def note(number: int, maps: Tensor, _: Tensor) -> None:
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        found[number] = Statistics(mean, variance, maps[:, 0].numel())

    with evaluating(network), watch_maps(network, note):
        network(images)
    return found
