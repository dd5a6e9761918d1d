"""Candidates to measure: networks of one family, each given by a code of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.errors import UsageError
from tenfold.models import Architecture, facts
from tenfold.models.multires_code import IS_CHANNELS, NAMES

CODED = "multires"
"""The model whose candidates are codes."""
_LARGEST_CHANNELS = 128
_ATTEMPTS = 200


@dataclass(frozen=True, kw_only=True)
class CandidateSpace:
    """A model and what may vary in it.

    Args:
        model: a registered name.
        choices: option -> its values. Not for "multires", whose choices are the numbers of its code.
    """

    model: str
    choices: Mapping[str, Sequence[int | float]]

    @classmethod
    def multires(cls, channels: int = _LARGEST_CHANNELS, counts: int = 4) -> CandidateSpace:
        """Codes of the multi-resolution network: channels 8, 16, ..., `channels`, counts 1 to `counts`.

        Raises:
            UsageError: if a limit is outside of NAS-Bench-MR's space.
        """
        if channels % 8 or not 8 <= channels <= _LARGEST_CHANNELS:
            raise UsageError(f"channels is {channels}; allowed is a multiple of 8 up to {_LARGEST_CHANNELS}.")
        if not 1 <= counts <= 4:
            raise UsageError(f"counts is {counts}; allowed is 1 to 4.")
        widths, numbers = tuple(range(8, channels + 1, 8)), tuple(range(1, counts + 1))
        return cls(
            model=CODED,
            choices={name: widths if wide else numbers for name, wide in zip(NAMES, IS_CHANNELS, strict=True)},
        )

    def __post_init__(self) -> None:
        facts(self.model)
        if not self.choices or not all(self.choices.values()):
            raise UsageError(f"nothing varies in {self.model!r}. Name options with their values, such as width=0.5,1.")

    @property
    def size(self) -> int:
        """Number of different candidates."""
        return int(np.prod([float(len(one)) for one in self.choices.values()]))

    def draw(self, count: int, seed: int) -> list[dict[str, int | float]]:
        """Different codes, all equally likely; the first ones do not depend on how many are drawn.

        Raises:
            UsageError: if there are not so many.
        """
        if count > self.size:
            raise UsageError(f"{count} candidates were asked for, but the space has {self.size}. Ask for fewer.")
        rng = np.random.default_rng(seed)
        found: dict[tuple[int | float, ...], None] = {}
        for _ in range(_ATTEMPTS * count):
            if len(found) == count:
                break
            found.setdefault(tuple(one[int(rng.integers(len(one)))] for one in self.choices.values()))
        if len(found) < count:
            raise UsageError(f"only {len(found)} of {count} different candidates were drawn. Ask for fewer.")
        return [dict(zip(self.choices, code, strict=True)) for code in found]

    def check(self, code: Sequence[int | float]) -> dict[str, int | float]:
        """A code with the names of its numbers, if it lies in the space.

        Raises:
            UsageError: if it has another length, or a number that is no choice.
        """
        if len(code) != len(self.choices):
            raise UsageError(
                f"a code has {len(code)} numbers; here it takes {len(self.choices)}: {', '.join(self.choices)}."
            )
        found = dict(zip(self.choices, code, strict=True))
        for name, value in found.items():
            if value not in self.choices[name]:
                allowed = ", ".join(map(str, self.choices[name]))
                raise UsageError(f"{name} is {value} in a code; allowed is {allowed}.")
        return found

    def architecture(self, code: Mapping[str, int | float], *, per_pixel: bool) -> Architecture:
        """The network of a code, without the outputs and input channels that the task decides."""
        if self.model == CODED:
            name = "multires_segmenter" if per_pixel else CODED
            return Architecture(name, {"code": [code[one] for one in NAMES]})
        from tenfold.models import for_pixels

        name, options = for_pixels(self.model, code) if per_pixel else (self.model, dict(code))
        return Architecture(name, options)


def code_key(code: Mapping[str, Any]) -> list[float]:
    """A code as plain numbers, to compare it with one that was written down."""
    return [float(value) for value in code.values()]
