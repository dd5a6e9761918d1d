"""CompFeat's aggregation: features of one frame refined by attention to other frames, and to the frame itself.

No code of the paper was released and its equations could not be read: these are our own, consistent with its figure.

Source: CompFeat, arXiv 2012.03400, figure 2; compfeat.md section 4.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.errors import UsageError

MOST_PLACES = 1024
"""Places of one frame that keys are pooled down to where `pool` is "auto"."""


class Attend(nn.Module):
    """Attention of the places of one map to all places of several frames, with one softmax over all of them.

    It does not depend on the order of the frames, nor on how often all of them are repeated. The output transform
    starts at zero, so that a fresh module changes nothing where its result is added.

    Args:
        channels: of queries, frames and result.
        inner: channels of queries, keys and values inside.
        scope: "global" for all places; "window:R" for those at most R cells away in each direction; "aligned" for the
            same place only. The last two need frames of the size of the map.
        pool: keys and values are max-pooled by so many cells; "auto" takes the smallest power of two that leaves at
            most 1024 places.
        scaled: divide by the square root of `inner` before the softmax; False for ablations only.
        position: add a fixed code of the place to what queries and keys are made of.

    Raises:
        UsageError: if an option is not allowed.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        *,
        scope: str = "global",
        pool: int | Literal["auto"] = 1,
        scaled: bool = True,
        position: bool = False,
    ) -> None:
        super().__init__()
        self.radius = read_scope(scope)
        if pool != "auto" and pool < 1:
            raise UsageError(f'pool is {pool}; allowed are whole numbers from 1, or "auto".')
        if self.radius is not None and pool not in (1, "auto"):
            raise UsageError(f'scope "{scope}" compares places one by one and cannot pool them; take pool=1.')
        self.pool = pool
        self.scale = 1 / math.sqrt(inner) if scaled else 1.0
        self.position = position
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        """What each place finds in the frames.

        Args:
            x: (B, C, Hq, Wq).
            frames: (B, N, C, H, W), N from 1.
            valid: bool (B, N, H, W), False where nothing may be found (padding, frames that are not there yet); a map
                that finds nothing valid at all gets 0.

        Returns:
            (B, C, Hq, Wq).
        """
        count = frames.shape[1]
        flat = frames.flatten(0, 1)  # (B N, C, H, W)
        query = self.query(self._placed(x)) * self.scale
        key, value = self.key(self._placed(flat)), self.value(flat)
        if self.radius is not None:
            found = _in_windows(query, key, value, valid, count, self.radius)
        else:
            found = self._everywhere(query, key, value, valid, count)
        result = self.out(found.to(x.dtype))
        if valid is None:
            return result
        return result * valid.flatten(1).any(1)[:, None, None, None]

    def _everywhere(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, count: int) -> Tensor:
        rate = self._rate(key)
        if rate > 1:
            key, value, valid = _pooled(key, value, valid, rate)
        batch, inner = query.shape[:2]
        keys, values = [
            one.unflatten(0, (batch, count)).transpose(1, 2).reshape(batch, 1, inner, -1).transpose(2, 3)
            for one in (key, value)
        ]  # (B, 1, N H W, C')
        mask = None
        if valid is not None:
            mask = valid.flatten(1)
            mask = (mask | ~mask.any(1, keepdim=True))[:, None, None]  # (B, 1, 1, N H W); no row without any
        asked = query.flatten(2).transpose(1, 2)[:, None]  # (B, 1, Hq Wq, C')
        found = F.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=1.0)
        return found[:, 0].transpose(1, 2).reshape(query.shape)

    def _rate(self, key: Tensor) -> int:
        """By how much keys of this size are pooled."""
        return pool_rate(*key.shape[-2:]) if self.pool == "auto" else self.pool

    def _placed(self, x: Tensor) -> Tensor:
        return x + sine_code(x.shape[1], *x.shape[-2:]).to(x) if self.position else x

    @torch.no_grad()
    def weights(self, x: Tensor, frames: Tensor) -> Tensor:
        """The attention itself, for looking at it: (B, Hq Wq, N H' W'), rows sum to 1; all frames are valid."""
        batch, count = frames.shape[:2]
        flat = frames.flatten(0, 1)
        query, key = self.query(self._placed(x)) * self.scale, self.key(self._placed(flat))
        rate = 1 if self.radius is not None else self._rate(key)
        if rate > 1:
            key = F.max_pool2d(key, rate, ceil_mode=True)
        height, width = key.shape[-2:]
        keys = key.unflatten(0, (batch, count)).transpose(1, 2).flatten(2)  # (B, C', N H' W')
        logits = query.flatten(2).transpose(1, 2) @ keys
        if self.radius is not None:
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            rows, columns = rows.flatten(), columns.flatten()
            away = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
            logits = logits.masked_fill((away > self.radius).repeat(1, count).to(logits.device), -torch.inf)
        return logits.softmax(-1)


class Aggregation(nn.Module):
    """x + T(x; frames) + P(x; x): what a map finds in other frames, and in itself.

    Source: compfeat.md sections 4.2 (whole maps of a stage) and 4.3 (features of regions).

    Args:
        channels: of the maps.
        inner: channels inside of each attention.
        scope: of the attention to other frames, see `Attend`.
        pool: of both.
        position: of both.
        spatial: whether there is attention of the map to itself.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        *,
        scope: str = "global",
        pool: int | Literal["auto"] = 1,
        position: bool = False,
        spatial: bool = True,
    ) -> None:
        super().__init__()
        self.temporal = Attend(channels, inner, scope=scope, pool=pool, position=position)
        # Within one frame a window would only blur, so that this one always looks everywhere.
        self.spatial = Attend(channels, inner, pool=pool, position=position) if spatial else None

    def forward(
        self, x: Tensor, frames: Tensor | None, valid: Tensor | None = None, own_valid: Tensor | None = None
    ) -> Tensor:
        """Refine maps.

        Args:
            x: (B, C, H, W).
            frames: (B, N, C, H', W'), or None for a still image.
            valid: bool (B, N, H', W').
            own_valid: bool (B, H, W), False where x is padding.

        Returns:
            (B, C, H, W).
        """
        refined = x if frames is None else x + self.temporal(x, frames, valid)
        if self.spatial is None:
            return refined
        return refined + self.spatial(x, x[:, None], None if own_valid is None else own_valid[:, None])


def read_scope(scope: str) -> int | None:
    """How many cells away attention looks; None for everywhere.

    Raises:
        UsageError: if the scope is none that is known.

    Example:
        >>> read_scope("window:2"), read_scope("aligned"), read_scope("global")
        (2, 0, None)
    """
    if scope == "global":
        return None
    if scope == "aligned":
        return 0
    if found := re.fullmatch(r"window:(\d{1,3})", scope):
        return int(found[1])
    raise UsageError(
        f'scope is {scope!r}; allowed are "global", "window:R" with R cells such as "window:2", "aligned".'
    )


def pool_rate(height: int, width: int) -> int:
    """The smallest power of two by which a map is pooled to at most 1024 places.

    Example:
        >>> pool_rate(23, 40), pool_rate(90, 160)
        (1, 4)
    """
    rate = 1
    while -(-height // rate) * -(-width // rate) > MOST_PLACES:
        rate *= 2
    return rate


def sine_code(channels: int, height: int, width: int) -> Tensor:
    """A fixed code of places: sines of rows in one half of the channels, of columns in the other; (C, H, W)."""
    half = channels // 2
    codes = []
    for length, count in ((height, half), (width, channels - half)):
        rates = 10_000 ** (-(torch.arange(count) // 2 * 2) / max(1, count))
        angles = torch.arange(length)[:, None] * rates
        codes.append(torch.where(torch.arange(count) % 2 == 0, angles.sin(), angles.cos()).T)  # (count, length)
    rows, columns = codes
    return torch.cat([rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)])


def _pooled(key: Tensor, value: Tensor, valid: Tensor | None, rate: int) -> tuple[Tensor, Tensor, Tensor | None]:
    if valid is None:
        return F.max_pool2d(key, rate, ceil_mode=True), F.max_pool2d(value, rate, ceil_mode=True), None
    mask = valid.flatten(0, 1)[:, None]  # (B N, 1, H, W)
    # A finite least value: where a window holds nothing valid, the result is masked anyway.
    least = torch.finfo(key.dtype).min / 4
    kept = F.max_pool2d(mask.to(key.dtype), rate, ceil_mode=True) > 0
    pooled = [
        F.max_pool2d(one.masked_fill(~mask, least), rate, ceil_mode=True).masked_fill(~kept, 0) for one in (key, value)
    ]
    return pooled[0], pooled[1], kept[:, 0].unflatten(0, valid.shape[:2])


def _in_windows(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, count: int, radius: int) -> Tensor:
    """Attention to the places at most `radius` cells away, in every frame."""
    batch, inner, height, width = query.shape
    if key.shape[-2:] != query.shape[-2:]:
        raise UsageError(
            f"attention in windows needs maps of one size, got {tuple(query.shape[-2:])} and {tuple(key.shape[-2:])}. "
            'Take scope="global".'
        )
    side = 2 * radius + 1

    def around(x: Tensor) -> Tensor:
        cells = F.unfold(x, side, padding=radius)  # (B N, C' side^2, H W)
        return cells.reshape(batch, count, -1, side * side, height * width)

    inside = torch.ones_like(key[:, :1]) if valid is None else valid.flatten(0, 1)[:, None].to(key.dtype)
    usable = around(inside)[:, :, 0] > 0  # (B, N, side^2, H W)
    logits = (query.reshape(batch, 1, inner, 1, -1) * around(key)).sum(
        2, dtype=torch.promote_types(key.dtype, torch.float32)
    )
    usable = usable | ~usable.flatten(1, 2).any(1)[:, None, None]  # no place without any
    logits = logits.masked_fill(~usable, -torch.inf)
    attention = logits.flatten(1, 2).softmax(1).unflatten(1, (count, side * side)).to(value.dtype)
    return (attention[:, :, None] * around(value)).sum((1, 3)).reshape(query.shape)
