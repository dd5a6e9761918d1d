"""What a network costs: multiply-adds, parameters, BitOPs, bytes and measured milliseconds, and budgets over them.

The names are resolved on first use: budgets, tables and timing do not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenfold.lazy import resolve

if TYPE_CHECKING:
    from tenfold.cost.budget import Budget as Budget
    from tenfold.cost.latency import Timing as Timing
    from tenfold.cost.latency import interleaved as interleaved
    from tenfold.cost.ledger import LayerCost as LayerCost
    from tenfold.cost.ledger import Profile as Profile
    from tenfold.cost.operations import Call as Call
    from tenfold.cost.operations import register_operation as register_operation
    from tenfold.cost.profiler import first_and_last as first_and_last
    from tenfold.cost.profiler import profile as profile
    from tenfold.cost.rows import mean_bits as mean_bits
    from tenfold.cost.units import format_amount as format_amount
    from tenfold.cost.units import parse_amount as parse_amount

_HOMES = {
    "Budget": "budget",
    "Call": "operations",
    "LayerCost": "ledger",
    "Profile": "ledger",
    "Timing": "latency",
    "first_and_last": "profiler",
    "format_amount": "units",
    "interleaved": "latency",
    "mean_bits": "rows",
    "parse_amount": "units",
    "profile": "profiler",
    "register_operation": "operations",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
