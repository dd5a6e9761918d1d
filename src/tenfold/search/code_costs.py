"""What a code costs, counted from its numbers, and whether that keeps a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.cost import Budget, format_amount
from tenfold.errors import BudgetError, UsageError
from tenfold.models.multires_code import code_cost
from tenfold.search.code_spaces import MULTIRES, Codes, CodeSpace

_COUNTED = ("macs", "params")


@dataclass(frozen=True, kw_only=True)
class CodeCosts:
    """The costs of the network that a code stands for.

    Raises:
        UsageError: if an image is too small, or a number of classes is not above zero.
    """

    image: tuple[int, int] = (128, 128)
    """Height and width; of 128x128 with 50 classes, the tables of NAS-Bench-MR are made."""
    num_classes: int = 50
    pixels: bool = False
    """A class for each pixel instead of one for the image."""

    def __post_init__(self) -> None:
        if min(self.image) < 1 or self.num_classes < 1:
            raise UsageError(f"image {self.image} and {self.num_classes} classes: all must be above zero.")

    def of(self, columns: Sequence[Any]) -> dict[str, Any]:
        """Multiply-adds and parameters of 27 numbers, or of 27 columns, of arrays or tensors."""
        cost = code_cost(columns, image=self.image, num_classes=self.num_classes, pixels=self.pixels)
        return {"macs": cost.macs, "params": cost.params}


def within_budget(codes: Codes, costs: CodeCosts, budget: Budget) -> NDArray[np.bool_]:
    """Which codes (N, L) keep a budget."""
    found = costs.of(list(codes.T))
    keeps = np.ones(len(codes), bool)
    for name, limit in budget.to_dict().items():
        keeps &= found[name] <= limit
    return keeps


def check_budget(space: CodeSpace, costs: CodeCosts, budget: Budget) -> None:
    """Refuse a budget that cannot be counted from a code, or that no code keeps.

    Raises:
        UsageError: if it limits something else than multiply-adds and parameters, or the space has no such costs.
        BudgetError: if even the smallest code exceeds it.
    """
    limits = budget.to_dict()
    if limits and space is not MULTIRES:
        raise UsageError(
            f"the cost of a code is known in the space multires only, not in {space.name}. Leave --budget."
        )
    if other := limits.keys() - set(_COUNTED):
        raise UsageError(
            f"--budget {', '.join(sorted(other))}: of a code only {' and '.join(_COUNTED)} are counted. "
            "For bits, bytes and milliseconds, give the found network to `tenfold fit` with a method and that budget."
        )
    smallest = costs.of([int(one[0]) for one in space.choices]) if limits else {}
    for name, limit in limits.items():
        if smallest[name] > limit:
            raise BudgetError(
                f"no code keeps {name}={format_amount(limit)}: the smallest network of the space {space.name} has "
                f"{format_amount(smallest[name])}. Allow at least that, or take smaller images."
            )
