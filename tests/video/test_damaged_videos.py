"""Some of the 300 videos of benchmarks/damaged_videos.py: a right result or a typed error, and nothing left behind."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def damaged():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("damaged_videos", FOLDER / "damaged_videos.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("record", None)
    return module


@pytest.mark.parametrize("number", [0, 3, 7, 10, 11, 12, 18, 22])
@pytest.mark.parametrize("damage", ["refuse", "skip"])
def test_a_damaged_video_gives_a_right_result_or_a_typed_error(damaged, number, damage):
    assert damaged.is_fine(damaged.judge(number, damage)["outcome"])


@pytest.mark.parametrize("turn", range(10))
def test_what_calls_itself_a_video_and_is_none_is_refused(damaged, turn):
    assert damaged.judge(15 * turn + 13, "skip")["outcome"].startswith("error ")


@pytest.mark.parametrize("turn", range(10))
def test_an_odd_video_is_followed(damaged, turn):
    assert damaged.judge(15 * turn + 14, "refuse")["outcome"] == "right"
