"""The rounds of a search by propagation: starts, steps along the gradient, single edits, and the judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.cost import Budget
from tenfold.errors import UsageError
from tenfold.models import Architecture
from tenfold.search.code_costs import CodeCosts, within_budget
from tenfold.search.code_spaces import Codes
from tenfold.search.pareto import pareto_front
from tenfold.search.propagation import Standard, propagate, winner_takes_all
from tenfold.search.scoring import NcpConfig, Score
from tenfold.search.tables import Table

Array = NDArray[np.float64]
_OVERSPENT = 5.0


@dataclass(frozen=True, kw_only=True)
class FoundCode:
    """A code and what is known about it."""

    code: tuple[int | float, ...]
    """As people write it."""
    architecture: Architecture | None
    """The network, which `build` and `fit` take; None where nothing is known of it but the code."""
    score: float
    """What was maximised, without the cost: 0 for a candidate of the table's mean."""
    estimates: dict[str, tuple[float, float]]
    """Target -> mean and deviation, in the unit of the metric."""
    costs: dict[str, int]
    """"macs" and "params", counted; empty where no costs are known."""
    measured: dict[str, float]
    """Target -> the table's value, where the table has this code."""


class Rounds:
    """One search: its starts, its rounds and its judgement."""

    def __init__(
        self, score: Score, budget: Budget, costs: CodeCosts | None, config: NcpConfig, known: Codes, *, per_pixel: bool
    ) -> None:
        self._score, self._budget, self._costs, self._config = score, budget, costs, config
        self._per_pixel = per_pixel
        if config.mode == "continuous" and not score.differentiable:
            raise UsageError(
                f"the predictor {config.predictor} has no gradient for mode continuous to follow. Take the mode "
                "winner-takes-all, or a predictor with one, such as gp or blend."
            )
        self._space = score.space.within(known)
        self._standard = Standard.of(self._space.to_points(known))
        smallest = np.array([[one[0] for one in self._space.choices]])
        rng = np.random.default_rng(config.seed)
        self._random = self._space.random(config.starts, rng)
        allowed = known[self._keeps(known)]
        self._known = allowed if len(allowed) else smallest
        order = np.argsort(-score.of(self._known), kind="stable")
        self.first = self._known[order[:1]]
        # What users gave stands first, whatever it scores.
        self._ranked = np.concatenate([self._known[order], smallest])
        self._asks_whole = self._space.is_small and config.mode == "both"
        self.cost_weights = config.cost_weights[:1] if self._asks_whole else config.cost_weights
        """Of the rounds: one is enough where it asks about every code."""

    @property
    def _moves(self) -> bool:
        """Whether codes move along the gradient."""
        return self._score.differentiable and self._config.mode != "winner-takes-all"

    def round(self, cost_weight: float, given: int) -> Codes:
        """The codes that one round ends at.

        Args:
            cost_weight: see `COST_WEIGHTS`.
            given: how many of the known codes are the user's own starts.
        """
        if self._asks_whole:
            return self._space.everything()
        half = -(-self._config.starts // 2)
        starts = np.concatenate([self._known[:given], self._ranked[:half], self._random[: self._config.starts - half]])
        candidates = starts
        if self._moves:
            path = propagate(
                lambda x: self._objective(x, cost_weight),
                self._space,
                starts,
                self._standard,
                lr=self._config.lr,
                iterations=self._config.iterations,
            )
            candidates = np.concatenate([starts, path.visited()])
        candidates = candidates[self._keeps(candidates)]
        if not len(candidates):
            candidates = self._ranked[-1:]
        if self._config.mode == "continuous":
            return np.unique(candidates, axis=0)
        ranked = candidates[np.argsort(-self._worth(candidates, cost_weight), kind="stable")]
        path = winner_takes_all(
            lambda codes: self._worth(codes, cost_weight), self._space, _spread_out(ranked, max(half // 2, 1))
        )
        return path.visited()

    def judge(self, codes: Codes, table: Table) -> tuple[FoundCode, list[FoundCode], FoundCode]:
        """The best, the front, and the best that was known before."""
        codes = codes[self._keeps(codes)]
        scores = self._score.of(codes)
        macs = self._macs(codes)
        front = pareto_front(macs, scores)
        chosen = np.concatenate([codes[front], self.first])
        described = self._described(chosen, table)
        return max(described[:-1], key=lambda one: one.score), described[:-1], described[-1]

    def propose(self, codes: Codes, table: Table) -> list[FoundCode]:
        """The best codes that the table lacks, none much like another."""
        if not self._config.proposals:
            return []
        known = {tuple(map(int, code)) for code in table.codes}
        fresh = [code for code in codes[self._keeps(codes)] if tuple(map(int, code)) not in known]
        if not fresh:
            return []
        ranked = np.stack(fresh)
        ranked = ranked[np.argsort(-self._score.of(ranked), kind="stable")]
        return self._described(_spread_out(ranked, self._config.proposals), table)

    def _described(self, codes: Codes, table: Table) -> list[FoundCode]:
        scores, estimates = self._score.of(codes), self._score.estimates(codes)
        rows = {tuple(map(int, code)): row for row, code in enumerate(table.codes)}
        found = []
        for code, score, estimate in zip(codes, scores, estimates, strict=True):
            plain = tuple(int(number) for number in code)
            row = rows.get(plain)
            values = {} if row is None else {name: float(table.column(name)[row]) for name in estimate}
            costs = {} if self._costs is None else self._costs.of(plain)
            found.append(
                FoundCode(
                    code=table.space.write(plain),
                    architecture=table.architecture(plain, per_pixel=self._per_pixel),
                    score=float(score),
                    estimates=estimate,
                    costs={name: int(value) for name, value in costs.items()},
                    measured={name: value for name, value in values.items() if np.isfinite(value)},
                )
            )
        return found

    def _objective(self, x: Tensor, cost_weight: float) -> Tensor:
        points = x * self._standard.std + self._standard.mean
        worth = self._score.at(points)
        if self._costs is None or not self._costs.differentiable:
            return worth  # single edits see to the budget
        found = self._costs.of(list(points.unbind(1)))
        worth = worth - cost_weight * torch.log2(found["macs"])
        for name, limit in self._budget.to_dict().items():
            worth = worth - _OVERSPENT * torch.relu(torch.log2(found[name] / limit))
        return worth

    def _worth(self, codes: Codes, cost_weight: float) -> Array:
        keeps = self._keeps(codes)
        worth = np.full(len(codes), -np.inf)
        if keeps.any():
            worth[keeps] = self._score.of(codes[keeps]) - cost_weight * np.log2(self._macs(codes[keeps]))
        return worth

    def _macs(self, codes: Codes) -> Array:
        macs = np.ones(len(codes)) if self._costs is None else self._costs.of(list(codes.T))["macs"]
        return np.asarray(macs, np.float64)

    def _keeps(self, codes: Codes) -> NDArray[np.bool_]:
        return np.ones(len(codes), bool) if self._costs is None else within_budget(codes, self._costs, self._budget)


def _spread_out(ranked: Codes, count: int) -> Codes:
    """The first of ranked codes that differ in more than a tenth of their numbers."""
    chosen: list[Any] = []
    for code in ranked:
        if all((code != other).mean() > 0.1 for other in chosen):
            chosen.append(code)
        if len(chosen) == count:
            break
    return np.stack(chosen)
