"""What every benchmark writes beside its numbers: the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tenfold.files import write_text
from tenfold.processor import processor_name

PACKAGES = ("tenfold", "torch", "torchvision", "timm", "onnxruntime", "openvino", "brevitas", "torchao")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, Python and package versions, and the day."""
    return {
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "date": datetime.now(UTC).date().isoformat(),
    }


def beside(timings: Mapping[str, Any], other: str) -> dict[str, float]:
    """Milliseconds of "ours" and of another way that it took turns with, and the ratios of the two."""
    theirs, ours = timings[other], timings["ours"]
    return {
        f"{other}_ms": round(theirs.median_ms, 2),
        "ours_ms": round(ours.median_ms, 2),
        "median_ratio": round(ours.median_ms / theirs.median_ms, 3),
        "minimum_ratio": round(ours.minimum_ms / theirs.minimum_ms, 3),
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
