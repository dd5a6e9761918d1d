"""Spaces of codes for any model: some of its options, each with a few numbers to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tenfold.errors import UsageError
from tenfold.search.code_spaces import Codes, CodeSpace, Points


class OptionSpace(CodeSpace):
    """Options of a model: a code holds the place of each option's number among its choices, a point the number itself.

    Args:
        name: of the model.
        options: option -> the numbers it may be.
    """

    def __init__(self, name: str, options: Mapping[str, Sequence[int | float]]) -> None:
        super().__init__(name, tuple(options), [range(len(values)) for values in options.values()])
        self.values = tuple(tuple(sorted(values)) for values in options.values())
        self._numbers = [np.array(values, np.float64) for values in self.values]

    @property
    def bounds(self) -> tuple[Points, Points]:
        """The least and the largest number of each option."""
        return np.array([one[0] for one in self._numbers]), np.array([one[-1] for one in self._numbers])

    def to_points(self, codes: Codes) -> Points:
        """The numbers of the options."""
        return np.stack([numbers[codes[:, at]] for at, numbers in enumerate(self._numbers)], 1)

    def to_codes(self, points: Points) -> Codes:
        """For each option the number that is nearest."""
        nearest = [np.abs(points[:, [at]] - numbers).argmin(1) for at, numbers in enumerate(self._numbers)]
        return np.stack(nearest, 1).astype(np.int64)

    def moves(self, at: int, value: int) -> Codes:
        """The next smaller and the next larger number."""
        near = np.array([value - 1, value + 1])
        return near[np.isin(near, self.choices[at])]

    def read(self, rows: object, what: str = "code") -> Codes:
        """Codes (N, L) from the numbers of the options.

        Raises:
            UsageError: if a row has another length, or a number that is no choice.
        """
        try:
            found = np.atleast_2d(np.asarray(rows, np.float64))
        except (TypeError, ValueError) as error:  # text, or rows of several lengths
            raise UsageError(f"{what} is not made of {len(self.names)} numbers ({error}).") from error
        self._check_length(found, what)
        codes = self.to_codes(found)
        wrong = self.to_points(codes) != found
        if wrong.any():
            row, at = (int(one[0]) for one in np.nonzero(wrong))
            raise UsageError(
                f"{what}{f' {row}' if len(found) > 1 else ''} lies outside of the space {self.name}: {self.names[at]} "
                f"is {found[row, at]:g}; allowed is {', '.join(f'{value:g}' for value in self.values[at])}."
            )
        return codes

    def write(self, code: Sequence[int]) -> tuple[int | float, ...]:
        """The numbers of the options of a code."""
        return tuple(values[place] for values, place in zip(self.values, code, strict=True))
