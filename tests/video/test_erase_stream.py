"""Erasing frame by frame where things are pointed at: the same as from file to file, and nothing is left behind."""

import tempfile

import numpy as np
import pytest
from PIL import Image

from tenfold.data.video import VideoReader
from tenfold.errors import UsageError
from tenfold.video import EraseOptions, Target, erase_targets
from tenfold.video.erase_files import erase_clip
from tenfold.video.erase_masks import What
from video_files import moving_square, write_video

FAST = EraseOptions(preset="fast", dilate=3)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    mask = np.zeros((48, 64), np.bool_)
    mask[12:24, 4:20] = True  # of frame 2
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return write_video(tmp_path / "clip.mp4", moving_square(10), exact=True)


@pytest.mark.parametrize("way", ["box", "click", "mask", "moving"])
def test_frames_are_those_that_a_file_would_hold(clip, tmp_path, way):
    targets = {
        "box": Target(box=(2, 10, 20, 16), frame=2),
        "click": Target(click=(12, 18), frame=2),
        "mask": Target(mask=tmp_path / "mask.png", frame=2),
        "moving": Target(moving=True),
    }
    made = list(erase_targets(clip, [targets[way]], FAST))
    assert [done.number for done in made] == list(range(10))
    assert any(done.provenance.any() for done in made)
    erase_clip(clip, tmp_path / "out.mp4", What(targets=(targets[way],)), options=FAST, lossless=True)
    with VideoReader(tmp_path / "out.mp4") as video:
        for frame, done in zip(video, made, strict=True):
            np.testing.assert_array_equal(done.frame, frame.image)
    assert not list((tmp_path / "temporary").iterdir())


def test_whoever_stops_listening_leaves_nothing(clip, tmp_path):
    coming = erase_targets(clip, [Target(box=(2, 10, 20, 16), frame=2)], FAST)
    next(coming)
    coming.close()
    assert not list((tmp_path / "temporary").iterdir())


def test_nothing_to_erase_is_refused(clip):
    with pytest.raises(UsageError, match="there is nothing to erase; give at least one Target"):
        next(erase_targets(clip, []))
