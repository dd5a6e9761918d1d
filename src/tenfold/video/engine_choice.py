"""A network that several runtimes can run: all are tried on the first window there is, and one goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.cost.latency import interleaved
from tenfold.errors import UsageError
from tenfold.files import write_text
from tenfold.video.network_filling import NetworkInputs, RunNetwork

AUTO, TORCH = "auto", "torch"
_ROUNDS = 3


@dataclass(frozen=True)
class EngineReport:
    """Which runtime ran a network, and how the others compare on the first window that it filled.

    Args:
        engine: the one that ran.
        milliseconds: of a call in each, the median.
        reference: the one that others are compared with: PyTorch if it is among them.
        differences: of the pixels to be filled, in levels of 8 bits: the largest and the mean, for each other one.
        refused: why a runtime could not run it.
    """

    engine: str
    milliseconds: Mapping[str, float]
    reference: str
    differences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class EngineChoice:
    """A `RunNetwork` that takes the fastest runtime, or the one asked for, as it is first called.

    Args:
        runs: the network by the names of runtimes, the reference first.
        engine: "auto" for the fastest, or one of the names.
        refused: why a runtime is not among them.
        memory: file that keeps the choice, so that work that is gone on with is gone on with alike.

    Raises:
        UsageError: if there is no such runtime.
    """

    def __init__(
        self,
        runs: Mapping[str, RunNetwork],
        engine: str = AUTO,
        *,
        refused: Mapping[str, str] | None = None,
        memory: Path | None = None,
    ) -> None:
        if not runs or engine not in (AUTO, *runs):
            raise UsageError(f"the engine {engine} does not run this network; allowed are {', '.join((AUTO, *runs))}.")
        self.report: EngineReport | None = None
        """What was chosen; None as long as there was nothing to run."""
        self._runs, self._engine, self._refused, self._memory = dict(runs), engine, dict(refused or {}), memory

    def __call__(self, inputs: NetworkInputs) -> NDArray[np.float32]:
        """See RunNetwork."""
        if self.report is None:
            self.report = self._remembered() or self._compared(inputs)
            self._runs = {self.report.engine: self._runs[self.report.engine]}  # the others need no memory any more
        return self._runs[self.report.engine](inputs)

    def _remembered(self) -> EngineReport | None:
        try:
            known = EngineReport(**json.loads(self._memory.read_text(encoding="utf-8"))) if self._memory else None
        except (OSError, ValueError, TypeError):
            return None
        return known if known and known.engine in self._runs and self._engine in (AUTO, known.engine) else None

    def _compared(self, inputs: NetworkInputs) -> EngineReport:
        levels: dict[str, NDArray[np.float32]] = {}
        for name, run in self._runs.items():
            try:
                levels[name] = _levels(run(inputs), inputs)
            except Exception as error:  # runtimes share no exception; one that others can stand in for is left out
                if name == self._engine or len(self._runs) == 1:
                    raise
                self._refused[name] = str(error)
        if not levels:
            raise UsageError("no engine can run this network: " + "; ".join(self._refused.values()))
        calls = {name: partial(self._runs[name], inputs) for name in levels}
        timings = milliseconds(calls)
        reference, *others = levels
        gaps = {name: np.abs(levels[name] - levels[reference]) for name in others}
        report = EngineReport(
            min(timings, key=timings.__getitem__) if self._engine == AUTO else self._engine,
            timings,
            reference,
            {name: {"largest": float(gap.max()), "mean": float(gap.mean())} for name, gap in gaps.items()},
            self._refused,
        )
        if self._memory is not None:
            write_text(self._memory, json.dumps(asdict(report)))
        return report


def milliseconds(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The median time of each of some calls, a few of each in turn."""
    return {name: one.median_ms for name, one in interleaved(calls, rounds=_ROUNDS, burst_ms=0).items()}


def _levels(painted: NDArray[np.float32], inputs: NetworkInputs) -> NDArray[np.float32]:
    """The colours of the pixels to be filled, 0..255."""
    holes = np.broadcast_to(inputs.known < 0.5, painted.shape)
    made: NDArray[np.float32] = np.rint(np.clip(painted[holes], 0, 1) * np.float32(255))
    return made
