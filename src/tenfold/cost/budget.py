"""What a network may cost."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tenfold.cost.units import parse_amount, write_amount
from tenfold.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from tenfold.cost.ledger import Profile


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper limits on what a network may cost for one image; None is no limit.

    Attributes:
        macs: multiply-adds.
        params: parameters.
        bitops: sum of multiply-adds times weight bits times activation bits.
        bytes: bytes of the parameters in a file (see `LayerCost.size_bytes`).
        latency_ms: milliseconds of one run in the runtime, on this machine.

    Raises:
        UsageError: if a limit is not a finite number above zero.

    Example:
        >>> Budget.parse("macs=50M, bytes=300k")
        Budget(macs=50000000, params=None, bitops=None, bytes=300000, latency_ms=None)
        >>> str(Budget(bitops=1_200_000_000, latency_ms=8.5))
        'bitops=1.2G,latency_ms=8.5'
    """

    macs: float | None = None
    params: float | None = None
    bitops: float | None = None
    bytes: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None:
                object.__setattr__(self, name, _checked(name, limit))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget such as "macs=50M,bytes=300k" (suffixes k, M, G, T; 1.2e9 also works; spaces do not matter).

        Raises:
            UnknownNameError: if a limit has an unknown name.
            UsageError: if a piece is not `name=amount`, comes twice, or is not above zero.
        """
        limits: dict[str, int | float] = {}
        for piece in text.split(","):
            name, equals, amount = (part.strip() for part in piece.partition("="))
            if not (name and equals and amount):
                raise UsageError(f"budget {text!r}: {piece.strip()!r} is not name=amount, such as macs=50M,bytes=300k.")
            _check_name(name)
            if name in limits:
                raise UsageError(f"budget {text!r}: {name} is given twice; keep one of them.")
            try:
                limits[name] = parse_amount(amount)
            except UsageError as error:
                raise UsageError(f"budget {text!r}: {name}={amount}: {error}") from error
        return cls(**limits)

    def __str__(self) -> str:
        return ",".join(f"{name}={write_amount(limit)}" for name, limit in self.to_dict().items())

    def excess(self, profile: Profile, latency_ms: float | None = None) -> dict[str, tuple[float, float]]:
        """Which limits a network does not keep.

        Args:
            profile: the network's counted cost.
            latency_ms: its measured latency; without it a limit on latency is not judged.

        Returns:
            Name of the limit -> (asked, got), empty if the budget is kept.
        """
        got = {
            "macs": profile.macs,
            "params": profile.params,
            "bitops": profile.bitops,
            "bytes": profile.size_bytes,
            "latency_ms": -math.inf if latency_ms is None else latency_ms,
        }
        return {name: (limit, got[name]) for name, limit in self.to_dict().items() if got[name] > limit}

    def to_dict(self) -> dict[str, int | float]:
        """The limits that are set, as JSON values."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    @classmethod
    def from_dict(cls, limits: Mapping[str, float | None]) -> Budget:
        """The inverse of `to_dict`.

        Raises:
            UnknownNameError: if a limit has an unknown name.
            UsageError: if a limit is not a finite number above zero.
        """
        for name in limits:
            _check_name(name)
        return cls(**limits)


_NAMES = tuple(field.name for field in fields(Budget))


def _check_name(name: str) -> None:
    if name not in _NAMES:
        # The error lists what is allowed only where it finds nothing near.
        near = difflib.get_close_matches(name, _NAMES, cutoff=0.4)
        raise UnknownNameError("budget limit", name, _NAMES, hint=f"Allowed: {', '.join(_NAMES)}." if near else "")


def _checked(name: str, limit: object) -> int | float:
    """The limit as an int where it is whole, so that equal budgets are equal and print alike."""
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        raise UsageError(
            f"budget: {name}={limit!r} is not a number. Give a number above zero, or read text with Budget.parse."
        )
    if not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"budget: {name}={limit} is not allowed; a limit is a finite number above zero.")
    return int(limit) if limit == int(limit) else float(limit)
