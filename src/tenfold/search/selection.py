"""The best choice for every block that keeps limits: a knapsack with one item of each group, solved exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Steps into which a limit is divided. Costs are rounded up to whole steps, so a limit is kept whatever the number; what
# it costs is at most one step a block.
_HIGHEST_PRICE = 2.0**20
_STEPS = {1: 20_000, 2: 600}


def smallest_total(costs: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The least that each kind of cost can be, over one candidate of each group.

    Args:
        costs: for each group, (candidates, kinds).
    """
    return np.sum([group.min(axis=0) for group in costs], axis=0)


def clearing_prices(
    scores: Sequence[NDArray[np.float64]],
    costs: Sequence[NDArray[np.float64]],
    room: NDArray[np.float64],
    temperature: float = 1.0,
) -> NDArray[np.float64]:
    """The least prices at which the expected cost of a random choice keeps its limits.

    A candidate k of a group is taken with probability softmax((score_k - cost_k . prices) / temperature). At the prices
    found the expected sum of each kind of cost is at most its room, and equal to it where the price is above zero; up
    to a thousandth.

    Args:
        scores: for each group, (candidates,).
        costs: for each group, (candidates, kinds).
        room: of each kind, (kinds,), above the least that is possible.
        temperature: of the softmax.

    Returns:
        (kinds,), each from 0; where there is no room, a price so high that the cheapest are all but certain.
    """
    most = max(len(one) for one in scores)
    values = np.full((len(scores), most), -np.inf)
    amounts = np.zeros((len(scores), most, len(room)))
    for at, (score, cost) in enumerate(zip(scores, costs, strict=True)):
        values[at, : len(score)], amounts[at, : len(score)] = score, cost
    prices = np.zeros(len(room))

    def expected() -> NDArray[np.float64]:
        logits = (values - amounts @ prices) / temperature
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        total: NDArray[np.float64] = np.einsum("gc,gck->k", weights, amounts)
        return total

    for _ in range(1 if len(room) == 1 else 6):  # the price of one kind moves what another costs
        for kind in range(len(room)):
            prices[kind] = 0.0
            if expected()[kind] <= room[kind]:
                continue
            low, high = 0.0, 1.0
            while high < _HIGHEST_PRICE:
                prices[kind] = high
                if expected()[kind] <= room[kind]:
                    break
                low, high = high, 2 * high
            for _ in range(24):
                prices[kind] = (low + high) / 2
                low, high = (low, prices[kind]) if expected()[kind] <= room[kind] else (prices[kind], high)
            prices[kind] = high
    return prices


def best_within(
    scores: Sequence[NDArray[np.float64]], costs: Sequence[NDArray[np.int64]], limits: Sequence[float]
) -> list[int] | None:
    """Take one candidate of each group so that the scores' sum is largest and every kind of cost stays in its limit.

    Args:
        scores: for each group, (candidates,).
        costs: for each group, (candidates, kinds); whole numbers, 0 or more.
        limits: of each kind of cost, one or two; none takes the best of each group.

    Returns:
        The index of the candidate of each group, or None if no choice was found that keeps the limits.

    Example:
        >>> scores = [np.array([0.0, 5.0]), np.array([0.0, 4.0])]
        >>> costs = [np.array([[1], [8]]), np.array([[1], [6]])]
        >>> best_within(scores, costs, [10])
        [1, 0]
    """
    if not limits:
        return [int(one.argmax()) for one in scores]
    if any(limit < 0 for limit in limits):
        return None
    grid = [min(math.floor(limit), _STEPS[len(limits)]) for limit in limits]
    units = [
        1.0 if limit == steps else limit / steps if steps else 1.0 for limit, steps in zip(limits, grid, strict=True)
    ]
    rounded = [np.ceil(group / np.asarray(units) - 1e-9).astype(np.int64) for group in costs]
    shape = tuple(steps + 1 for steps in grid)
    best = np.zeros(shape)  # the best sum of the groups so far, at no more than so much cost
    taken = []
    for group_scores, group_costs in zip(scores, rounded, strict=True):
        sums, choice = np.full(shape, -np.inf), np.full(shape, -1, np.int16)
        for index, (score, cost) in enumerate(zip(group_scores, group_costs, strict=True)):
            if any(one > steps for one, steps in zip(cost, grid, strict=True)):
                continue
            into = tuple(slice(one, None) for one in cost)
            out = tuple(slice(0, steps + 1 - one) for one, steps in zip(cost, grid, strict=True))
            candidate = best[out] + score
            better = candidate > sums[into]
            sums[into][better] = candidate[better]
            choice[into][better] = index
        best = sums
        taken.append(choice)
    place = list(grid)
    if not math.isfinite(best[tuple(place)]):
        return None
    found = []
    for choice, group_costs in zip(reversed(taken), reversed(rounded), strict=True):
        index = int(choice[tuple(place)])
        found.append(index)
        place = [at - int(cost) for at, cost in zip(place, group_costs[index], strict=True)]
    return found[::-1]
