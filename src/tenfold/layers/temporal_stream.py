"""Temporal shifts over a clip that is still coming: every layer keeps the last frames it has seen, and no more.

A layer with a temporal shift needs the next frame before it can answer for this one. So in a stream each such layer
answers one frame later than it is asked, and a network with n of them in a row answers n frames later; each map of each
frame is computed once, however long the clip, and the answers are those for the whole clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.layers.temporal_align import Direction, Edge, Flows, Mode, Pairs, pairs_at, shift


@dataclass
class _Memory:
    """What a layer still needs of the frames that it has seen: the newest, and the one before."""

    maps: Tensor
    """(1, N, C, H, W)."""
    first: int = 0
    """Number of the first of these frames."""
    answered: int = 0
    """How many frames the layer has answered for."""


class ClipStream:
    """Gives layers their neighbours in time as `WholeClip` does, for one clip that comes in parts.

    Before each part, `begin` says how it moves. What layers then get back is of the frames that are ready, which may be
    none; with the last part, all that is still under way comes out.

    Args:
        aligned: whether to follow flows; else shifts are plain.
        mode: see `pairs_at`.
        edge: see `Edge`.
    """

    def __init__(self, *, aligned: bool = True, mode: Mode = "exact", edge: Edge = "zero") -> None:
        self._aligned, self._mode, self._edge = aligned, mode, edge
        self._memories: dict[nn.Module, _Memory] = {}
        self._waiting: dict[nn.Module, tuple[Tensor, ...]] = {}
        self._flows: Flows | None = None
        self._first_pair = 0
        self._pairs: dict[tuple[int, int], Pairs] = {}
        self._ends = False

    def begin(self, flows: Flows, *, ends: bool) -> None:
        """Announce a part of the clip.

        Args:
            flows: of the pairs whose later frame is in the part, (1, N, ...) each: one fewer than frames in the first
                part, else as many.
            ends: whether this is the last part.

        Raises:
            UsageError: if the clip has ended before.
        """
        if self._ends:
            raise UsageError("this clip has ended; begin a new stream for another one.")
        self._ends = ends
        if not self._aligned:
            return
        if self._flows is not None:
            oldest = min((memory.first for memory in self._memories.values()), default=0)
            dropped, self._first_pair = oldest - self._first_pair, oldest
            flows = Flows(*(torch.cat((old[:, dropped:], new), 1) for old, new in zip(self._flows, flows, strict=True)))
        self._flows, self._pairs = flows, {}

    def shift(self, layer: nn.Module, x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
        """See WholeClip; the answer is for the frames whose next frame is there, or that have none."""
        memory = self._memories.setdefault(layer, _Memory(x[None, :0]))
        maps = torch.cat((memory.maps, x[None]), 1)
        count = maps.shape[1]
        past, future = int(memory.answered > memory.first), int(not self._ends)
        ready = max(count - past - future, 0)
        shifted, own = x[:0], x[:0]
        if ready:
            pairs = self._between(memory.first, count, (x.shape[2], x.shape[3]))
            fold = x.shape[1] // divisor
            shifted = shift(maps, fold, pairs, edge=self._edge, past=past, future=future)[0]
            own = maps[0, past : past + ready]
        dropped = max(count - 2, 0)
        self._memories[layer] = _Memory(maps[:, dropped:], memory.first + dropped, memory.answered + ready)
        return shifted, own

    def meet(self, layer: nn.Module, *maps: Tensor) -> tuple[Tensor, ...]:
        """See WholeClip; of a path that is ahead, the later frames wait for the others."""
        if layer in self._waiting:
            maps = tuple(torch.cat(pair) for pair in zip(self._waiting[layer], maps, strict=True))
        common = min(len(one) for one in maps)
        self._waiting[layer] = tuple(one[common:] for one in maps)
        return tuple(one[:common] for one in maps)

    def _between(self, first: int, count: int, size: tuple[int, int]) -> Pairs | None:
        """The pairs of some frames, at the size of a map."""
        if self._flows is None or count < 2:
            return None
        if size not in self._pairs:
            self._pairs[size] = pairs_at(self._flows, size, self._mode)
        part = slice(first - self._first_pair, first - self._first_pair + count - 1)
        forward, backward, by_content = self._pairs[size]
        return Pairs(
            Direction(*(one[:, part] for one in forward)), Direction(*(one[:, part] for one in backward)), by_content
        )
