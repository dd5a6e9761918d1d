"""A Gaussian process over codes: accurate with a few hundred rows, honest about what it does not know, differentiable.

scikit-learn's process has no gradient with respect to where it is asked, which propagation needs; so the kernel is
written in PyTorch. Length scales are learned on random parts of the rows, which is enough for them, and the process
is then exact on all rows.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25, 2.26, 4.17 and 5.12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tenfold.search.code_features import View

_JITTER = 1e-6


class GaussianProcess(nn.Module):
    """A sum of Matern 5/2 kernels, one over each view of a point, and a linear kernel over the first view.

    Args:
        views: of a point; each has length scales of its own.
        steps: of Adam on the marginal likelihood.
        part: rows of a step.
    """

    def __init__(self, views: Sequence[View], steps: int = 80, part: int = 600) -> None:
        super().__init__()
        self._views = list(views)
        self._steps = steps
        self._part = part

    def fit(self, points: Tensor, values: Tensor, seed: int = 0) -> GaussianProcess:
        """Learn from points (N, D) and values (N,), both of float64."""
        views = [view(points) for view in self._views]
        # A column that never changes stays 0.
        self._centres = [view.mean(0) for view in views]
        self._spreads = [torch.where(view.std(0) > 1e-9, view.std(0), 1.0) for view in views]
        self._mean, self._std = values.mean(), values.std().clamp_min(1e-9)
        self._rows = self._standardised(points)
        target = (values - self._mean) / self._std
        self._start(points.dtype)
        self._learn_scales(target, seed)
        with torch.no_grad():
            covariance = self._kernel(self._rows, self._rows) + self._noise_matrix(len(target))
            self._factor = torch.linalg.cholesky(covariance)
            self._weights = torch.cholesky_solve(target.unsqueeze(1), self._factor).squeeze(1)
            self._calibrate(target)
        self.requires_grad_(False)
        return self

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (N,) of what a measurement at points (N, D) would show."""
        asked = self._standardised(points)
        cross = self._kernel(asked, self._rows)  # (N, rows)
        mean = cross @ self._weights
        reduced = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)  # (rows, N)
        variance = self._prior(asked) - reduced.square().sum(0)
        variance = variance.clamp_min(0) + self._log_noise.exp()
        return mean * self._std + self._mean, variance.sqrt() * self._std * self._inflation

    def _start(self, dtype: torch.dtype) -> None:
        # A length of 1.5 root K in K standardised columns: points at the usual distance are half alike.
        lengths = [
            torch.full((view.shape[1],), -math.log(1.5 * math.sqrt(view.shape[1])), dtype=dtype) for view in self._rows
        ]
        self._log_scales = nn.ParameterList(lengths)
        self._log_amplitudes = nn.Parameter(torch.zeros(len(self._rows), dtype=dtype))
        self._log_slopes = nn.Parameter(torch.full((self._rows[0].shape[1],), -math.log(27) / 2, dtype=dtype))
        self._log_noise = nn.Parameter(torch.tensor(-2.0, dtype=dtype))

    def _learn_scales(self, target: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._steps)
        for _ in range(self._steps):
            chosen = torch.randperm(len(target), generator=generator)[: self._part]
            rows = [view[chosen] for view in self._rows]
            factor = torch.linalg.cholesky(self._kernel(rows, rows) + self._noise_matrix(len(chosen)))
            weights = torch.cholesky_solve(target[chosen].unsqueeze(1), factor).squeeze(1)
            loss = 0.5 * target[chosen] @ weights + factor.diagonal().log().sum()
            optimizer.zero_grad()
            (loss / len(chosen)).backward()
            optimizer.step()
            schedule.step()

    def _calibrate(self, target: Tensor) -> None:
        """Widen deviations until the rows, each left out in turn, lie in them as often as they should."""
        precision = torch.cholesky_inverse(self._factor).diagonal()
        self.left_out = (target - self._weights / precision) * self._std + self._mean
        self._inflation = (self._weights.square() / precision).mean().sqrt().clamp_min(1.0)

    def _standardised(self, points: Tensor) -> list[Tensor]:
        return [
            (view(points) - centre) / spread
            for view, centre, spread in zip(self._views, self._centres, self._spreads, strict=True)
        ]

    def _noise_matrix(self, count: int) -> Tensor:
        return (self._log_noise.exp() + _JITTER) * torch.eye(count, dtype=self._log_noise.dtype)

    def _kernel(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        slopes = (2 * self._log_slopes).exp()
        total = (left[0] * slopes) @ right[0].T
        for one, other, scales, amplitude in zip(left, right, self._log_scales, self._log_amplitudes, strict=True):
            total = total + amplitude.exp() * _matern(one * scales.exp(), other * scales.exp())
        return total

    def _prior(self, asked: Sequence[Tensor]) -> Tensor:
        """The diagonal of the kernel of points with themselves."""
        return (asked[0].square() * (2 * self._log_slopes).exp()).sum(1) + self._log_amplitudes.exp().sum()


def _matern(left: Tensor, right: Tensor) -> Tensor:
    """Matern 5/2 of length 1 between rows (N, K) and (M, K)."""
    squares = left.square().sum(1).unsqueeze(1) + right.square().sum(1) - 2 * left @ right.T
    # Rounding may leave less than zero; the root of zero has no gradient.
    distance = (5 * squares.clamp_min(1e-12)).sqrt()
    return (1 + distance + distance.square() / 3) * torch.exp(-distance)
