"""How alike the attention maps and the features of the blocks of a vision transformer are.

Everything is summed up over batches, in float64; of the images nothing is kept.

Source: `deepvit.md` section 2, after "DeepViT" (arXiv 2103.11886).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from tenfold.errors import ShapeError, UnknownNameError, UsageError

Axis: TypeAlias = Literal["key", "query"]
"""Vectors that are compared: columns of the maps (how much a token gives to each, the paper's), or rows."""

_LEAST_NORM = 1e-12


class MapSimilarity:
    """Compares the maps of all blocks with each other, head by head and token by token.

    Args:
        axis: which vectors are compared.
        centred: take the mean of each map away first. All softmax maps share a uniform part, which makes them alike
            whatever else they hold, and which re-attention removes by construction (`deepvit.md` 2.10).
        thresholds: cosines above which two vectors count as similar.

    Raises:
        UnknownNameError: if there is no such axis.
        UsageError: if a threshold lies outside of [-1, 1].
    """

    def __init__(
        self, *, axis: Axis = "key", centred: bool = False, thresholds: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
    ) -> None:
        if axis not in get_args(Axis):
            raise UnknownNameError("axis", str(axis), get_args(Axis))
        if bad := [threshold for threshold in thresholds if not -1 <= threshold <= 1]:
            raise UsageError(f"a cosine is never above {bad[0]}; allowed thresholds are -1 to 1.")
        self.axis, self.centred, self.thresholds = axis, centred, tuple(thresholds)
        self.images = 0
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, maps: Sequence[Tensor]) -> None:
        """Take in the maps of a batch.

        Args:
            maps: of each block, (B, H, T, T), rows are queries; the same shape for all.

        Raises:
            ShapeError: if there are fewer than two blocks, or maps of several shapes.
        """
        check_same_shape(maps, "maps")
        depth, (batch, heads, tokens, _) = len(maps), maps[0].shape
        for image in range(batch):  # one at a time bounds the memory that float64 takes
            stacked = torch.stack([one[image] for one in maps]).double()  # (L, H, T, T)
            if self.centred:
                stacked -= stacked.mean((2, 3), keepdim=True)
            stacked /= stacked.norm(dim=2 if self.axis == "key" else 3, keepdim=True).clamp(min=_LEAST_NORM)
            flat = stacked.flatten(1)
            self._add("matrix", flat @ flat.T / (heads * tokens))
            adjacent = (stacked[1:] * stacked[:-1]).sum(2 if self.axis == "key" else 3)  # (L - 1, H, T)
            for threshold in self.thresholds:
                self._add(f"ratio {threshold}", (adjacent > threshold).double().mean((1, 2)))
            if heads > 1:  # the sum over pairs of heads is what is in the square of the sum beside the heads themselves
                whole = stacked.sum(1).square().sum((1, 2)) - stacked.square().sum((1, 2, 3))
                self._add("heads", whole / (heads * (heads - 1) * tokens))
        self.images += batch
        self.depth = depth

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()

    def _mean(self, name: str) -> list[float]:
        check_seen(self.images)
        found: list[float] = (self._sums[name] / self.images).tolist()
        return found

    def matrix(self) -> list[list[float]]:
        """S(p, q): mean cosine of the blocks p and q, (L, L)."""
        check_seen(self.images)
        found: list[list[float]] = (self._sums["matrix"] / self.images).tolist()
        return found

    def ratio(self, threshold: float) -> list[float]:
        """r_l: share of the vectors of block l that are similar to those of block l + 1, L - 1 numbers."""
        return self._mean(f"ratio {threshold}")

    def heads(self) -> list[float]:
        """Mean cosine between different heads of each block; NaN where there is one head only."""
        return self._mean("heads") if "heads" in self._sums else [math.nan] * self.depth

    def similar_blocks(self, threshold: float, share: float) -> int:
        """Number of blocks more than this share of whose vectors is similar to those of the next block."""
        return sum(ratio > share for ratio in self.ratio(threshold))


class MapEntropy:
    """How evenly tokens look at others: entropy of the rows of softmax maps, 1 for uniform ones, 0 for single tokens.

    Collapse into uniform maps and collapse into equal ones both give a similarity of 1; this tells them apart.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sum: Tensor | None = None

    @torch.no_grad()
    def add(self, maps: Sequence[Tensor]) -> None:
        """Take in the maps of a batch, (B, H, T, T) of each block."""
        scale = math.log(maps[0].shape[3]) or 1.0
        found = torch.stack([-torch.xlogy(one, one).sum(3).double().mean((1, 2)).sum() / scale for one in maps])
        self._sum = found if self._sum is None else self._sum + found
        self.images += len(maps[0])

    def mean(self) -> list[float]:
        """Of each block."""
        check_seen(self.images)
        assert self._sum is not None
        found: list[float] = (self._sum / self.images).tolist()
        return found


class FeatureSimilarity:
    """How alike the tokens behind the blocks are: to the last block's, to the next one's, and to each other."""

    def __init__(self) -> None:
        self.images = 0
        self._sums: list[Tensor] = []

    @torch.no_grad()
    def add(self, features: Sequence[Tensor]) -> None:
        """Take in the tokens of a batch.

        Args:
            features: behind each block, before the last norm, (B, T, D).

        Raises:
            ShapeError: if there are fewer than two blocks, or tokens of several shapes.
        """
        check_same_shape(features, "features")
        stacked = torch.stack(list(features)).double()  # (L, B, T, D)
        tokens = stacked.shape[2]
        stacked /= stacked.norm(dim=3, keepdim=True).clamp(min=_LEAST_NORM)
        pairs = stacked.sum(2).square().sum(2) - stacked.square().sum((2, 3))  # (L, B)
        found = [
            (stacked * stacked[-1]).sum(3).mean(2).sum(1),
            (stacked[1:] * stacked[:-1]).sum(3).mean(2).sum(1),
            (pairs / (tokens * max(tokens - 1, 1))).sum(1),
        ]
        self._sums = [old + new for old, new in zip(self._sums, found, strict=True)] if self._sums else found
        self.images += stacked.shape[1]

    def _mean(self, number: int) -> list[float]:
        check_seen(self.images)
        found: list[float] = (self._sums[number] / self.images).tolist()
        return found

    def to_last(self) -> list[float]:
        """F_l: mean cosine of a token behind block l and behind the last, L numbers."""
        return self._mean(0)

    def to_next(self) -> list[float]:
        """Mean cosine of a token behind block l and behind block l + 1, L - 1 numbers."""
        return self._mean(1)

    def between_tokens(self) -> list[float]:
        """Mean cosine of different tokens of an image behind block l, L numbers: 1 is over-smoothed."""
        return self._mean(2)


def check_same_shape(tensors: Sequence[Tensor], what: str) -> None:
    """Refuse what cannot be compared block by block.

    Raises:
        ShapeError: if there are fewer than two blocks, or several shapes.
    """
    shapes = {tuple(one.shape) for one in tensors}
    if len(tensors) < 2 or len(shapes) > 1:
        raise ShapeError(
            f"{what} of {len(tensors)} blocks with the shapes {sorted(shapes)} cannot be compared; needed are two "
            "blocks or more with the same tokens and heads. Networks that drop tokens on their way have none."
        )


def check_seen(images: int) -> None:
    """Refuse a mean over nothing.

    Raises:
        UsageError: if no image was seen.
    """
    if not images:
        raise UsageError("there is no similarity of no images: give at least one.")
