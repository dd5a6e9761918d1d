"""What every benchmark writes beside its numbers: the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
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


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
