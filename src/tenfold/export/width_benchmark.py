"""Timing exported files at several of their bit-widths side by side; none of this imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import UsageError
from tenfold.export.benchmark import BenchRow, open_engines, time_in_turns
from tenfold.export.metadata import read_metadata
from tenfold.export.width_choice import read_widths


@dataclass(frozen=True)
class WidthRow(BenchRow):
    """How fast one file is at one bit-width, in one runtime.

    Attributes:
        bits: the width; None for a file that has one only.
    """

    bits: tuple[int, int] | None


def bench_widths(
    paths: Sequence[str | Path],
    widths: Sequence[tuple[int, int]],
    *,
    batch: int = 1,
    rounds: int = 7,
    engine: str = "all",
    threads: int | None = None,
) -> list[WidthRow]:
    """Time ONNX files in turns, those of the profile `switchable` at each of some widths, which are built in.

    Args:
        paths: the files; those with one width only are timed as they are.
        widths: what to run the others at.
        batch: images a call.
        rounds: turns of each.
        engine: "all", "auto", or one runtime.
        threads: CPU threads; None for one a usable core.

    Returns:
        One row for each file, width and runtime, in the order given; a runtime that cannot run a file is left out.

    Raises:
        UsageError: if no file has several widths, one does not have a width, or `batch` is below 1.
        TenfoldError: as `open_engine` raises.
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}; it must be at least 1.")
    if not paths:
        raise UsageError("there is nothing to time; name at least one ONNX file.")
    choices = [(Path(path), bool(read_widths(Path(path), read_metadata(path)))) for path in paths]
    if not any(has_widths for _, has_widths in choices):
        raise UsageError(
            f"none of these {len(choices)} files has several bit-widths to choose from. "
            "Leave the bits out, or export a network that the method adabits trained with the profile switchable."
        )
    runs = [
        (path, bits, runner)
        for path, has_widths in choices
        for bits in (widths if has_widths else [None])
        for runner in open_engines(path, engine, threads, bits)
    ]
    timings = time_in_turns([runner for *_, runner in runs], batch, rounds)
    first = timings[0].median_ms
    return [
        WidthRow(path, runner.name, batch, path.stat().st_size, timing, first / timing.median_ms, bits)
        for (path, bits, runner), timing in zip(runs, timings, strict=True)
    ]
