import numpy as np
import pytest

from discs import crossing_discs, overlap
from tenfold.errors import UsageError
from tenfold.video.moving import MovingDetector


def found_in(frames):
    detector = MovingDetector()
    return [detector.step(frame) for frame in frames]


def test_the_thing_that_moves_is_found_after_some_frames():
    frames, masks = crossing_discs(9)
    found = found_in(frames)
    assert found[:4] == [None] * 4
    assert overlap(found[8], masks[8][0]) > 0.7


def test_what_the_camera_moves_is_not_taken_for_an_object():
    rng = np.random.default_rng(0)
    ground = np.repeat(np.repeat(rng.integers(0, 255, (30, 60, 3), np.uint8), 4, 0), 4, 1)
    panned = [np.ascontiguousarray(ground[:96, 3 * at : 3 * at + 128]) for at in range(9)]
    assert found_in(panned) == [None] * 9


def test_a_moving_camera_does_not_hide_what_moves():
    frames, masks = crossing_discs(9, step=0, start=60)
    rng = np.random.default_rng(1)
    ground = np.repeat(np.repeat(rng.integers(40, 200, (24, 60, 3), np.uint8), 4, 0), 4, 1)
    shown = [
        np.where(mask[0][..., None], frame, ground[:, 4 * at : 4 * at + 128])
        for at, (frame, mask) in enumerate(zip(frames, masks, strict=True))
    ]
    assert overlap(found_in(shown)[8], masks[8][0]) > 0.7


def test_a_still_scene_holds_nothing():
    frames, _ = crossing_discs(8, step=0)
    assert found_in(frames) == [None] * 8


def test_a_size_that_is_not_allowed_is_refused():
    with pytest.raises(UsageError, match="longest_side is 8; allowed is 32 to 4096"):
        MovingDetector(8)
