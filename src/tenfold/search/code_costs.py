"""What a code costs, counted from its numbers or from its network, and whether that keeps a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.cost import Budget, format_amount
from tenfold.errors import BudgetError, UsageError
from tenfold.models.multires_code import code_cost
from tenfold.search.code_spaces import Codes, CodeSpace
from tenfold.search.origin import MeasuredTask, Origin

_COUNTED = ("macs", "params")


@dataclass(frozen=True, kw_only=True)
class CodeCosts:
    """The costs of the network that a code stands for, of one image or frame.

    Raises:
        UsageError: if an image is too small, or a number of classes or channels is not above zero.
    """

    image: tuple[int, int] = (128, 128)
    """Height and width; of 128x128 with 50 classes, the tables of NAS-Bench-MR are made."""
    num_classes: int = 50
    in_channels: int = 3
    pixels: bool = False
    """A class for each pixel instead of one for the image."""
    origin: Origin | None = None
    """Of codes that are options of a model: their networks are built and counted, each once. None for codes of the
    multi-resolution network, whose cost follows from the numbers."""
    _known: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(*self.image, self.num_classes, self.in_channels) < 1:
            raise UsageError(
                f"image {self.image}, {self.num_classes} classes and {self.in_channels} channels: all must be above "
                "zero."
            )

    @classmethod
    def on(cls, task: MeasuredTask, origin: Origin) -> CodeCosts:
        """The costs on a task that a table's candidates were trained on."""
        return cls(
            image=task.image,
            num_classes=task.num_classes,
            in_channels=task.in_channels,
            pixels=task.per_pixel,
            origin=None if origin.is_coded else origin,
        )

    def to_dict(self) -> dict[str, Any]:
        """By what is counted, as JSON values."""
        return {
            "image": list(self.image),
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "pixels": self.pixels,
        }

    @property
    def differentiable(self) -> bool:
        """Whether the cost follows gradients back to the numbers of a code."""
        return self.origin is None

    def of(self, columns: Sequence[Any]) -> dict[str, Any]:
        """Multiply-adds and parameters of the numbers of a code, or of columns of many (arrays or tensors)."""
        if self.origin is None:
            cost = code_cost(
                columns,
                image=self.image,
                num_classes=self.num_classes,
                in_channels=self.in_channels,
                pixels=self.pixels,
            )
            return {"macs": cost.macs, "params": cost.params}
        codes = np.stack([np.atleast_1d(column) for column in columns], 1)
        found = np.array([self._counted(tuple(map(int, code))) for code in codes]).reshape(-1, len(_COUNTED))
        return dict(zip(_COUNTED, found[0] if np.ndim(columns[0]) == 0 else found.T, strict=True))

    def _counted(self, code: tuple[int, ...]) -> tuple[int, int]:
        from tenfold.cost import profile
        from tenfold.models import build

        if code not in self._known:
            assert self.origin is not None
            architecture = self.origin.architecture(self.origin.space.write(code), per_pixel=self.pixels)
            network = build(architecture, num_classes=self.num_classes, in_channels=self.in_channels)
            counted = profile(network, (self.in_channels, *self.image))
            self._known[code] = counted.macs, counted.params
        return self._known[code]


def within_budget(codes: Codes, costs: CodeCosts, budget: Budget) -> NDArray[np.bool_]:
    """Which codes (N, L) keep a budget."""
    keeps = np.ones(len(codes), bool)
    limits = budget.to_dict()
    found = costs.of(list(codes.T)) if limits else {}
    for name, limit in limits.items():
        keeps &= found[name] <= limit
    return keeps


def check_budget(space: CodeSpace, costs: CodeCosts | None, budget: Budget) -> None:
    """Refuse a budget that cannot be counted from a code, or that no code keeps.

    Raises:
        UsageError: if it limits something else than multiply-adds and parameters, or the codes have no such costs.
        BudgetError: if even the cheapest code exceeds it.
    """
    limits = budget.to_dict()
    if not limits:
        return
    if costs is None:
        raise UsageError(f"nothing is known of what a code of {space.name} costs. Leave --budget.")
    if other := limits.keys() - set(_COUNTED):
        raise UsageError(
            f"--budget {', '.join(sorted(other))}: of a code only {' and '.join(_COUNTED)} are counted. "
            "For bits, bytes and milliseconds, give the found network to `tenfold fit` with a method and that budget."
        )
    # Of a space that is not small enough to look at, the least numbers make the smallest network.
    least = np.array([[int(one[0]) for one in space.choices]])
    found = costs.of(list((space.everything() if space.is_small else least).T))
    height, width = costs.image
    for name, limit in limits.items():
        if (smallest := int(min(found[name]))) > limit:
            raise BudgetError(
                f"no code keeps {name}={format_amount(limit)}: the smallest network of the space {space.name} has "
                f"{format_amount(smallest)} on {height}x{width} pixels. Allow at least that, or take smaller images."
            )
