"""On what machine, with which versions and by what command something was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tenfold.processor import processor_name

_PACKAGES = ("tenfold", "torch", "torchvision", "timm", "torchmetrics", "numpy", "safetensors")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the numbers of a run depend on besides the code, ready for JSON."""
    machine: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def versions() -> dict[str, str]:
    """Versions of Python and the packages that take part in training."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # running from a source tree that is not installed
    return found


def command_line() -> list[str]:
    """The command that started this process, to repeat it."""
    program = sys.argv[0]
    return ["python", *sys.argv] if program.endswith(".py") else [Path(program).name or "python", *sys.argv[1:]]


def git_state() -> str | None:
    """Commit of the working folder, with "-dirty" if it has changes; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run(  # noqa: S603 - a fixed command
        [git, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None
