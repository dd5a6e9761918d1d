"""Where Tenfold keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """TENFOLD_CACHE, else XDG_CACHE_HOME/tenfold, else ~/.cache/tenfold. The folder need not exist yet."""
    if chosen := os.environ.get("TENFOLD_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "tenfold"
    return Path.home() / ".cache" / "tenfold"
