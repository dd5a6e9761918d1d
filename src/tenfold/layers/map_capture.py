"""Seeing the attention maps of a vision transformer while it runs, whoever wrote it.

Known are the attention of Tenfold, of timm's vision transformers, and PyTorch's own (torchvision). Fused kernels never
expose a map: ours takes the open way while somebody looks, of the others the maps are computed once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.errors import UsageError
from tenfold.layers.mixed_attention import attention_maps
from tenfold.layers.reattention import Attention

Seen = Callable[[int, Tensor, Tensor], None]
"""Is told the number of the block, its maps (B, H, N, N) after the softmax, and those that multiply the values."""

_TIMM_HOMES = {"timm.layers.attention", "timm.models.vision_transformer"}


def is_timm_attention(module: nn.Module) -> bool:
    """Whether it is the attention of timm's vision transformers (not of windows, with positions, ...)."""
    return type(module).__name__ == "Attention" and type(module).__module__ in _TIMM_HOMES


def self_attentions(network: nn.Module) -> dict[str, nn.Module]:
    """The attentions of a vision transformer by name, one a block, in the order of the network.

    Raises:
        UsageError: if there is none.
    """
    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, Attention | nn.MultiheadAttention) or is_timm_attention(module)
    }
    if not found:
        raise UsageError(
            f"{type(network).__name__} is not a vision transformer that is known here: it has no self-attention of "
            "Tenfold, of timm's vision transformers or torch.nn.MultiheadAttention. Try deepvit_s or "
            "timm:vit_small_patch16_224."
        )
    return found


@contextmanager
def watch_maps(network: nn.Module, seen: Seen) -> Iterator[None]:
    """Within the context, each block of the network tells its maps when it runs.

    The maps carry gradients where gradients are computed. Dropout of their entries is not shown.

    Args:
        network: a vision transformer.
        seen: called by each block.

    Raises:
        UsageError: if the network is no vision transformer.
    """
    handles: list[Any] = []
    watched: list[tuple[Attention, Any]] = []
    try:
        for number, attention in enumerate(self_attentions(network).values()):
            if isinstance(attention, Attention):
                watched.append((attention, attention.observer))
                attention.observer = partial(seen, number)
            else:
                hook = partial(_show, number, seen)
                handles.append(attention.register_forward_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for attention, before in watched:
            attention.observer = before


def _show(number: int, seen: Seen, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
    given = [*args, *kwargs.values()]
    if any(kwargs.get(name) is not None for name in ("attn_mask", "key_padding_mask")) or kwargs.get("is_causal"):
        raise UsageError("attention with a mask cannot be looked at: its maps are not those of an image's tokens.")
    maps = _maps_of_torch(module, given) if isinstance(module, nn.MultiheadAttention) else _maps_of_timm(module, given)
    seen(number, maps, maps)


def _maps_of_timm(module: Any, given: list[Any]) -> Tensor:
    q, k, _ = module.qkv(given[0]).unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return attention_maps(module.q_norm(q), module.k_norm(k), module.scale)


def _maps_of_torch(module: nn.MultiheadAttention, given: list[Any]) -> Tensor:
    query, key = given[0], given[1]
    if query is not key or not module._qkv_same_embed_dim:
        raise UsageError("torch.nn.MultiheadAttention is looked at where it is self-attention only: query is key.")
    x: Tensor = query if module.batch_first else query.transpose(0, 1)
    dim = module.embed_dim
    assert isinstance(module.in_proj_weight, Tensor)
    bias: Tensor | None = module.in_proj_bias
    both = F.linear(x, module.in_proj_weight[: 2 * dim], None if bias is None else bias[: 2 * dim])
    q, k = both.unflatten(2, (2, module.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return attention_maps(q, k, module.head_dim**-0.5)


def similarity(first: Tensor, second: Tensor, axis: str) -> Tensor:
    """Cosine of the maps of two blocks (B, H, N, N), along one axis.

    Source: `deepvit.md` 2.1 ("key": the column of a token, how much it gives to each; "query": its row, what it takes)
    and 2.8 ("head": at each place of the map over the heads, as in the authors' regulariser).

    Returns:
        (B, H, N), or (B, N, N) along the heads.
    """
    dim = {"head": 1, "key": 2, "query": 3}[axis]
    return F.cosine_similarity(first, second, dim=dim, eps=1e-8)
