import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.toy_training import assert_same_end

FROZEN_AT = 15
"""Of 30 steps; the methods that learn bits search for half of the training."""


@pytest.mark.slow  # some forty trainings of a second each
@pytest.mark.parametrize(("method", "kills"), [("sat", 12), ("fracbits", 6), ("adabits", 6), ("adversarial", 6)])
def test_runs_killed_at_any_moment_end_bit_identical(tmp_path, method, kills):
    """Kills at random moments, every other one while a checkpoint is being written."""
    here = Path(__file__).resolve().parent
    seed = 20260101
    result = subprocess.run(
        [sys.executable, str(here / "kill_program.py"), str(tmp_path), str(kills), str(seed), method],
        env={**os.environ, "PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == kills
    for idx in range(kills):
        assert_same_end(tmp_path / "whole", tmp_path / str(idx))
        assert not list((tmp_path / str(idx)).rglob("*.part"))
    if method in ("fracbits", "adabits"):  # some go on in the search, some after bits were frozen
        assert any(0 < kill["resumed_at"] < FROZEN_AT for kill in found)
        assert any(kill["resumed_at"] >= FROZEN_AT for kill in found)
    if method != "sat":
        return  # too few kills to say how many of them must have bitten
    # The test itself must have bitten: the kills came in time, some of them in the middle of a file.
    assert sum(kill["killed"] for kill in found) >= 0.9 * kills
    assert sum(kill["half_written"] for kill in found if kill["while_saving"]) >= 3
    assert sum(kill["checkpoints"] > 0 for kill in found) >= kills / 2
