"""Time several programs side by side on a machine that is never quite idle.

Timing one program, then the next, compares the machine's moods. Here they take turns (A B C A B C ...), a burst each
after a warm call, and both the median and the minimum are reported. A burst in which another process took a core shows
as a drop of the CPU time that this process got per second, and is left out.

This file imports no torch: it also times exported files.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tenfold.errors import UsageError

# A burst is disturbed if it got less than this part of the CPU share of the same program's best burst.
_DISTURBED_SHARE = 0.75
# Below this a burst is shorter than a slice of the scheduler, and its CPU share says nothing.
_SHORTEST_JUDGED_MS = 5.0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one call takes, in milliseconds.

    Attributes:
        median_ms: the median over all calls; compare programs by it.
        minimum_ms: the best call; what the machine can do when nobody disturbs.
        spread_ms: distance between the first and the third quartile.
        calls: how many calls were timed and kept.
        cpu_share: CPU seconds got per second of wall time, median over bursts: about the number of busy threads.
        bursts: how many bursts were run.
        disturbed: how many bursts were left out because another process took a core meanwhile.
    """

    median_ms: float
    minimum_ms: float
    spread_ms: float
    calls: int
    cpu_share: float
    bursts: int
    disturbed: int

    def __str__(self) -> str:
        return f"{self.median_ms:.3g} ms (min {self.minimum_ms:.3g}, spread {self.spread_ms:.2g})"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass
class _Burst:
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    calls_ms: list[float] = field(default_factory=list)

    @property
    def cpu_share(self) -> float:
        return self.cpu_ms / self.wall_ms if self.wall_ms else 0.0


def interleaved(
    callables: Mapping[str, Callable[[], object]], *, rounds: int = 7, warmup: int = 1, burst_ms: float = 50.0
) -> dict[str, Timing]:
    """Time several callables in turns, each in short bursts, so that they meet the same disturbances.

    Args:
        callables: name -> what to call; it takes no arguments and its result is dropped.
        rounds: bursts of each, at least 1.
        warmup: untimed calls before each burst, at least 0; the first round makes one in any case.
        burst_ms: a burst repeats the call until it lasted this long, at least one call.

    Returns:
        Name -> timing, in the order given.

    Raises:
        UsageError: if there is nothing to time, or rounds, warmup or burst_ms is out of range.

    Example:
        >>> timings = interleaved({"sum": lambda: sum(range(1000)), "pass": lambda: None}, rounds=2, burst_ms=1)
        >>> timings["sum"].median_ms > timings["pass"].median_ms
        True
    """
    if not callables:
        raise UsageError("nothing to time: give at least one callable.")
    for name, got, least in (("rounds", rounds, 1), ("warmup", warmup, 0), ("burst_ms", burst_ms, 0)):
        if not got >= least:
            raise UsageError(f"{name}={got} is not allowed; it is at least {least}.")
    bursts: dict[str, list[_Burst]] = {name: [] for name in callables}
    with _no_garbage_collection():
        for round_idx in range(rounds):
            for name, call in callables.items():
                for _ in range(max(warmup, 1) if round_idx == 0 else warmup):
                    call()
                bursts[name].append(_run_burst(call, burst_ms))
    return {name: _summarize(runs) for name, runs in bursts.items()}


def _run_burst(call: Callable[[], object], burst_ms: float) -> _Burst:
    burst = _Burst()
    cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
    before = start
    while not burst.calls_ms or burst.wall_ms < burst_ms:
        call()
        after = time.perf_counter_ns()
        burst.calls_ms.append((after - before) / 1e6)
        burst.wall_ms = (after - start) / 1e6
        before = after
    burst.cpu_ms = (time.process_time_ns() - cpu_start) / 1e6
    return burst


def _summarize(bursts: list[_Burst]) -> Timing:
    best_share = max(burst.cpu_share for burst in bursts)
    kept = [b for b in bursts if b.wall_ms < _SHORTEST_JUDGED_MS or b.cpu_share >= _DISTURBED_SHARE * best_share]
    calls_ms = [call_ms for burst in kept for call_ms in burst.calls_ms]
    first, _, third = statistics.quantiles(calls_ms, method="inclusive") if len(calls_ms) > 1 else (0.0, 0.0, 0.0)
    return Timing(
        median_ms=statistics.median(calls_ms),
        minimum_ms=min(calls_ms),
        spread_ms=third - first,
        calls=len(calls_ms),
        cpu_share=statistics.median(burst.cpu_share for burst in kept),
        bursts=len(bursts),
        disturbed=len(bursts) - len(kept),
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
