"""Which candidates no other one beats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pareto_front(costs: NDArray[np.generic], scores: NDArray[np.generic]) -> NDArray[np.int64]:
    """Indices of the candidates for which nothing cheaper is as good, cheapest first.

    Args:
        costs: (N,), lower is better.
        scores: (N,), higher is better.

    Example:
        >>> pareto_front(np.array([1, 2, 2, 3]), np.array([5, 4, 6, 6])).tolist()
        [0, 2]
    """
    front: list[int] = []
    best = -np.inf
    for at in np.lexsort((np.negative(scores), costs)):
        if scores[at] > best:
            front.append(int(at))
            best = float(scores[at])
    return np.array(front, np.int64)
