"""Searches over many candidates: spaces, tables of trained candidates, predictors, propagation, evolution.

A search ends in an `Architecture`, which `build` and `fit` take like any other. One file holds one idea; what users
call is listed here and resolved on first use, so that naming the room imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenfold.lazy import resolve

if TYPE_CHECKING:
    from tenfold.search.autospace import AutoSpace as AutoSpace
    from tenfold.search.candidates import CandidateSpace as CandidateSpace
    from tenfold.search.cell_space import CellSpace as CellSpace
    from tenfold.search.finding import FoundNetwork as FoundNetwork
    from tenfold.search.finding import read_space as read_space
    from tenfold.search.finding import search_autospace as search_autospace
    from tenfold.search.measuring import TaskOrder as TaskOrder
    from tenfold.search.measuring import measure as measure
    from tenfold.search.ncp import search_ncp as search_ncp
    from tenfold.search.predictors import create_predictor as create_predictor
    from tenfold.search.scoring import NcpConfig as NcpConfig
    from tenfold.search.scoring import Target as Target
    from tenfold.search.tables import read_table as read_table
    from tenfold.search.tables import write_table as write_table

_HOMES: dict[str, str] = {
    "AutoSpace": "autospace",
    "CandidateSpace": "candidates",
    "CellSpace": "cell_space",
    "FoundNetwork": "finding",
    "NcpConfig": "scoring",
    "Target": "scoring",
    "TaskOrder": "measuring",
    "create_predictor": "predictors",
    "measure": "measuring",
    "read_space": "finding",
    "read_table": "tables",
    "search_autospace": "finding",
    "search_ncp": "ncp",
    "write_table": "tables",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
