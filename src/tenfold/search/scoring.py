"""What a search by propagation maximises: a weighted sum over targets of cautious estimates of fitted predictors.

Each counts in units of its own spread in the table, as mean minus a number of deviations, so that propagation does not
end where a predictor knows least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.errors import UsageError
from tenfold.search.code_spaces import Codes
from tenfold.search.predictors import Predictor, create_predictor
from tenfold.search.tables import Table

Array = NDArray[np.float64]
COST_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
"""What a doubling of the multiply-adds takes from a score, one round for each."""


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
        if not self.lr > 0 or not np.isfinite(self.caution) or not self.cost_weights:
            raise UsageError("lr must be above zero, caution a number, and there must be at least one cost weight.")


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
