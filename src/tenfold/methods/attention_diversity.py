"""A regulariser against attention collapse: maps of neighbouring blocks are pushed apart while a network trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from tenfold.cost import Budget
from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.map_capture import self_attentions, similarity, watch_maps
from tenfold.methods.method import Method, Pass, register

Axis: TypeAlias = Literal["head", "key", "query"]
Pairs: TypeAlias = Literal["first", "last"]


def neighbour_similarity(maps: Sequence[Tensor], axis: Axis = "head") -> Tensor:
    """Mean cosine of the maps of neighbouring blocks (0-d), differentiable.

    Source: the DeepViT authors' loss (`deepvit.md` 2.8), where the cosine runs over the heads at each place.

    Args:
        maps: of blocks one after another, (B, H, N, N), two or more.
        axis: along which vectors are compared.
    """
    pairs = [similarity(one.float(), following.float(), axis) for one, following in pairwise(maps)]
    return torch.stack([pair.mean() for pair in pairs]).mean()


@register
@dataclass(kw_only=True)
class AttentionDiversity(Method):
    """Add the similarity of neighbouring blocks' attention maps to the loss of a vision transformer.

    The defaults are those of the authors' 32-block recipe: the first 12 pairs of blocks, compared over the heads. The
    maps are those that multiply the values. While it is on, fused attention kernels cannot be used.

    Source: the regulariser in the code of "DeepViT" (arXiv 2103.11886), `deepvit.md` 2.8.
    """

    name: ClassVar[str] = "attention_diversity"

    weight: float = 0.1
    """Factor of the similarity in the loss."""
    pairs: Pairs = "first"
    """Which pairs of neighbouring blocks: the first ones, where maps are least alike (the authors), or the last."""
    count: int = 12
    """How many pairs; 0 takes all."""
    axis: Axis = "head"
    """Cosines over the heads at each place (the authors), or over columns (key) or rows (query) of the maps."""

    _maps: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _similarity: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, got, allowed in (("pairs", self.pairs, get_args(Pairs)), ("axis", self.axis, get_args(Axis))):
            if got not in allowed:
                raise UnknownNameError(f"{name} of attention_diversity", str(got), allowed)
        if not self.weight > 0:
            raise UsageError(f"weight is {self.weight}; allowed is a number above 0.")
        if self.count < 0:
            raise UsageError(f"count is {self.count}; allowed is a whole number from 1, or 0 for all pairs.")

    def attach(self, network: nn.Module, budget: Budget | None, example: Tensor) -> nn.Module:
        """Check that there are as many pairs.

        Raises:
            UsageError: if the network is no vision transformer, or has too few blocks.
        """
        pairs = len(self_attentions(network)) - 1
        if pairs < max(self.count, 1):
            raise UsageError(
                f"attention_diversity compares {max(self.count, 1)} pairs of neighbouring blocks, but the network has "
                f"{pairs}. Give a smaller count, or 0 for all pairs."
            )
        return network

    def passes(self, network: nn.Module) -> Sequence[Pass]:
        """One pass, whose loss gets the similarity added."""
        return (Pass(enter=self._maps.clear, adjust=self._with_similarity),)

    @contextmanager
    def batch(self, network: nn.Module) -> Iterator[None]:
        """Look at the maps of all passes of a batch."""
        with watch_maps(network, self._see):
            yield
        self._maps.clear()

    def status(self) -> dict[str, str]:
        """The similarity of the last batch."""
        return {} if self._similarity is None else {"map similarity": f"{self._similarity:.3f}"}

    def _see(self, number: int, _: Tensor, maps: Tensor) -> None:
        self._maps[number] = maps

    def _with_similarity(self, _: Tensor, loss: Tensor) -> Tensor:
        maps = [self._maps[number] for number in sorted(self._maps)]
        if self.count:
            maps = maps[: self.count + 1] if self.pairs == "first" else maps[-self.count - 1 :]
        alike = neighbour_similarity(maps, self.axis)
        self._similarity = float(alike.detach())
        return loss + self.weight * alike
