"""What the networks of a supernet of cells cost, and the choices among them that keep limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tenfold.cost import format_amount, profile
from tenfold.errors import BudgetError
from tenfold.methods.choices import input_sizes
from tenfold.search.selection import best_within, clearing_prices, smallest_total
from tenfold.search.supernet import MixedBlock, mixed_blocks

KINDS = ("macs", "params")


class CellCosts:
    """Multiply-adds and parameters of every network that a supernet holds.

    Args:
        network: the supernet.
        limits: on `KINDS`.
        example: a batch of images.

    Attributes:
        limits: as given.
    """

    def __init__(self, network: nn.Module, limits: Mapping[str, float], example: Tensor) -> None:
        self.limits = dict(limits)
        self._kinds = [KINDS.index(kind) for kind in limits]
        blocks = mixed_blocks(network)
        sizes = input_sizes(network, blocks, example)
        self._sizes = [sizes[name] for name in blocks]
        self._known: tuple[object, list[NDArray[np.int64]]] | None = None
        self._fixed = self._fixed_cost(network, list(blocks.values()), example)
        self._room = np.array(list(limits.values())) - self._fixed[self._kinds]

    def _fixed_cost(self, network: nn.Module, blocks: Sequence[MixedBlock], example: Tensor) -> NDArray[np.int64]:
        """What does not depend on any choice."""
        costs = zip(blocks, self._candidates(blocks), strict=True)
        chosen = sum(cost[int(block.probabilities().argmax()), 0] for block, cost in costs)
        inside = sum(parameter.numel() for block in blocks for parameter in block.parameters())
        params = sum(parameter.numel() for parameter in network.parameters()) - inside
        return np.array([profile(network, example).macs - chosen, params], dtype=np.int64)

    def _candidates(self, blocks: Sequence[MixedBlock], arrangement: object = None) -> list[NDArray[np.int64]]:
        """What each candidate of each block costs, (candidates, kinds); counted anew for another arrangement."""
        if arrangement is None or self._known is None or self._known[0] != arrangement:
            costs = [block.costs(*size) for block, size in zip(blocks, self._sizes, strict=True)]
            self._known = (arrangement, costs)
        return self._known[1]

    def least(self, blocks: Sequence[MixedBlock]) -> NDArray[np.int64]:
        """The least of each kind that a network costs, (kinds,)."""
        return self._fixed + smallest_total(self._candidates(blocks))

    def check_reachable(self, blocks: Sequence[MixedBlock]) -> None:
        """See that the cheapest network keeps the limits.

        Raises:
            BudgetError: if it does not.
        """
        least = self.least(blocks)
        for kind, limit in self.limits.items():
            reached = least[KINDS.index(kind)]
            if reached > limit:
                raise BudgetError(
                    f"no network of this space has {format_amount(limit)} {kind}: the least is "
                    f"{format_amount(int(reached))}. Raise the budget to that or more, or take smaller images or a "
                    "smaller skeleton."
                )

    def expected(self, blocks: Sequence[MixedBlock], arrangement: object) -> NDArray[np.float64]:
        """Expected costs of a network drawn by the probabilities, (kinds,).

        Args:
            blocks: of the supernet.
            arrangement: equal to that of the last call if blocks have the same candidates.
        """
        with torch.no_grad():
            shares = [block.probabilities().double().cpu().numpy() for block in blocks]
        total: NDArray[np.float64] = self._fixed.astype(np.float64)
        for share, cost in zip(shares, self._candidates(blocks, arrangement), strict=True):
            total = total + share @ cost
        return total

    def tolls(self, blocks: Sequence[MixedBlock], arrangement: object, temperature: float) -> list[NDArray[np.float64]]:
        """What each candidate of each block pays so that the expected costs keep the limits.

        Args:
            blocks: of the supernet.
            arrangement: as for `expected`.
            temperature: of the probabilities.
        """
        limits = np.array(list(self.limits.values()))
        costs = [one[:, self._kinds] / limits for one in self._candidates(blocks, arrangement)]
        scores = [
            block.scores.detach()[: len(one)].double().cpu().numpy() for block, one in zip(blocks, costs, strict=True)
        ]
        prices = clearing_prices(scores, costs, self._room / limits, temperature)
        return [one @ prices for one in costs]

    def choose(self, blocks: Sequence[MixedBlock]) -> tuple[list[int], NDArray[np.int64]]:
        """The candidate of each block with which the sum of scores is highest within the limits.

        Returns:
            Indices, and what the network costs, (kinds,).

        Raises:
            BudgetError: if none keeps the limits.
        """
        scores = [block.scores.detach()[: int(block.count)].double().cpu().numpy() for block in blocks]
        costs = self._candidates(blocks)
        limited = [one[:, self._kinds] for one in costs]
        indices = best_within(scores, limited, list(self._room))
        if indices is None:
            # Rounding leaves no room in the tightest budgets; the cheapest network, which was seen to fit, may.
            indices = [int(one.sum(axis=1).argmin()) for one in limited]
        total = self._fixed + sum(one[index] for one, index in zip(costs, indices, strict=True))
        for kind, limit in self.limits.items():
            if total[KINDS.index(kind)] > limit:
                got = ", ".join(f"{k}={format_amount(int(t))}" for k, t in zip(KINDS, total, strict=True))
                raise BudgetError(
                    f"no network of this space was found within {', '.join(self.limits)}: the nearest has {got}. "
                    "Raise one of the limits."
                )
        return indices, total
