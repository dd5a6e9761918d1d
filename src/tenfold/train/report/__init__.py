"""The report of a training: one HTML page that opens anywhere, offline, and asks nothing of any server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.files import write_text
from tenfold.train.report import facts, pixels, sections
from tenfold.train.report.atoms import atoms_left
from tenfold.train.report.bits import learned_bits
from tenfold.train.report.cells import cells_found
from tenfold.train.report.choices import choices_made
from tenfold.train.report.markup import tag
from tenfold.train.report.page import page
from tenfold.train.report.widths import widths

__all__ = ["render_report", "write_report"]


def write_report(report: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of one training.

    Args:
        report: the content of `report.json`. Optional keys: "exports" (rows with "file", "profile", "bytes",
            "predicted_bytes", "worst_steps", "top1_agreement", "top1") and "bench" (rows with "file", "engine",
            "median_ms", "spread_ms"), "settings" (AdaBits: a row for each bit-width with "name", "metrics", "cost") and
            "found" (by method; FracBits: "limits", "used", "offset", "layers", "trajectory"; AtomNAS: "quantity",
            "limits", "cost", "blocks", "trajectory"; AutoNL: "limit", "macs", "sites", "trajectory"; AutoSpace:
            "limits", "space", "chosen", "trajectory"), "pictures" (rows with "file", such as pictures/1.png beside the
            page, and "caption"). What is missing is left out.
        path: the file to write, such as `RUN/report.html`.

    Returns:
        The path written.

    Raises:
        StorageError: if the file could not be written.
    """
    write_text(path, render_report(report, Path(path).parent))
    return Path(path)


def render_report(report: Mapping[str, Any], folder: Path | None = None) -> str:
    """The page as text; see `write_report`.

    Args:
        report: as for `write_report`.
        folder: where the files are that "pictures" names; None leaves them out.
    """
    body = tag(
        "main",
        sections.header(report),
        sections.headline(report),
        sections.budget(report),
        widths(report),
        sections.cost(report),
        sections.curves(report),
        pixels.classes(report),
        pixels.pictures(report, folder),
        choices_made(report),
        cells_found(report),
        atoms_left(report),
        learned_bits(report),
        sections.layers(report),
        sections.exports(report),
        sections.bench(report),
        sections.repeat(report),
        sections.environment(report),
    )
    return page(f"{facts.model_name(report)} · Tenfold", body)
