"""What a folder of a search or a measurement was made for, so that no other goes on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.errors import CheckpointError
from tenfold.files import write_text


def differences(path: Path, order: Mapping[str, Any]) -> list[str]:
    """Compare with what was written down when a folder was claimed.

    Args:
        path: the file that says it.
        order: all that decides what will be found, ready for JSON.

    Returns:
        The names of what differs, such as "train.epochs"; empty if the folder is new, or for just this.

    Raises:
        CheckpointError: if the file is damaged.
    """
    if not path.exists():
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Choose another folder (--out), or put a copy of the file back."
        ) from error
    here, there = _flat(json.loads(json.dumps(order))), _flat(stored)
    return [name for name in dict.fromkeys((*here, *there)) if here.get(name, _NOTHING) != there.get(name, _NOTHING)]


def claim(path: Path, order: Mapping[str, Any]) -> None:
    """Write down what a folder is for, if it is new."""
    if not path.exists():
        write_text(path, json.dumps(order, indent=1) + "\n")


_NOTHING = object()


def _flat(found: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted names."""
    if not isinstance(found, dict) or not found:
        return {prefix.removesuffix("."): found}
    return {name: value for key, one in found.items() for name, value in _flat(one, f"{prefix}{key}.").items()}
