"""Self-attention of vision transformers, plain and with re-attention.

Deep in a plain vision transformer the attention maps of neighbouring blocks become alike. Re-attention mixes the maps
of all heads of a block by a learned matrix and normalises the result:

    ReAttention(Q, K, V) = Norm(Theta^T softmax(Q K^T / sqrt(d))) V

Source: "DeepViT: Towards Deeper Vision Transformer" (arXiv 2103.11886), `deepvit.md` section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.errors import ShapeError, UnknownNameError, UsageError
from tenfold.layers.lightnl import full_precision
from tenfold.layers.mixed_attention import (
    BatchNorm,
    Statistics,
    mixed_attention,
    normalized_mixed_attention,
)
from tenfold.products import HeadMixing, Product

Theta: TypeAlias = Literal["random", "identity"]
"""How the mixing of heads starts: as a convolution does (the authors' code), or with each map as it is."""
Norm: TypeAlias = Literal["batch", "heads", "none"]
"""Of the mixed maps: batch norm of each head (the authors' code), layer norm over the heads at each place, or none."""
Observer: TypeAlias = Callable[[Tensor, Tensor], None]
"""Is told the maps (B, H, N, N) after the softmax, and those that multiply the values."""


def head_width(dim: int, heads: int) -> int:
    """Channels of each head.

    Raises:
        UsageError: if the heads do not divide the width.

    Example:
        >>> head_width(384, 12)
        32
    """
    if dim < 1 or heads < 1 or dim % heads:
        near = [count for count in range(1, max(dim, 0) + 1) if dim % count == 0]
        raise UsageError(
            f"{heads} heads do not divide a width of {dim}. Take a number of heads that does "
            f"({', '.join(map(str, near[:12]))}), or another width."
        )
    return dim // heads


class Attention(nn.Module):
    """Multi-head self-attention by PyTorch's fused kernel, unless something wants to see or to replace its products.

    Args:
        dim: channels of each token.
        heads: they share the channels.
        qkv_bias: whether queries, keys and values have a bias.
        scale: of the products of queries and keys; None is 1 / sqrt(channels of a head).
        attention_dropout: share of the maps' entries that is dropped while training.
        dropout: share of the output that is dropped while training.

    Raises:
        UsageError: if the heads do not divide the width.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        scale: float | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = heads
        self.scale = head_width(dim, heads) ** -0.5 if scale is None else scale
        self.observer: Observer | None = None
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        self.query_key: nn.Module = Product()
        self.map_value: nn.Module = Product(is_signed=False)
        self.attn_drop = nn.Dropout(attention_dropout)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, N, dim) to the same; a mask is refused, it is there since timm's blocks hand one on.

        Raises:
            ShapeError: if the tokens have another width.
            UsageError: if a mask is given.
        """
        if x.dim() != 3 or x.shape[2] != self.qkv.in_features:
            raise ShapeError(
                f"attention of width {self.qkv.in_features} got tokens of shape {tuple(x.shape)}; "
                f"needed is (B, N, {self.qkv.in_features})."
            )
        if attn_mask is not None or is_causal:
            raise UsageError("this attention takes no mask: every token looks at every other. Leave the mask out.")
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, N, d)
        q, k, v = qkv.unbind(0)
        return self.proj_drop(self.proj(self.attend(self.q_norm(q), self.k_norm(k), v)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, N, d) three times to (B, N, H d)."""
        if self.observer is None and self._has_plain_products():
            share = self.attn_drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=share, scale=self.scale)
        else:
            maps = self._maps(q, k)
            if self.observer is not None:
                self.observer(maps, maps)
            out = self.map_value(self.attn_drop(maps), v)
        return out.transpose(1, 2).flatten(2)

    def _maps(self, q: Tensor, k: Tensor) -> Tensor:
        """softmax(scale q k^T), (B, H, N, N), as `attention_maps`."""
        return self.query_key(q * self.scale, k.transpose(-2, -1)).softmax(dim=-1)

    def _has_plain_products(self) -> bool:
        return type(self.query_key) is Product and type(self.map_value) is Product


class HeadNorm(nn.LayerNorm):
    """Layer norm over the heads of maps (B, H, N, N), at each place for itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, N, N) to the same."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ReAttention(Attention):
    """Self-attention whose maps are mixed over the heads and normalised before they meet the values.

    Names of parameters are the authors'. The maps are not held (see `mixed_attention`), unless something wants to see
    them: an observer, dropout of their entries, a hook, quantized products, a compiler.

    The norm and the mixing work in float32 at least: variances of maps lie far below what half precision resolves.

    Args:
        dim: channels of each token.
        heads: they share the channels.
        qkv_bias: whether queries, keys and values have a bias.
        scale: of the products of queries and keys; None is 1 / sqrt(channels of a head).
        theta: how the mixing starts.
        norm: of the mixed maps.
        gain: factor on the normalised maps; the authors take 1, but `scale` in DeepViT-S.
        attention_dropout: share of the maps' entries that is dropped while training, before they are mixed.
        dropout: share of the output that is dropped while training.

    Raises:
        UsageError: if the heads do not divide the width.
        UnknownNameError: if there is no such start or norm.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        scale: float | None = None,
        theta: Theta = "random",
        norm: Norm = "batch",
        gain: float = 1.0,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            dim, heads, qkv_bias=qkv_bias, scale=scale, attention_dropout=attention_dropout, dropout=dropout
        )
        if theta not in get_args(Theta):
            raise UnknownNameError("start of the mixing", str(theta), get_args(Theta))
        if norm not in get_args(Norm):
            raise UnknownNameError("norm of mixed maps", str(norm), get_args(Norm))
        self.gain = gain
        self.map_value = Product()  # normalised maps have both signs
        self.reatten_matrix = HeadMixing(heads, heads, 1)
        self.var_norm: nn.Module = nn.Identity()
        if norm != "none":
            self.var_norm = nn.BatchNorm2d(heads) if norm == "batch" else HeadNorm(heads)
        if theta == "identity":
            self.start_as_identity()

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Make the attention answer like a plain one, in evaluation, and without a norm in training too."""
        nn.init.dirac_(self.reatten_matrix.weight)
        assert self.reatten_matrix.bias is not None
        nn.init.zeros_(self.reatten_matrix.bias)
        self.reatten_matrix.weight /= self.gain
        if isinstance(self.var_norm, nn.BatchNorm2d):
            self.var_norm.reset_parameters()
            _running(self.var_norm)[1].fill_(1 - self.var_norm.eps)

    @torch.no_grad()
    def start_at(self, statistics: Statistics) -> None:
        """As `start_as_identity`, and with a batch norm that gives such maps back unchanged while it trains, too."""
        self.start_as_identity()
        if isinstance(self.var_norm, nn.BatchNorm2d):
            mean, variance = self.gain**-1 * statistics.mean, self.gain**-2 * statistics.variance
            for running, measured in zip(_running(self.var_norm), (mean, variance), strict=True):
                running.copy_(measured)
            self.var_norm.weight.copy_((variance + self.var_norm.eps).sqrt())
            self.var_norm.bias.copy_(mean)

    def extra_repr(self) -> str:
        """The settings, for print(network)."""
        return f"gain={self.gain:.4g}"

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, N, d) three times to (B, N, H d)."""
        kind = q.dtype
        with full_precision(q):
            if kind in (torch.float16, torch.bfloat16):
                q, k, v = q.float(), k.float(), v.float()
            return (self._attend_fast(q, k, v) if self._is_plain() else self._attend_openly(q, k, v)).to(kind)

    def _attend_openly(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As the formula stands."""
        maps = self._maps(q, k)
        mixed = self.var_norm(self.reatten_matrix(self.attn_drop(maps)))
        mixed = mixed if self.gain == 1 else mixed * self.gain
        if self.observer is not None:
            self.observer(maps, mixed)
        return self.map_value(mixed, v).transpose(1, 2).flatten(2)

    def _attend_fast(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixing, bias = self.reatten_matrix.weight[:, :, 0, 0], self.reatten_matrix.bias
        norm = self.var_norm
        assert bias is not None
        if not isinstance(norm, nn.BatchNorm2d):
            return mixed_attention(q, k, v, mixing * self.gain, bias * self.gain, self.scale)
        if not norm.training:
            mean, variance = _running(norm)
            factor = self.gain * norm.weight * (variance + norm.eps).rsqrt()
            shift = factor * (bias - mean) + self.gain * norm.bias
            return mixed_attention(q, k, v, factor[:, None] * mixing, shift, self.scale)
        # The norm takes the bias away; its gradient is 0, which is not the same as none where processes share sums.
        parts = BatchNorm(norm.weight, norm.bias + 0 * bias, norm.eps)
        out, statistics = normalized_mixed_attention(q, k, v, mixing, parts, self.scale, self.gain)
        self._track(statistics, bias)
        return out

    @torch.no_grad()
    def _track(self, statistics: Statistics, bias: Tensor) -> None:
        """Update the running statistics as batch norm does."""
        norm, entries = self.var_norm, statistics.entries
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        mean, variance = _running(norm)
        mean.lerp_(statistics.mean + bias, momentum)
        variance.lerp_(statistics.variance * (entries / max(entries - 1, 1)), momentum)

    def _is_plain(self) -> bool:
        """Whether nothing needs to see a map."""
        mixing, norm = self.reatten_matrix, self.var_norm
        if not self._has_plain_products():
            return False
        if self.observer is not None or torch.compiler.is_compiling() or (self.training and self.attn_drop.p > 0):
            return False
        if type(mixing) is not HeadMixing or mixing.bias is None:
            return False
        if type(norm) is nn.BatchNorm2d:
            if not norm.affine or not norm.track_running_stats:
                return False
        elif type(norm) is not nn.Identity:
            return False
        return not any(
            hooks
            for layer in (mixing, norm)
            for hooks in (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
        )


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The running mean and variance of a norm that tracks them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
