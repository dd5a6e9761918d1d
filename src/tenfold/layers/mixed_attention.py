"""Attention whose heads' maps are mixed before they meet the values, without ever holding several maps at once.

    P_h = sum_g mixing[h, g] softmax(scale Q_g K_g^T) + shift_h,    out_h = P_h V_h

Mixing needs the maps of all heads at the same place, so no fused kernel of single heads can do it. Instead:

- A batch norm behind the mixing is linear once its statistics are known, and so is part of `mixing` and `shift`.
- Rows of a softmax sum to 1, so each map has mean 1 / N, and the mean of a mixed map is known before the map is
  (`deepvit.md` 3a). Its deviation is applied to what the map has gathered.
- A shift adds the same to all entries of a map: it needs the sum of the values only.
- Work goes in pieces of some images and some queries that stay in the cache of a core.

While training one map of the batch is kept, where autograd keeps three.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PIECE_BYTES, _PIECE_BYTES_ELSEWHERE = 2**21, 2**28
"""Size of a piece of maps, of which two are in use at once: on a CPU, and on devices without such caches."""


class BatchNorm(NamedTuple):
    """A batch norm over the mixed maps that takes its statistics from the batch."""

    weight: Tensor
    bias: Tensor
    epsilon: float


class Statistics(NamedTuple):
    """Mean and variance (biased) of each mixed map over batch, queries and keys, (H,) each."""

    mean: Tensor
    variance: Tensor
    entries: int
    """How many numbers they were taken from."""


def attention_maps(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T), (B, H, N, N): a row says where a query looks."""
    return ((q * scale) @ k.transpose(-2, -1)).softmax(dim=-1)


def mixed_attention(q: Tensor, k: Tensor, v: Tensor, mixing: Tensor, shift: Tensor, scale: float) -> Tensor:
    """Attention with mixed maps, with known mixing.

    Args:
        q: queries (B, H, N, d).
        k: keys, likewise.
        v: values, likewise.
        mixing: (H, H), row h says what the h-th mixed map is made of.
        shift: (H,), added to all entries of a mixed map.
        scale: of the products of queries and keys.

    Returns:
        (B, N, H d), heads one after another.
    """
    out, _, _ = _MixedAttention.apply(q, k, v, mixing, shift, None, 0.0, scale)
    return out


def normalized_mixed_attention(
    q: Tensor, k: Tensor, v: Tensor, mixing: Tensor, norm: BatchNorm, scale: float, gain: float
) -> tuple[Tensor, Statistics]:
    """Attention with mixed maps that are normalised by statistics of the batch: gain * norm(mixing A) V.

    Args:
        q: queries (B, H, N, d).
        k: keys, likewise.
        v: values, likewise.
        mixing: (H, H); a bias of the mixing would cancel.
        norm: scale, shift and epsilon of the batch norm.
        scale: of the products of queries and keys.
        gain: factor on the normalised maps.

    Returns:
        The output (B, N, H d), and the statistics.
    """
    batch, _, tokens, _ = q.shape
    weight, shift = norm.weight * gain, norm.bias * gain
    out, mean, variance = _MixedAttention.apply(q, k, v, mixing, shift, weight, norm.epsilon, scale)
    return out, Statistics(mean, variance, batch * tokens * tokens)


class _Piece(NamedTuple):
    """Some images and some of their queries."""

    images: slice
    rows: slice


def _pieces(q: Tensor, k: Tensor) -> list[_Piece]:
    """All of a batch in pieces: several images where their maps are small, some rows of one where they are large."""
    batch, heads, queries, _ = q.shape
    most = _PIECE_BYTES if q.device.type == "cpu" else _PIECE_BYTES_ELSEWHERE
    row_bytes = heads * k.shape[2] * q.element_size()
    rows = max(1, min(queries, most // row_bytes))
    rows = -(-queries // -(-queries // rows))  # equal ones: no last piece of a few rows
    images = max(1, most // (row_bytes * queries))
    return [
        _Piece(slice(first, min(first + images, batch)), slice(row, min(row + rows, queries)))
        for first in range(0, batch, images)
        for row in range(0, queries, rows)
    ]


class _Buffers:
    """Memory for pieces of maps that is used again for each of them."""

    def __init__(self, like: Tensor, count: int) -> None:
        self._flat = [like.new_empty(0) for _ in range(count)]

    def take(self, shape: tuple[int, ...]) -> list[Tensor]:
        """A contiguous tensor of the shape from each buffer, with whatever was left in it."""
        size = math.prod(shape)
        if self._flat[0].numel() < size:
            self._flat = [flat.new_empty(size) for flat in self._flat]
        return [flat[:size].view(shape) for flat in self._flat]


def _products(left: Tensor, right: Tensor, out: Tensor | None = None, factor: float = 1.0) -> Tensor:
    """Factor * left @ right for each image and head: (b, H, n, m) and (b, H, m, l) to (b, H, n, l)."""
    if out is None:
        out = left.new_empty(*left.shape[:3], right.shape[3])
    flat = out.view(-1, *out.shape[2:])
    torch.baddbmm(flat, left.flatten(0, 1), right.flatten(0, 1), beta=0, alpha=factor, out=flat)
    return out


def _mix(mixing: Tensor, maps: Tensor, out: Tensor, constant: Tensor | None = None) -> Tensor:
    """out[:, h] = sum_g mixing[h, g] maps[:, g] + constant[h], (b, H, n, N), contiguous."""
    flat = out.flatten(2)
    left, right = mixing.expand(len(maps), -1, -1), maps.flatten(2)
    if constant is None:
        torch.bmm(left, right, out=flat)
    else:
        torch.baddbmm(constant[:, None], left, right, out=flat)
    return out


class _MixedAttention(torch.autograd.Function):
    """Forward and backward of both kinds; `weight` is the scale of a norm behind the mixing, or None for none.

    With a norm, Z_h = W_h A - mean_h and P_h = a_h Z_h + shift_h, where a_h = weight_h / sigma_h: the maps are mixed
    and centred, and the factor is applied to what they gather, U_h = Z_h V_h. The norm's own gradient needs the sum of
    dP_h Z_h over the whole batch, and this is the sum of dO_h U_h: no pass over maps goes before the one that computes
    the gradients. Constants on a row of the gradient of A are dropped, since the softmax in front cancels them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mixing: Tensor,
        shift: Tensor,
        weight: Tensor | None,
        epsilon: float,
        scale: float,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        batch, heads, tokens, _ = q.shape
        pieces, buffers = _pieces(q, k), _Buffers(q, 2)
        keeps = any(ctx.needs_input_grad)
        kept: list[Tensor] = []
        gathered = v.new_empty(batch, tokens, heads, v.shape[3])
        mean = variance = inverse = None
        squares = q.new_zeros(heads, dtype=torch.float64)
        if weight is not None:
            mean = mixing.sum(1) / tokens
        for piece in pieces:
            queries = q[piece.images, :, piece.rows]
            scores, maps = buffers.take((*queries.shape[:3], k.shape[2]))
            _products(queries, k[piece.images].transpose(2, 3), scores, scale)
            if keeps:
                maps = torch.empty_like(maps)
                kept.append(maps)
            torch.softmax(scores, -1, out=maps)
            mixed = _mix(mixing, maps, scores, None if mean is None else -mean)
            if weight is not None:
                squares += torch.linalg.vector_norm(mixed.flatten(2), dim=2).square().sum(0)
            gathered[piece.images, piece.rows] = _products(mixed, v[piece.images]).transpose(1, 2)
        out = gathered
        if weight is not None:
            variance = (squares / (batch * tokens * tokens)).to(q.dtype)
            inverse = (variance + epsilon).rsqrt()
            out = gathered * (weight * inverse)[:, None]
        out += (shift[:, None] * v.sum(2)).unsqueeze(1)
        if keeps:
            ctx.save_for_backward(q, k, v, mixing, shift, weight, mean, inverse, gathered, *kept)
            ctx.pieces, ctx.scale = pieces, scale
        if weight is not None:
            ctx.mark_non_differentiable(mean, variance)
        return out.flatten(2), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        q, k, v, mixing, shift, weight, mean, inverse, gathered, *kept = ctx.saved_tensors
        batch, heads, tokens, _ = q.shape
        gradient = gradient.unflatten(2, (heads, -1))  # (B, N, H, d)
        for_shift = (gradient.sum(1) * v.sum(2)).sum((0, 2))  # also the sum of all entries of dP
        for_weight = pull = None
        for_v = (shift[:, None] * gradient.sum(1)).unsqueeze(2).expand_as(v).clone()
        if weight is not None:
            count = batch * tokens**2
            for_weight = (gradient * gathered).sum((0, 1, 3), dtype=torch.float64).to(q.dtype) * inverse
            gradient = gradient * (weight * inverse)[:, None]
            pull = weight * inverse.square() * for_weight / count
        gradient = gradient.transpose(1, 2)  # (B, H, N, d)
        for_q, for_k = torch.empty_like(q), torch.zeros_like(k)
        for_mixing = torch.zeros_like(mixing, dtype=torch.float64)
        buffers = _Buffers(q, 2)
        for piece, maps in zip(ctx.pieces, kept, strict=True):
            from_out = gradient[piece.images, :, piece.rows]
            mixed, for_mixed = buffers.take(tuple(maps.shape))
            _mix(mixing, maps, mixed, None if mean is None else -mean)
            for_v[piece.images] += _products(mixed.transpose(2, 3), from_out)
            _products(from_out, v[piece.images].transpose(2, 3), for_mixed)
            if pull is not None:
                for_mixed.addcmul_(mixed, pull[:, None, None], value=-1)
            for_mixing += (for_mixed.flatten(2) @ maps.flatten(2).transpose(1, 2)).sum(0)
            for_maps = _mix(mixing.T, for_mixed, mixed)
            for_scores = torch.ops.aten._softmax_backward_data.out(for_maps, maps, -1, maps.dtype, grad_input=for_mixed)
            for_q[piece.images, :, piece.rows] = _products(for_scores, k[piece.images], factor=ctx.scale)
            queries = q[piece.images, :, piece.rows]
            for_k[piece.images] += _products(for_scores.transpose(2, 3), queries, factor=ctx.scale)
        if weight is not None:
            for_mixing -= (weight * inverse * for_shift)[:, None] / tokens  # the norm takes away the gradient's mean
        return for_q, for_k, for_v, for_mixing.to(q.dtype), for_shift, for_weight, None, None
