"""The search by network code propagation: from a table of trained candidates to codes within a budget.

A predictor is fitted for each target. From many starts at once, codes follow the gradient of what the predictors say,
then single edits finish what rounding has left. What is maximised is a weighted sum over the targets of cautious
estimates (mean minus a number of deviations) in units of each target's own spread, so that propagation does not end
where a predictor knows least. The cost is counted from the code; a budget is never exceeded.

Several rounds weigh the cost differently and together give a Pareto front. A round that is done is in the run folder; a
search that was killed does only the others.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.cost import Budget
from tenfold.errors import CheckpointError, UsageError
from tenfold.files import write_text, written_whole
from tenfold.models import Architecture
from tenfold.search.code_costs import CodeCosts, check_budget, within_budget
from tenfold.search.code_spaces import MULTIRES, Codes
from tenfold.search.pareto import pareto_front
from tenfold.search.predictors import Predictor, create_predictor
from tenfold.search.propagation import Standard, propagate, winner_takes_all
from tenfold.search.tables import Table

Array = NDArray[np.float64]
COST_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
"""What a doubling of the multiply-adds takes from a score, one round for each."""
_OVERSPENT = 5.0
_SETTINGS, _ROUND = "search.json", "round_{}.npz"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a search is to raise."""

    name: str
    """A task of the table ("seg"), for its main metric, or "TASK/METRIC"."""
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read "seg" or "seg=2".

        Raises:
            UsageError: if the weight is not a number above zero.
        """
        name, equals, weight = text.partition("=")
        try:
            value = float(weight) if equals else 1.0
        except ValueError:
            value = float("nan")
        if not name.strip() or not 0 < value < float("inf"):
            raise UsageError(f"--target {text!r} is not NAME or NAME=WEIGHT with a weight above zero, such as seg=2.")
        return cls(name=name.strip(), weight=value)


@dataclass(frozen=True, kw_only=True)
class NcpConfig:
    """How to search."""

    predictor: str = "blend"
    """A name that `create_predictor` knows."""
    starts: int = 16
    """Codes that each round starts from: the best of the table, and random ones."""
    iterations: int = 70
    """Steps along the gradient."""
    lr: float = 1.0
    """Length of a step; the authors' is 3."""
    caution: float = 1.0
    """Deviations taken from each estimate before it counts; 0 believes the mean, as the authors do."""
    cost_weights: tuple[float, ...] = COST_WEIGHTS
    """See `COST_WEIGHTS`."""
    seed: int = 0
    """Of predictors and starts."""

    def __post_init__(self) -> None:
        for name, value, least in (("starts", self.starts, 1), ("iterations", self.iterations, 1)):
            if value < least:
                raise UsageError(f"{name} is {value}; allowed is a whole number from {least}.")
        if not self.lr > 0 or not self.caution >= 0 or not self.cost_weights:
            raise UsageError("lr must be above zero, caution 0 or more, and there must be at least one cost weight.")


@dataclass(frozen=True, kw_only=True)
class FoundCode:
    """A code and what is known about it."""

    code: tuple[int, ...]
    score: float
    """What was maximised, without the cost: 0 for a candidate of the table's mean."""
    estimates: dict[str, tuple[float, float]]
    """Target -> mean and deviation, in the unit of the metric."""
    costs: dict[str, int]
    """"macs" and "params", counted; empty in a space without a cost."""
    measured: dict[str, float]
    """Target -> the table's value, where the table has this code."""

    def architecture(self, *, pixels: bool = False, **options: Any) -> Architecture:
        """The network, which `build` and `fit` take.

        Args:
            pixels: with the head that gives each pixel a class.
            options: of it, such as num_classes.
        """
        return Architecture("multires_segmenter" if pixels else "multires", {**options, "code": list(self.code)})


@dataclass(frozen=True, kw_only=True)
class NcpResult:
    """What a search found."""

    best: FoundCode
    """The highest score within the budget."""
    front: list[FoundCode]
    """Codes within the budget that no cheaper code equals, cheapest first."""
    start: FoundCode
    """The code of the table with the highest score within the budget, for comparison."""
    asked: int
    """Codes that the predictors were asked about by single edits and at the end."""
    seconds: dict[str, float]
    """Of fitting and of searching."""


class Score:
    """The weighted, cautious score of codes under fitted predictors.

    Args:
        table: whose rows the predictors learn from.
        targets: what counts, and how much.
        config: predictor, caution, seed.
        rows: of the table to learn from; default: all that were measured on the target's task.
    """

    def __init__(
        self,
        table: Table,
        targets: Sequence[Target],
        config: NcpConfig,
        rows: NDArray[np.integer] | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not targets:
            raise UsageError(f"which targets? Name at least one of {', '.join(table.metrics)}.")
        for target in targets:
            table.column(target.name)  # a name that does not exist should be told before anything is fitted
        self.space = table.space
        self.asked = 0
        self._caution = config.caution
        self._parts: list[tuple[Target, Predictor, float, float]] = []
        for target in targets:
            notice(f"fitting {config.predictor} for {target.name}")
            chosen = table.rows(target.name, rows)
            values = table.column(target.name)[chosen]
            task = target.name.partition("/")[0]
            others = [one for one in table.metrics[task].values() if one is not table.column(target.name)]
            aside = np.stack([*others, *table.costs.values()], 1)[chosen] if others or table.costs else None
            predictor = create_predictor(config.predictor, table.space, config.seed)
            predictor.fit(table.codes[chosen], values, aside)
            self._parts.append((target, predictor, float(values.mean()), float(values.std()) or 1.0))

    @property
    def differentiable(self) -> bool:
        """Whether `at` answers."""
        return all(predictor.differentiable for _, predictor, _, _ in self._parts)

    def of(self, codes: Codes) -> Array:
        """Scores (N,) of codes (N, L)."""
        self.asked += len(codes)
        total = np.zeros(len(codes))
        for target, predictor, mean, spread in self._parts:
            estimate = predictor.predict(codes)
            total += target.weight * (estimate.mean - self._caution * estimate.std - mean) / spread
        return total

    def at(self, points: Tensor) -> Tensor:
        """Scores (N,) at points (N, D), with gradients."""
        total = torch.zeros(len(points), dtype=points.dtype)
        for target, predictor, mean, spread in self._parts:
            middle, deviation = predictor.at(points)
            total = total + target.weight * (middle - self._caution * deviation - mean) / spread
        return total

    def estimates(self, codes: Codes) -> list[dict[str, tuple[float, float]]]:
        """Mean and deviation of each target, for each code."""
        answers = {target.name: predictor.predict(codes) for target, predictor, _, _ in self._parts}
        return [
            {name: (float(one.mean[row]), float(one.std[row])) for name, one in answers.items()}
            for row in range(len(codes))
        ]


def search_ncp(
    table: Table,
    targets: Sequence[Target],
    *,
    budget: Budget | None = None,
    costs: CodeCosts | None = None,
    config: NcpConfig | None = None,
    starts: Codes | None = None,
    rows: NDArray[np.integer] | None = None,
    run_dir: Path | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> NcpResult:
    """Search for codes that are best at some targets within a budget.

    Args:
        table: of trained candidates.
        targets: what to raise.
        budget: of multiply-adds and parameters; never exceeded.
        costs: image and classes by which the budget is counted.
        config: how to search.
        starts: further codes to start from, such as the network that is used today, or what another task's search
            found.
        rows: of the table to learn from and to start from; default: all.
        run_dir: keeps what is done; a search that was killed goes on from there, to the same result.
        notice: is told what happens, in a few words.

    Raises:
        UnknownNameError: if a target or the predictor does not exist.
        UsageError: if the budget limits something that cannot be counted from a code, or a start is no code.
        BudgetError: if no code keeps the budget.
        DataError: if too few candidates were measured.
        CheckpointError: if the run folder belongs to another search.
    """
    budget, costs, config = budget or Budget(), costs or CodeCosts(), config or NcpConfig()
    check_budget(table.space, costs, budget)
    given = table.space.check(starts, "start") if starts is not None else table.codes[:0]
    if run_dir is not None:
        _claim(run_dir, _fingerprint(table, targets, budget, costs, config, given, rows))
    began = time.perf_counter()
    score = Score(table, targets, config, rows, notice)
    fitted = time.perf_counter()
    known = table.codes if rows is None else table.codes[np.asarray(rows)]
    search = _Search(score, budget, costs, config, np.concatenate([given, known]))
    found = [search.first]
    for number, weight in enumerate(config.cost_weights):
        notice(f"round {number + 1} of {len(config.cost_weights)}")
        found.append(_kept_round(run_dir, number, lambda weight=weight: search.round(weight, len(given))))  # type: ignore[misc]
    best, front, start = search.judge(np.unique(np.concatenate(found), axis=0), table)
    seconds = {"fit": fitted - began, "search": time.perf_counter() - fitted}
    return NcpResult(best=best, front=front, start=start, asked=score.asked, seconds=seconds)


class _Search:
    """One search: its starts, its rounds and its judgement."""

    def __init__(self, score: Score, budget: Budget, costs: CodeCosts, config: NcpConfig, known: Codes) -> None:
        self._score, self._budget, self._costs, self._config = score, budget, costs, config
        self._space = score.space
        self._has_cost = self._space is MULTIRES
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

    def round(self, cost_weight: float, given: int) -> Codes:
        """The codes that one round ends at.

        Args:
            cost_weight: see `COST_WEIGHTS`.
            given: how many of the known codes are the user's own starts.
        """
        half = -(-self._config.starts // 2)
        starts = np.concatenate([self._known[:given], self._ranked[:half], self._random[: self._config.starts - half]])
        candidates = starts
        if self._score.differentiable:
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

    def _described(self, codes: Codes, table: Table) -> list[FoundCode]:
        scores, estimates = self._score.of(codes), self._score.estimates(codes)
        rows = {tuple(map(int, code)): row for row, code in enumerate(table.codes)}
        found = []
        for code, score, estimate in zip(codes, scores, estimates, strict=True):
            plain = tuple(int(number) for number in code)
            row = rows.get(plain)
            values = {} if row is None else {name: float(table.column(name)[row]) for name in estimate}
            cost = {name: int(value) for name, value in self._costs.of(plain).items()} if self._has_cost else {}
            measured = {name: value for name, value in values.items() if np.isfinite(value)}
            found.append(FoundCode(code=plain, score=float(score), estimates=estimate, costs=cost, measured=measured))
        return found

    def _objective(self, x: Tensor, cost_weight: float) -> Tensor:
        points = x * self._standard.std + self._standard.mean
        worth = self._score.at(points)
        if not self._has_cost:
            return worth
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
        macs = self._costs.of(list(codes.T))["macs"] if self._has_cost else np.ones(len(codes))
        return np.asarray(macs, np.float64)

    def _keeps(self, codes: Codes) -> NDArray[np.bool_]:
        return within_budget(codes, self._costs, self._budget) if self._has_cost else np.ones(len(codes), bool)


def _spread_out(ranked: Codes, count: int) -> Codes:
    """The first of ranked codes that differ in more than a tenth of their numbers."""
    chosen: list[Any] = []
    for code in ranked:
        if all((code != other).mean() > 0.1 for other in chosen):
            chosen.append(code)
        if len(chosen) == count:
            break
    return np.stack(chosen)


def _kept_round(run_dir: Path | None, number: int, make: Callable[[], Codes]) -> Codes:
    """What a round found, read from the run folder if it is done."""
    if run_dir is None:
        return make()
    path = run_dir / _ROUND.format(number)
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as archive:
                return archive["codes"]
        except Exception as error:  # numpy raises errors of many kinds on a damaged file
            raise CheckpointError(f"{path} is damaged ({error}). Delete it; its round will be done again.") from error
    codes = make()
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, codes=codes)
    return codes


def _fingerprint(
    table: Table,
    targets: Sequence[Target],
    budget: Budget,
    costs: CodeCosts,
    config: NcpConfig,
    starts: Codes,
    rows: NDArray[np.integer] | None,
) -> dict[str, Any]:
    """All that decides what a search finds."""
    digest = hashlib.sha256(table.codes.tobytes())
    for target in targets:
        digest.update(np.ascontiguousarray(table.column(target.name)).tobytes())
    if rows is not None:
        digest.update(np.asarray(rows, np.int64).tobytes())
    return {
        "targets": {target.name: target.weight for target in targets},
        "budget": budget.to_dict(),
        "costs": {**vars(costs), "image": list(costs.image)},
        "config": {**vars(config), "cost_weights": list(config.cost_weights)},
        "starts": starts.tolist(),
        "table": digest.hexdigest(),
    }


def _claim(run_dir: Path, settings: dict[str, Any]) -> None:
    """Take a run folder for these settings, or find that it is theirs already."""
    path = run_dir / _SETTINGS
    if not path.is_file():
        write_text(path, json.dumps(settings, indent=1) + "\n")
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Give another folder (--out), or delete this one."
        ) from error
    if earlier != settings:
        differs = [name for name in settings if not isinstance(earlier, dict) or earlier.get(name) != settings[name]]
        raise CheckpointError(
            f"{run_dir} holds another search: {', '.join(differs)} differ. Give another folder (--out), or the same "
            "options to go on with that one."
        )
