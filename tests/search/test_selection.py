"""Choosing within limits, against trying everything."""

import itertools

import numpy as np
import pytest

from tenfold.search.selection import best_within, clearing_prices, smallest_total


def _problem(seed, kinds, groups=5, candidates=4):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=candidates) for _ in range(groups)]
    return scores, [rng.integers(0, 50, (candidates, kinds)) for _ in range(groups)]


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_choice_is_that_of_trying_everything(kinds, seed):
    scores, costs = _problem(seed, kinds)
    limits = [90, 130][:kinds]
    got = best_within(scores, costs, limits)
    best, best_score = None, -np.inf
    for choice in itertools.product(range(4), repeat=5):
        total = sum(cost[index] for cost, index in zip(costs, choice, strict=True))
        score = sum(score[index] for score, index in zip(scores, choice, strict=True))
        if (total <= limits).all() and score > best_score:
            best, best_score = list(choice), score
    assert got == best


@pytest.mark.parametrize("kinds", [1, 2])
def test_large_costs_keep_the_limit_and_are_nearly_best(kinds):
    scores, costs = _problem(7, kinds, groups=12, candidates=10)
    costs = [cost * 1_234_567 for cost in costs]
    limits = [250 * 1_234_567] * kinds
    got = best_within(scores, costs, limits)
    total = sum(cost[index] for cost, index in zip(costs, got, strict=True))
    assert (total <= limits).all()
    exact = best_within(scores, [cost // 1_234_567 for cost in costs], [250] * kinds)
    reached, best = (sum(s[i] for s, i in zip(scores, one, strict=True)) for one in (got, exact))
    assert best - reached < 0.05 * abs(best)


def test_what_is_out_of_reach_gives_nothing():
    scores, costs = _problem(1, 1)
    least = int(smallest_total(costs)[0])
    assert best_within(scores, costs, [least]) is not None
    assert best_within(scores, costs, [least - 1]) is None
    assert best_within(scores, costs, [-1]) is None
    assert best_within(scores, costs, []) == [int(one.argmax()) for one in scores]


@pytest.mark.parametrize("kinds", [1, 2])
def test_at_the_clearing_price_the_expected_cost_is_the_limit(kinds):
    scores, costs = _problem(3, kinds, groups=8)
    costs = [cost / 50 for cost in costs]

    def expected(prices):
        weights = [np.exp(score - cost @ prices) for score, cost in zip(scores, costs, strict=True)]
        return sum(weight / weight.sum() @ cost for weight, cost in zip(weights, costs, strict=True))

    free = expected(np.zeros(kinds))
    assert clearing_prices(scores, costs, free + 0.1).tolist() == [0.0] * kinds
    prices = clearing_prices(scores, costs, 0.7 * free)
    got = expected(prices)
    assert (got <= 0.7 * free + 1e-3).all()
    assert np.abs(got - 0.7 * free)[prices > 0].max() < 1e-3
    assert (prices > 0).any()
