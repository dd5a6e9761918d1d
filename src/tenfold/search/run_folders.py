"""What a folder of a search or a measurement was made for, so that no other goes on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.errors import CheckpointError
from tenfold.files import write_text


def claim(path: Path, order: Mapping[str, Any]) -> list[str]:
    """Write down what a folder is for, or compare with what was written there before.

    Args:
        path: the file that says it.
        order: all that decides what will be found, ready for JSON.

    Returns:
        The names of what differs; empty if the folder is new, or for just this.

    Raises:
        CheckpointError: if the file is damaged.
    """
    order = json.loads(json.dumps(order))
    if not path.exists():
        write_text(path, json.dumps(order, indent=1) + "\n")
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Choose another folder (--out), or put a copy of the file back."
        ) from error
    return [name for name in order if not isinstance(stored, dict) or stored.get(name) != order[name]]
