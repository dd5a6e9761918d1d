"""Tenfold makes vision networks ten times cheaper and puts them to work on images and video.

The public names are resolved on first use: `import tenfold` imports neither torch nor anything else that is heavy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "tenfold.models",
    "Budget": "tenfold.cost",
    "QAT": "tenfold.methods",
    "SAT": "tenfold.methods",
    "build": "tenfold.models",
    "errors": "",
    "export_onnx": "tenfold.export",
    "fit": "tenfold.train",
    "list_models": "tenfold.models",
    "load": "tenfold.train",
    "profile": "tenfold.cost",
    "quantize": "tenfold.quant",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenfold' has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(importlib.import_module(home), name) if home else importlib.import_module(f"tenfold.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
