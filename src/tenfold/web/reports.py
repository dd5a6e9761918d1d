"""The reports of past trainings in the folder that the server was started with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_MOST_RUNS, _MOST_BYTES, _MOST_DEPTH = 200, 32 << 20, 3


class Reports:
    """Finds `report.html` beside `report.json` below a folder; each is known to clients by a digest alone.

    Args:
        folder: where trainings wrote their runs; None: there are none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder.resolve() if folder is not None else None
        self._known: dict[str, Path] = {}

    def found(self) -> list[dict[str, Any]]:
        """What there is, the newest first."""
        self._known = {}
        rows = []
        for page in self._pages():
            name = hashlib.sha256(str(page).encode()).hexdigest()[:32]
            self._known[name] = page
            facts = _facts(page.with_name("report.json"))
            assert self._folder is not None
            title = str(page.parent.relative_to(self._folder))
            rows.append({"id": name, "title": title, "time": page.stat().st_mtime, **facts})
        return sorted(rows, key=lambda row: -float(row["time"]))[:_MOST_RUNS]

    def read(self, name: str) -> bytes | None:
        """The page of a report that was listed."""
        if name not in self._known:
            self.found()
        page = self._known.get(name)
        try:
            return page.read_bytes() if page is not None and page.stat().st_size <= _MOST_BYTES else None
        except OSError:
            return None

    def _pages(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        found: list[Path] = []
        for depth in range(1, _MOST_DEPTH + 1):
            found += self._folder.glob("/".join(["*"] * depth) + "/report.html")
        # A link that leads elsewhere is none of ours.
        return [page for page in found if page.resolve().is_relative_to(self._folder) and page.is_file()]


def _facts(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        report = json.loads(path.read_text(encoding="utf-8"))
        metrics = {str(key): value for key, value in report["metrics"].items() if isinstance(value, int | float)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return {"metrics": metrics}
