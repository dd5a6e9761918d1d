"""The sample clip: the same each time, with an exact truth."""

import numpy as np
import pytest

from tenfold.data.sample import sample_frames, write_sample
from tenfold.data.video import VideoReader
from tenfold.errors import UsageError


def test_outside_the_mask_the_sample_is_its_truth_and_the_ball_crosses():
    frames = list(sample_frames(9, 90, 160))
    for frame in frames:
        np.testing.assert_array_equal(frame.shown[~frame.mask], frame.truth[~frame.mask])
    areas = [int(frame.mask.sum()) for frame in frames]
    assert min(areas) > 500
    middle = frames[4]
    assert np.abs(middle.shown.astype(int) - middle.truth)[middle.mask].mean() > 30
    centres = [np.flatnonzero(frame.mask.any(0)).mean() for frame in frames if frame.mask.any()]
    assert (np.diff(centres) > 5).all()


def test_the_sample_is_the_same_each_time_and_the_camera_moves():
    first, second = (list(sample_frames(4, 64, 96)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.shown, other.shown)
    assert np.abs(first[0].truth.astype(int) - first[-1].truth).mean() > 5


def test_the_sample_as_a_file(tmp_path):
    frames = list(sample_frames(3, 64, 96))
    with VideoReader(write_sample(tmp_path / "sample.mp4", frames, lossless=True)) as video:
        for frame, seen in zip(frames, video, strict=True):
            np.testing.assert_array_equal(frame.shown, seen.image)
    with pytest.raises(UsageError, match="no frames is not written"):
        write_sample(tmp_path / "none.mp4", [])


def test_a_sample_too_small_is_refused():
    with pytest.raises(UsageError, match="at least 2 of 64 x 64"):
        next(sample_frames(1))
