"""Timing programs side by side."""

import gc
import subprocess
import sys
import time

import pytest

from tenfold.cost import Timing, interleaved, latency
from tenfold.errors import UsageError


class Clock:
    """A machine whose time passes only when a program says so."""

    def __init__(self, monkeypatch):
        self.wall_ns = self.cpu_ns = 0
        monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: self.wall_ns)
        monkeypatch.setattr(latency.time, "process_time_ns", lambda: self.cpu_ns)

    def work(self, milliseconds, threads=2):
        self.wall_ns += int(milliseconds * 1e6)
        self.cpu_ns += int(milliseconds * threads * 1e6)


def test_programs_take_turns_with_a_warm_call_before_each_burst(monkeypatch):
    clock, order = Clock(monkeypatch), []

    def program(name):
        order.append(name)
        clock.work(10)

    interleaved({"a": lambda: program("a"), "b": lambda: program("b")}, rounds=2, warmup=1, burst_ms=20)
    assert "".join(order) == "aaabbb" * 2


def test_median_minimum_and_spread_are_those_of_the_calls(monkeypatch):
    clock = Clock(monkeypatch)
    durations = iter([99, 10, 20, 30, 40, 50])  # the first call is the warm one
    timing = interleaved({"a": lambda: clock.work(next(durations))}, rounds=5, warmup=0, burst_ms=0)["a"]
    assert (timing.median_ms, timing.minimum_ms, timing.spread_ms, timing.calls) == (30, 10, 20, 5)
    assert (timing.cpu_share, timing.bursts, timing.disturbed) == (2.0, 5, 0)


def test_a_burst_whose_core_was_taken_is_left_out(monkeypatch):
    clock = Clock(monkeypatch)
    calls = iter([(10, 2), (10, 2), (10, 2), (25, 1), (10, 2)])
    timing = interleaved({"a": lambda: clock.work(*next(calls))}, rounds=4, warmup=0, burst_ms=0)["a"]
    assert (timing.bursts, timing.disturbed, timing.calls) == (4, 1, 3)
    assert timing.median_ms == timing.minimum_ms == 10


def test_very_short_bursts_are_not_judged_by_their_cpu_share(monkeypatch):
    clock = Clock(monkeypatch)
    calls = iter([(1, 2), (1, 2), (1, 0)])
    assert interleaved({"a": lambda: clock.work(*next(calls))}, rounds=2, warmup=0, burst_ms=0)["a"].disturbed == 0


def test_a_single_call_has_no_spread(monkeypatch):
    clock = Clock(monkeypatch)
    timing = interleaved({"a": lambda: clock.work(3)}, rounds=1, burst_ms=0)["a"]
    assert (timing.spread_ms, timing.calls) == (0, 1)
    assert timing.to_dict()["median_ms"] == 3
    assert str(timing) == "3 ms (min 3, spread 0)"


def test_real_programs_are_ranked_and_idle_time_shows_as_low_cpu_share():
    timings = interleaved(
        {"sleep": lambda: time.sleep(0.01), "count": lambda: sum(range(100_000))}, rounds=3, burst_ms=10
    )
    assert list(timings) == ["sleep", "count"]
    assert all(isinstance(timing, Timing) and timing.minimum_ms <= timing.median_ms for timing in timings.values())
    assert timings["sleep"].minimum_ms >= 10
    assert timings["sleep"].cpu_share < timings["count"].cpu_share


def test_the_collector_runs_again_after_a_failing_program():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": lambda: 1 / 0})
    assert gc.isenabled()


def test_nothing_to_time_is_refused():
    with pytest.raises(UsageError, match="nothing to time: give at least one callable"):
        interleaved({})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 0}, "rounds=0 is not allowed; it is at least 1"),
        ({"warmup": -1}, "warmup=-1 is not allowed; it is at least 0"),
        ({"burst_ms": float("nan")}, "burst_ms=nan is not allowed; it is at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        interleaved({"a": lambda: None}, **setting)


def test_timing_and_budgets_import_no_torch():
    code = "import sys; from tenfold.cost import Budget, interleaved, format_amount; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
