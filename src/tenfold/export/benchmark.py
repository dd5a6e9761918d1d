"""Timing exported files side by side; none of this imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.cost.latency import Timing, interleaved
from tenfold.errors import ArtifactError, UsageError
from tenfold.export.engine import Engine, installed_engines, open_engine
from tenfold.export.width_choice import Bits


@dataclass(frozen=True)
class BenchRow:
    """How fast one file is in one runtime.

    Attributes:
        path: the file.
        engine: the runtime.
        batch: images a call.
        size_bytes: size of the file.
        timing: milliseconds a call.
        speedup: median of the first row over the median of this one.
    """

    path: Path
    engine: str
    batch: int
    size_bytes: int
    timing: Timing
    speedup: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "path": str(self.path), "timing": self.timing.to_dict()}


def bench(
    paths: Sequence[str | Path],
    *,
    batch: int = 1,
    rounds: int = 7,
    engine: str = "all",
    threads: int | None = None,
) -> list[BenchRow]:
    """Time ONNX files in turns, each in every installed runtime, so that a busy machine slows all of them alike.

    Args:
        paths: the files.
        batch: images a call.
        rounds: turns of each.
        engine: "all", "auto", or one runtime.
        threads: CPU threads; None for one a usable core.

    Returns:
        One row for each file and runtime, in the order given. A runtime that cannot run a file is left out, unless it
        is the only one.

    Raises:
        UsageError: if there is no file, or `batch` is below 1.
        TenfoldError: as `open_engine` raises.
    """
    if not paths:
        raise UsageError("there is nothing to time; name at least one ONNX file.")
    if batch < 1:
        raise UsageError(f"batch is {batch}; it must be at least 1.")
    runs = [(Path(path), runner) for path in paths for runner in open_engines(Path(path), engine, threads)]
    timings = time_in_turns([runner for _, runner in runs], batch, rounds)
    first = timings[0].median_ms
    return [
        BenchRow(path, runner.name, batch, path.stat().st_size, timing, first / timing.median_ms)
        for (path, runner), timing in zip(runs, timings, strict=True)
    ]


def time_in_turns(runners: Sequence[Engine], batch: int, rounds: int) -> list[Timing]:
    """Time open files, each on a batch of noise, in turns."""
    runs = {f"{index}": partial(runner.run, _noise(runner, batch)) for index, runner in enumerate(runners)}
    return list(interleaved(runs, rounds=rounds).values())


def open_engines(path: Path, engine: str, threads: int | None, bits: Bits | None = None) -> list[Engine]:
    """A file in one runtime, or, for "all", in every installed one that can run it.

    Raises:
        TenfoldError: as `open_engine` raises; for "all" only if no runtime can run the file.
    """
    if engine != "all":
        return [open_engine(path, engine, threads, bits)]
    opened: list[Engine] = []
    failure: ArtifactError | None = None
    for name in installed_engines() or ["onnxruntime"]:
        try:
            opened.append(open_engine(path, name, threads, bits))
        except ArtifactError as error:
            failure = error
    if not opened and failure is not None:
        raise failure
    return opened


def _noise(runner: Engine, batch: int) -> np.ndarray:
    """Random pixels: zeros would let some kernels take short cuts."""
    shape = [batch, *runner.example_shape[1:]]
    if runner.input_shape[0] not in (None, batch):
        raise UsageError(f"the file takes a batch of {runner.input_shape[0]} only; got batch={batch}.")
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
