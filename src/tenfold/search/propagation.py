"""Network code propagation: edit a code by the gradient of what a predictor says of it.

`propagate` moves every number of a code at once and carries on from where it arrives, between the codes of the grid,
as the authors' program does; any number of starts move side by side. `winner_takes_all` edits one number at a time, the
one that promises most, and so needs no gradient and can keep a hard limit at each step.

Source: arXiv 2103.13253, section 3, and official code (ncp.md section 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.errors import UsageError
from tenfold.search.code_spaces import Codes, CodeSpace

Array = NDArray[np.float64]
Objective = Callable[[Tensor], Tensor]
"""From standardised points (N, D) to what is to grow, (N,); every row must depend on its own point alone."""
Scores = Callable[[Codes], Array]
"""From codes (N, L) to what is to grow, (N,); minus infinity where a code is not allowed."""


class Standard(NamedTuple):
    """What standardises points: steps of one length then mean the same in every coordinate."""

    mean: Tensor
    """(D,)."""
    std: Tensor
    """(D,)."""

    @classmethod
    def of(cls, points: Array) -> Standard:
        """Mean and population deviation of points (N, D); 1 for a coordinate that never changes."""
        found = torch.from_numpy(points)
        std = found.std(0, correction=0)
        return cls(found.mean(0), torch.where(std > 1e-9, std, 1.0))


class Path(NamedTuple):
    """What propagation visited."""

    points: Array
    """(iterations + 1, starts, D): before each step, and after the last."""
    codes: Codes
    """(iterations + 1, starts, L): the nearest codes of them."""

    def visited(self) -> Codes:
        """Every code once."""
        return np.unique(self.codes.reshape(-1, self.codes.shape[-1]), axis=0)


def propagate(
    objective: Objective,
    space: CodeSpace,
    starts: Codes,
    standard: Standard,
    *,
    lr: float = 3.0,
    iterations: int = 70,
    dtype: torch.dtype = torch.float64,
) -> Path:
    """Follow the gradient of an objective from many codes at once.

    One step is x <- clip(x + lr * gradient), with x standardised and clipped to the bounds of the space. The authors'
    program sets targets a little above and below the predictions, but its absolute error lets only their signs through,
    so this is what it does; for it, the objective is the accuracy minus alpha times the cost, both as its predictor
    states them.

    Args:
        objective: what is to grow.
        space: of the codes.
        starts: codes (N, L).
        standard: of the points.
        lr: length of a step; 3 is the authors'.
        iterations: steps; 70 are the authors'.
        dtype: of the arithmetic; the authors' is float32.

    Raises:
        UsageError: if a start lies outside of the space, or lr or iterations is not above zero.
    """
    if not lr > 0 or iterations < 1:
        raise UsageError(f"lr is {lr} and iterations {iterations}; both must be above zero.")
    codes = space.check(starts, "start")
    mean, std = standard.mean.to(dtype), standard.std.to(dtype)
    low, high = ((torch.from_numpy(bound).to(dtype) - mean) / std for bound in space.bounds)
    x = (torch.from_numpy(space.to_points(codes)).to(dtype) - mean) / std
    seen = [x]
    for _ in range(iterations):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x).sum(), x)
        # Clipped outside of the graph: the authors' program stops here on a current PyTorch.
        x = (x.detach() + lr * gradient).clamp(low, high)
        seen.append(x)
    points = torch.stack(seen).detach() * std + mean
    found = points.double().numpy()
    rounded = space.to_codes(found.reshape(-1, found.shape[-1]))
    return Path(found, rounded.reshape(*found.shape[:2], -1))


def winner_takes_all(scores: Scores, space: CodeSpace, starts: Codes, *, most_edits: int = 200) -> Path:
    """From many codes at once, make the one edit that helps most, again and again, until none helps.

    An edit moves one number by one step of its grid, or to another choice. All edits of all codes are asked about in
    one call. A code that nothing improves stays where it is.

    Source: after arXiv 2103.13253, "winner takes all", for which no code was published (ncp.md section 6.1).

    Args:
        scores: what is to grow.
        space: of the codes.
        starts: codes (N, L).
        most_edits: after so many a code stays, too.

    Raises:
        UsageError: if a start lies outside of the space.
    """
    codes = space.check(starts, "start").copy()
    best = scores(codes)
    path, moving = [codes.copy()], np.ones(len(codes), bool)
    for _ in range(most_edits):
        rows = np.flatnonzero(moving)
        edits = [space.neighbours(codes[row]) for row in rows]
        answers = np.split(scores(np.concatenate(edits)), np.cumsum([len(one) for one in edits])[:-1])
        for row, edited, values in zip(rows, edits, answers, strict=True):
            winner = int(values.argmax())
            moving[row] = values[winner] > best[row]
            if moving[row]:
                codes[row], best[row] = edited[winner], values[winner]
        path.append(codes.copy())
        if not moving.any():
            break
    visited = np.stack(path)
    points = space.to_points(visited.reshape(-1, visited.shape[-1]))
    return Path(points.reshape(*visited.shape[:2], -1), visited)
