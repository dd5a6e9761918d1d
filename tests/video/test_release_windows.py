"""The authors' way of running TSAM: their windows, frame for frame."""

import json

import numpy as np
import pytest

from tenfold.errors import ShapeError, UsageError
from tenfold.video import PairFlow
from tenfold.video.release_windows import fill_as_released, release_windows


def test_windows_are_those_of_the_release(shared):
    expected = json.loads((shared / "reference/tsam/inference_windows.json").read_text())
    assert len(expected) > 10
    for count, lists in expected.items():
        found = release_windows(int(count))
        told = [
            {name: [getattr(one, name).start, getattr(one, name).stop] for name in ("read", "keep", "write")}
            for one in found
        ]
        assert told == lists["windows"]


@pytest.mark.parametrize("count", [1, 14, 16, 23, 24, 40])
def test_each_frame_is_of_its_last_window_and_the_rest_stays(count):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, 10, 12, 3), dtype=np.uint8)
    holes = rng.random((count, 10, 12)) < 0.4
    zero = np.zeros((2, 10, 12), np.float32)
    calls = []

    def run(inputs):
        assert inputs.frames.shape[2:] == (3, 16, 16)
        assert inputs.flow_fwd.shape[1] == inputs.frames.shape[1] - 1
        assert not inputs.copied.any()
        calls.append(inputs.frames.shape[1])
        return np.full_like(inputs.frames, len(calls) / 255)

    made = fill_as_released(frames, holes, [PairFlow(zero, zero)] * (count - 1), run)
    np.testing.assert_array_equal(made[~holes], frames[~holes])
    last = {number: call for call, one in enumerate(release_windows(count), 1) for number in one.write}
    assert sorted(last) == list(range(count))
    for number, call in last.items():
        assert (made[number][holes[number]] == call).all()
    assert max(calls) <= 15


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="at least one frame"):
        release_windows(0)
    with pytest.raises(ShapeError, match="do not fit"):
        fill_as_released(np.zeros((3, 4, 4, 3), np.uint8), np.zeros((3, 4, 4), bool), [], lambda inputs: inputs.frames)
