"""Spaces of codes: what numbers a candidate is made of, which values they may take, and how a predictor sees them.

A *code* is a row of whole numbers. A predictor sees it as a point of real numbers, along which gradients can move; from
there the nearest code is read back. Two kinds: numbers on a grid (NAS-Bench-MR) and choices (NAS-Bench-201).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import UsageError
from tenfold.models.multires_code import IS_CHANNELS, NAMES

Codes = NDArray[np.int64]
Points = NDArray[np.float64]
_SHOWN = 3
_SMALL = 20_000
"""Codes of a small space."""


class CodeSpace(ABC):
    """The codes that a search may visit.

    Attributes:
        name: for people and files.
        names: of the numbers of a code, in order.
        choices: the values that each number may take, ascending.
    """

    def __init__(self, name: str, names: Sequence[str], choices: Sequence[Sequence[int]]) -> None:
        self.name = name
        self.names = tuple(names)
        self.choices = tuple(np.asarray(one, np.int64) for one in choices)

    @property
    @abstractmethod
    def bounds(self) -> tuple[Points, Points]:
        """Least and largest coordinates of points, each (D,)."""

    @abstractmethod
    def to_points(self, codes: Codes) -> Points:
        """Codes (N, L) as points (N, D)."""

    @abstractmethod
    def to_codes(self, points: Points) -> Codes:
        """The codes (N, L) nearest to points (N, D)."""

    @abstractmethod
    def moves(self, at: int, value: int) -> Codes:
        """The values that a single edit may give to number `at` where it is `value`."""

    def within(self, codes: Codes) -> CodeSpace:
        """The part of the space that codes (N, L) reach: beyond it, a table tells nothing."""
        return self

    @property
    def size(self) -> int:
        """How many codes there are."""
        product = 1
        for one in self.choices:
            product *= len(one)
        return product

    @property
    def is_small(self) -> bool:
        """Whether every code can be asked about, which is surer than to move through the space."""
        return self.size <= _SMALL

    def random(self, count: int, rng: np.random.Generator) -> Codes:
        """Codes (count, L), each number drawn uniformly."""
        return np.stack([rng.choice(one, count) for one in self.choices], 1)

    def everything(self) -> Codes:
        """All codes (size, L), of a space that is small enough to hold them."""
        return np.stack(np.meshgrid(*self.choices, indexing="ij"), -1).reshape(-1, len(self.names))

    def neighbours(self, code: Codes) -> Codes:
        """All codes (M, L) that one edit leads to."""
        found = []
        for at, value in enumerate(code):
            for other in self.moves(at, int(value)):
                edited = code.copy()
                edited[at] = other
                found.append(edited)
        return np.stack(found)

    def mutate(self, code: Codes, rng: np.random.Generator) -> Codes:
        """The code with one number, chosen at random, set to another value, chosen at random."""
        at = int(rng.choice([at for at, one in enumerate(self.choices) if len(one) > 1]))
        edited = code.copy()
        edited[at] = rng.choice(self.choices[at][self.choices[at] != code[at]])
        return edited

    def check(self, codes: object, what: str = "code") -> Codes:
        """Codes as an array (N, L), if they all lie in the space.

        Args:
            codes: one code or a list of codes.
            what: they are, for messages.

        Raises:
            UsageError: if a code has another length, or a number outside of its choices.
        """
        try:
            found = np.atleast_2d(np.asarray(codes))
        except ValueError as error:  # rows of several lengths
            raise UsageError(f"{what}: not all of them have {len(self.names)} numbers ({error}).") from error
        self._check_length(found, what)
        whole = found.astype(np.int64) if found.dtype.kind in "iuf" and np.isfinite(found).all() else None
        if whole is None or (whole != found).any():
            raise UsageError(f"{what} must be made of whole numbers.")
        for at, (name, allowed) in enumerate(zip(self.names, self.choices, strict=True)):
            wrong = ~np.isin(whole[:, at], allowed)
            if wrong.any():
                row = int(wrong.argmax())
                raise UsageError(
                    f"{what}{f' {row}' if len(whole) > 1 else ''} lies outside of the space {self.name}: {name} is "
                    f"{whole[row, at]}; allowed is {_listed(allowed)}."
                )
        return whole

    def read(self, rows: object, what: str = "code") -> Codes:
        """Codes (N, L) as people write them: here the codes themselves.

        Raises:
            UsageError: if one lies outside of the space.
        """
        return self.check(rows, what)

    def write(self, code: Sequence[int]) -> tuple[int | float, ...]:
        """A code as people write it."""
        return tuple(int(number) for number in code)

    def _check_length(self, rows: NDArray[np.generic], what: str) -> None:
        if rows.ndim != 2 or rows.shape[1] != len(self.names):
            raise UsageError(
                f"{what} has {rows.shape[-1]} numbers; in the space {self.name} it takes {len(self.names)}: "
                f"{' '.join(self.names)}."
            )


class GridSpace(CodeSpace):
    """Numbers on grids: a point is the code itself.

    Args:
        name: of the space.
        names: of the numbers.
        steps: distance of neighbouring values of each number; the least value is one step.
        most: the largest value of each number.
    """

    def __init__(self, name: str, names: Sequence[str], steps: Sequence[int], most: Sequence[int]) -> None:
        super().__init__(name, names, [range(step, top + 1, step) for step, top in zip(steps, most, strict=True)])
        self.steps = np.asarray(steps, np.int64)

    @property
    def bounds(self) -> tuple[Points, Points]:
        """Least and largest value of each number."""
        low, high = ([one[end] for one in self.choices] for end in (0, -1))
        return np.array(low, np.float64), np.array(high, np.float64)

    def to_points(self, codes: Codes) -> Points:
        """The numbers themselves."""
        return codes.astype(np.float64)

    def to_codes(self, points: Points) -> Codes:
        """Each number brought to its grid, halves upwards, and never below one step.

        Source: arXiv 2103.13253, official code (ncp.md section 6).
        """
        grid = np.floor((points + self.steps / 2) / self.steps) * self.steps
        low, high = self.bounds
        return np.clip(grid, low, high).astype(np.int64)

    def within(self, codes: Codes) -> GridSpace:
        """With no number above the largest one of codes (N, L)."""
        return GridSpace(self.name, self.names, self.steps.tolist(), codes.max(0).tolist())

    def moves(self, at: int, value: int) -> Codes:
        """One step down and one up."""
        near = np.array([value - self.steps[at], value + self.steps[at]])
        return near[np.isin(near, self.choices[at])]


class ChoiceSpace(CodeSpace):
    """Numbers that name choices without order: a point has one coordinate from 0 to 1 for each of them.

    Args:
        name: of the space.
        names: of the numbers.
        options: what the values 0, 1, ... of every number mean.
    """

    def __init__(self, name: str, names: Sequence[str], options: Sequence[str]) -> None:
        super().__init__(name, names, [range(len(options))] * len(names))
        self.options = tuple(options)

    @property
    def bounds(self) -> tuple[Points, Points]:
        """Zeros and ones."""
        width = len(self.names) * len(self.options)
        return np.zeros(width), np.ones(width)

    def to_points(self, codes: Codes) -> Points:
        """One-hot."""
        return np.eye(len(self.options))[codes].reshape(len(codes), -1)

    def to_codes(self, points: Points) -> Codes:
        """The largest coordinate of each number."""
        return points.reshape(len(points), len(self.names), -1).argmax(-1).astype(np.int64)

    def moves(self, at: int, value: int) -> Codes:
        """Every other choice."""
        return self.choices[at][self.choices[at] != value]


MULTIRES = GridSpace(
    "multires", NAMES, [8 if one else 1 for one in IS_CHANNELS], [128 if one else 4 for one in IS_CHANNELS]
)
"""The space of NAS-Bench-MR: channels in {8, 16, ..., 128}, counts in {1, 2, 3, 4}; 2^80 codes."""

NAS_BENCH_201 = ChoiceSpace(
    "nas-bench-201",
    ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3"),
    ("avg_pool_3x3", "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"),
)
"""The cells of NAS-Bench-201 in the order of the NCP authors' table: an operation for each of six edges."""


def _listed(allowed: Codes) -> str:
    if len(allowed) <= 2 * _SHOWN:
        return ", ".join(map(str, allowed))
    return f"{', '.join(map(str, allowed[:_SHOWN]))}, ..., {allowed[-1]}"
