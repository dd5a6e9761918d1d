"""What leaves the house: the `.safetensors` artifact, ONNX files with integers inside, and the runtimes that run them.

The names are resolved on first use, because running an ONNX file must not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Engine": "engine",
    "ExportReport": "verify",
    "bench": "benchmark",
    "evaluate": "prediction",
    "export_onnx": "onnx",
    "inspect_onnx": "inspection",
    "open_engine": "engine",
    "predict": "prediction",
    "read_artifact": "artifact",
    "read_task": "prediction",
    "write_artifact": "artifact",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenfold.export' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tenfold.export.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
