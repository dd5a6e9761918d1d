"""What leaves the house: the `.safetensors` artifact, ONNX files with integers inside, and the runtimes that run them.

The names are resolved on first use, because running an ONNX file must not import torch.
"""

from __future__ import annotations

from typing import Any

from tenfold.lazy import resolve

_HOMES = {
    "Engine": "engine",
    "ExportReport": "verify",
    "bench": "benchmark",
    "evaluate": "prediction",
    "export_onnx": "onnx",
    "export_step": "video_step",
    "inspect_onnx": "inspection",
    "open_engine": "engine",
    "predict": "prediction",
    "read_artifact": "artifact",
    "read_task": "prediction",
    "write_artifact": "artifact",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
