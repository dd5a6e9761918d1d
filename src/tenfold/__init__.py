"""Tenfold makes vision networks ten times cheaper and puts them to work on images and video.

The public names are resolved on first use: `import tenfold` imports neither torch nor anything else that is heavy.
"""

from __future__ import annotations

from typing import Any

from tenfold.lazy import resolve

__version__ = "0.1.0"

_HOMES = {
    "AdaBits": "methods",
    "Architecture": "models",
    "AtomNAS": "methods",
    "AutoNL": "methods",
    "Budget": "cost",
    "FracBits": "methods",
    "QAT": "methods",
    "SAT": "methods",
    "build": "models",
    "errors": "",
    "export_onnx": "export",
    "fit": "train",
    "list_models": "models",
    "load": "train",
    "profile": "cost",
    "quantize": "quant",
    "reattention": "models",
    "set_bits": "quant",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
