"""What a search by propagation maximises: a weighted sum over targets of cautious estimates of fitted predictors.

Each counts in units of its own spread in the table, as mean minus a number of deviations, so that propagation does not
end where a predictor knows least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.errors import UnknownNameError, UsageError
from tenfold.search.code_spaces import Codes
from tenfold.search.predictors import Predictor, create_predictor
from tenfold.search.tables import Table

Array = NDArray[np.float64]
Mode = Literal["both", "continuous", "winner-takes-all"]
COST_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
"""What a doubling of the multiply-adds takes from a score, one round for each."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a search is to raise, or to lower."""

    name: str
    """A task of the table ("seg"), for its main metric, or "TASK/METRIC"."""
    weight: float = 1.0
    """How much it counts; below zero where less is better."""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read "seg", "seg=2", or "seg/error=-1".

        Raises:
            UsageError: if the weight is no number, or zero.
        """
        name, equals, weight = text.partition("=")
        try:
            value = float(weight) if equals else 1.0
        except ValueError:
            value = float("nan")
        if not name.strip() or not np.isfinite(value) or value == 0:
            raise UsageError(
                f"--target {text!r} is not NAME or NAME=WEIGHT, such as seg=2; a weight is above zero where more is "
                "better, and below where less is."
            )
        return cls(name=name.strip(), weight=value)


@dataclass(frozen=True, kw_only=True)
class NcpConfig:
    """How to search."""

    predictor: str = "blend"
    """A name that `create_predictor` knows."""
    starts: int = 16
    """Codes that each round starts from: the best of the table, and random ones."""
    mode: Mode = "both"
    """"continuous" moves codes along the gradient, all numbers at once; "winner-takes-all" edits one number at a time,
    the one that promises most; "both" does the second after the first, and in a small space asks about every code."""
    iterations: int = 70
    """Steps along the gradient."""
    lr: float = 1.0
    """Length of a step; the authors' is 3."""
    caution: float = 1.0
    """Deviations taken from each estimate before it counts; 0 believes the mean, as the authors do. Below 0 they are
    added: for codes that are to be measured next, because what is not known well is worth measuring."""
    proposals: int = 0
    """Codes to propose for measuring; no two of them agree in more than nine tenths of their numbers."""
    cost_weights: tuple[float, ...] = COST_WEIGHTS
    """See `COST_WEIGHTS`."""
    seed: int = 0
    """Of predictors and starts."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("starts", self.starts, 1),
            ("iterations", self.iterations, 1),
            ("proposals", self.proposals, 0),
        ):
            if value < least:
                raise UsageError(f"{name} is {value}; allowed is a whole number from {least}.")
        if self.mode not in get_args(Mode):
            raise UnknownNameError("mode of a search", self.mode, get_args(Mode))
        object.__setattr__(self, "cost_weights", tuple(self.cost_weights))
        if not self.lr > 0 or not np.isfinite(self.caution) or not self.cost_weights:
            raise UsageError("lr must be above zero, caution a number, and there must be at least one cost weight.")


def check_targets(table: Table, targets: Sequence[Target]) -> None:
    """See that there are targets, that the table has them, and that none is named twice.

    Raises:
        UsageError: if there is none, or one twice.
        UnknownNameError: if the table has no such task or metric.
    """
    if not targets:
        raise UsageError(f"which targets? Name at least one of {', '.join(table.metrics)}.")
    columns = [id(table.column(target.name)) for target in targets]
    for at, target in enumerate(targets):
        if columns[at] in columns[:at]:
            raise UsageError(f"the target {target.name} is named twice; give it once, with a weight.")


class Score:
    """The weighted, cautious score of codes under fitted predictors.

    Args:
        table: whose rows the predictors learn from.
        targets: what counts, and how much; after `check_targets`.
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
            total += target.weight * (estimate.mean - mean) / spread
            total -= abs(target.weight) * self._caution * estimate.std / spread
        return total

    def at(self, points: Tensor) -> Tensor:
        """Scores (N,) at points (N, D), with gradients."""
        total = torch.zeros(len(points), dtype=points.dtype)
        for target, predictor, mean, spread in self._parts:
            middle, deviation = predictor.at(points)
            total = total + target.weight * (middle - mean) / spread
            total = total - abs(target.weight) * self._caution * deviation / spread
        return total

    def estimates(self, codes: Codes) -> list[dict[str, tuple[float, float]]]:
        """Mean and deviation of each target, for each code."""
        answers = {target.name: predictor.predict(codes) for target, predictor, _, _ in self._parts}
        return [
            {name: (float(one.mean[row]), float(one.std[row])) for name, one in answers.items()}
            for row in range(len(codes))
        ]
