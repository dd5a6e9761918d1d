"""Predictors of what a code reaches, all behind one call: fit on rows of a table, then ask for any code.

Each answers with a mean and with the standard deviation of what a measurement would show. Those that are differentiable
also answer between codes, with gradients, so that a code can be propagated along them; the others can be asked by
searches that edit one number at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.errors import DataError, UnknownNameError, UsageError, require
from tenfold.search.code_features import views_of
from tenfold.search.code_spaces import Codes, CodeSpace
from tenfold.search.gaussian_process import GaussianProcess
from tenfold.search.predictor_network import PredictorNetwork, train_predictor
from tenfold.search.propagation import Standard

Array = NDArray[np.float64]
_LEAST_ROWS = 20
_HEADROOM = 0.75
"""Deviations of the ceiling of a warped process above the best row."""
# A posterior over so many codes at a time: memory stays below 100 MB beside 2000 rows.
_PORTION = 2048


class Estimate(NamedTuple):
    """What a predictor says of codes."""

    mean: Array
    """(N,), in the unit of the metric."""
    std: Array
    """(N,), of what a measurement would show around the mean."""


class Predictor(ABC):
    """Learns one target.

    Args:
        space: of the codes.
        seed: of all that is drawn.
    """

    differentiable = False
    """Whether `at` answers."""

    def __init__(self, space: CodeSpace, seed: int = 0) -> None:
        self.space = space
        self.seed = seed

    @abstractmethod
    def fit(self, codes: Codes, values: Array, aside: Array | None = None) -> Predictor:
        """Learn.

        Args:
            codes: (N, L).
            values: the target (N,).
            aside: other metrics of the same candidates (N, M), from which some predictors learn a better trunk.

        Raises:
            DataError: if there are fewer than 20 rows, or a value is not finite.
        """

    @abstractmethod
    def predict(self, codes: Codes) -> Estimate:
        """Mean and deviation for codes (N, L)."""

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (N,) at points (N, D) of float64, with gradients.

        Raises:
            UsageError: if this predictor has none.
        """
        raise UsageError(
            f"{type(self).__name__} has no gradient, so no code can be propagated along it. Take mlp, ensemble, gp or "
            "blend, or edit codes number by number (winner_takes_all)."
        )


class MlpPredictor(Predictor):
    """The authors' perceptron, or several of them, whose disagreement tells where they do not know.

    Args:
        space: of the codes.
        seed: of starts, batches and dropout.
        members: of the ensemble.
        epochs: of the training.
    """

    differentiable = True

    def __init__(self, space: CodeSpace, seed: int = 0, members: int = 1, epochs: int = 200) -> None:
        super().__init__(space, seed)
        self._members = members
        self._epochs = epochs

    def fit(self, codes: Codes, values: Array, aside: Array | None = None) -> MlpPredictor:
        """See `Predictor.fit`."""
        _check_rows(codes, values)
        outputs = values[:, None] if aside is None or not aside.size else np.column_stack([values, aside])
        found = self.space.to_points(codes)
        self._inputs, self._outputs = Standard.of(found), Standard.of(outputs)
        points, targets = torch.from_numpy(found), torch.from_numpy(outputs)
        heads = [1] if outputs.shape[1] == 1 else [1, outputs.shape[1] - 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = PredictorNetwork(points.shape[1], heads, self._members, cost_heads=0)
        rows = ((points - self._inputs.mean) / self._inputs.std).float()
        goals = ((targets - self._outputs.mean) / self._outputs.std).float()
        train_predictor(self.network, rows, goals, seed=self.seed, epochs=self._epochs)
        self.network.requires_grad_(False)
        residual = values - self._members_at(points).mean(0).numpy()
        self._noise = float(np.sqrt(np.mean(residual**2)))
        return self

    def predict(self, codes: Codes) -> Estimate:
        """See `Predictor.predict`."""
        with torch.no_grad():
            mean, std = self.at(torch.from_numpy(self.space.to_points(codes)))
        return Estimate(mean.numpy(), std.numpy())

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `Predictor.at`."""
        answers = self._members_at(points)
        spread = answers.var(0) if self._members > 1 else torch.zeros_like(answers[0])
        return answers.mean(0), (spread + self._noise**2).sqrt()

    def _members_at(self, points: Tensor) -> Tensor:
        """Each member's answer (members, N)."""
        answers = self.network(((points - self._inputs.mean) / self._inputs.std).float())[..., 0].double()
        return answers * self._outputs.std[0] + self._outputs.mean[0]


class GpPredictor(Predictor):
    """A Gaussian process over what `views_of` tells of a code.

    Args:
        space: of the codes.
        seed: of the parts of the rows that length scales are learned from.
        warped: learn the logarithm of what is missing to a ceiling above the best row. Good candidates crowd below a
            ceiling and bad ones fall far; so warped, both are spread alike.
    """

    differentiable = True

    def __init__(self, space: CodeSpace, seed: int = 0, warped: bool = False) -> None:
        super().__init__(space, seed)
        self._warped = warped

    def fit(self, codes: Codes, values: Array, aside: Array | None = None) -> GpPredictor:
        """See `Predictor.fit`; the other metrics are not used."""
        _check_rows(codes, values)
        views = views_of(self.space) or [_as_is]
        points, targets = torch.from_numpy(self.space.to_points(codes)), torch.from_numpy(values)
        self._ceiling = targets.max() + _HEADROOM * targets.std().clamp_min(1e-9)
        if self._warped:
            targets = -torch.log(self._ceiling - targets)
        self.process = GaussianProcess(views).fit(points, targets, self.seed)
        return self

    def predict(self, codes: Codes) -> Estimate:
        """See `Predictor.predict`."""
        points = torch.from_numpy(self.space.to_points(codes))
        with torch.no_grad():
            parts = [self.at(part) for part in points.split(_PORTION)]
        mean, std = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        return Estimate(mean, std)

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `Predictor.at`; of a warped process the median, and the deviation to first order."""
        mean, std = self.process(points)
        if not self._warped:
            return mean, std
        missing = torch.exp(-mean)
        return self._ceiling - missing, missing * std


class BoostingPredictor(Predictor):
    """Gradient-boosted trees, over a code and what `views_of` tells of it.

    The deviation is that of a fifth of the rows, held out in a trial, the same for all codes: trees say nothing of
    where they are.

    Args:
        space: of the codes.
        seed: of the trees.
        library: "sklearn", "lightgbm" or "catboost".
    """

    def __init__(self, space: CodeSpace, seed: int = 0, library: str = "sklearn") -> None:
        super().__init__(space, seed)
        self._make = _BOOSTING[library]
        self._make(seed)  # a missing package should be told before anything is computed

    def fit(self, codes: Codes, values: Array, aside: Array | None = None) -> BoostingPredictor:
        """See `Predictor.fit`; the other metrics are not used."""
        _check_rows(codes, values)
        columns = self._columns(codes)
        order = np.random.default_rng(self.seed).permutation(len(values))
        held, kept = np.split(order, [len(order) // 5])
        trial = self._make(self.seed).fit(columns[kept], values[kept])
        self._deviation = float(np.sqrt(np.mean((trial.predict(columns[held]) - values[held]) ** 2)))
        self._model = self._make(self.seed).fit(columns, values)
        return self

    def predict(self, codes: Codes) -> Estimate:
        """See `Predictor.predict`."""
        mean = np.asarray(self._model.predict(self._columns(codes)), np.float64)
        return Estimate(mean, np.full(len(mean), self._deviation))

    def _columns(self, codes: Codes) -> Array:
        points = torch.from_numpy(self.space.to_points(codes))
        return torch.cat([points, *(view(points) for view in views_of(self.space))], 1).numpy()


class BlendPredictor(Predictor):
    """The mean of several predictors; the deviation joins what each says with how far apart they are.

    `at` follows those of them that have gradients.

    Args:
        space: of the codes.
        seed: of all of them.
        kinds: names of the predictors.
        shares: their weights; they are brought to a sum of 1.
    """

    differentiable = True

    def __init__(
        self, space: CodeSpace, seed: int = 0, kinds: Sequence[str] = (), shares: Sequence[float] = ()
    ) -> None:
        super().__init__(space, seed)
        self._parts = [create_predictor(kind, space, seed) for kind in kinds]
        self._shares = np.asarray(shares) / np.sum(shares)

    def fit(self, codes: Codes, values: Array, aside: Array | None = None) -> BlendPredictor:
        """See `Predictor.fit`."""
        for part in self._parts:
            part.fit(codes, values, aside)
        return self

    def predict(self, codes: Codes) -> Estimate:
        """See `Predictor.predict`."""
        answers = [part.predict(codes) for part in self._parts]
        means, stds = (np.stack(column) for column in zip(*answers, strict=True))
        mean = self._shares @ means
        return Estimate(mean, np.sqrt(self._shares @ (stds**2 + (means - mean) ** 2)))

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `Predictor.at`."""
        smooth = [
            (part.at(points), share)
            for part, share in zip(self._parts, self._shares, strict=True)
            if part.differentiable
        ]
        whole = sum(share for _, share in smooth)
        means = torch.stack([mean * (share / whole) for (mean, _), share in smooth]).sum(0)
        variances = torch.stack(
            [(std.square() + (mean - means).square()) * (share / whole) for (mean, std), share in smooth]
        )
        return means, variances.sum(0).sqrt()


def _sklearn_trees(seed: int) -> Any:
    require("sklearn", "search")
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=500, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=10, max_features=0.4, random_state=seed
    )


def _lightgbm_trees(seed: int) -> Any:
    return require("lightgbm", "search").LGBMRegressor(
        n_estimators=600,
        learning_rate=0.03,
        num_leaves=15,
        min_child_samples=10,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.4,
        random_state=seed,
        n_jobs=1,
        verbose=-1,
    )


def _catboost_trees(seed: int) -> Any:
    return require("catboost", "boosting").CatBoostRegressor(
        iterations=1000,
        learning_rate=0.05,
        depth=6,
        random_seed=seed,
        thread_count=1,
        verbose=0,
        allow_writing_files=False,
    )


_BOOSTING: dict[str, Callable[[int], Any]] = {
    "sklearn": _sklearn_trees,
    "lightgbm": _lightgbm_trees,
    "catboost": _catboost_trees,
}

_KINDS: dict[str, Callable[[CodeSpace, int], Predictor]] = {
    "mlp": MlpPredictor,
    "ensemble": lambda space, seed: MlpPredictor(space, seed, members=5, epochs=60),
    "gp": GpPredictor,
    "gp-warped": lambda space, seed: GpPredictor(space, seed, warped=True),
    "boosting": BoostingPredictor,
    "lightgbm": lambda space, seed: BoostingPredictor(space, seed, "lightgbm"),
    "catboost": lambda space, seed: BoostingPredictor(space, seed, "catboost"),
    "blend": lambda space, seed: BlendPredictor(space, seed, ("gp", "gp-warped", "lightgbm"), (1, 1, 1)),
}

PREDICTORS = tuple(_KINDS)
"""Names that `create_predictor` takes."""


def create_predictor(kind: str, space: CodeSpace, seed: int = 0) -> Predictor:
    """A predictor by name, not fitted yet.

    Args:
        kind: "mlp" (the authors'), "ensemble" (five of them, trained for less long), "gp", "gp-warped", "boosting"
            (scikit-learn's), "lightgbm", "catboost", or "blend" of both processes and LightGBM.
        space: of the codes.
        seed: of all that is drawn.

    Raises:
        UnknownNameError: if there is no such predictor.
        MissingExtraError: if its library is not installed.
    """
    if kind not in _KINDS:
        raise UnknownNameError("predictor", kind, _KINDS, hint=f"There are: {', '.join(_KINDS)}.")
    return _KINDS[kind](space, seed)


def _check_rows(codes: Codes, values: Array) -> None:
    if len(codes) != len(values):
        raise DataError(f"there are {len(codes)} codes and {len(values)} values; each code needs one.")
    if len(codes) < _LEAST_ROWS:
        raise DataError(f"{len(codes)} measured candidates are too few to learn from; give at least {_LEAST_ROWS}.")
    if not np.isfinite(values).all():
        raise DataError(
            f"value {int((~np.isfinite(values)).argmax())} to learn from is not a number. Leave that row out."
        )


def _as_is(points: Tensor) -> Tensor:
    return points
