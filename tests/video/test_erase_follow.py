"""Things pointed at in single frames, followed both ways, whatever the order they come in."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tenfold.data.video import VideoReader
from tenfold.errors import ShapeError, UsageError
from tenfold.video.erase_follow import Target, follow_targets
from tenfold.video.mask_store import MaskStore
from video_files import write_video

COUNT, HEIGHT, WIDTH = 16, 96, 128


def scene():
    """Two squares that move towards each other over a noisy still: frames, and masks of both."""
    noise = np.random.default_rng(0).integers(0, 70, (HEIGHT // 4, WIDTH // 4, 3)).repeat(4, 0).repeat(4, 1)
    still = (noise + np.array((40, 60, 90))).astype(np.uint8)
    frames, masks = np.repeat(still[None], COUNT, 0), np.zeros((2, COUNT, HEIGHT, WIDTH), np.bool_)
    for index in range(COUNT):
        masks[0, index, 10:34, 8 + 3 * index : 32 + 3 * index] = True
        masks[1, index, 56:80, 96 - 3 * index : 120 - 3 * index] = True
    frames[masks[0]], frames[masks[1]] = [250, 230, 20], [20, 240, 60]
    return frames, masks


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", scene()[0], exact=True)


def followed(clip, targets):
    place = clip.parent / "masks"
    place.unlink(missing_ok=True)
    with VideoReader(clip) as video, MaskStore(place, (HEIGHT, WIDTH), write=True) as store:
        assert follow_targets(video, targets, store) == COUNT
        return np.stack([store.read(number) for number in range(COUNT)])


def overlap(got, expected):
    return (got & expected).sum() / (got | expected).sum()


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_one_thing_is_found_in_every_frame_before_and_after(clip, frame):
    _, masks = scene()
    left = 8 + 3 * frame
    got = followed(clip, [Target(box=(left - 4, 6, 32, 32), frame=frame)])
    assert overlap(got, masks[0]) > 0.9
    assert min(overlap(got[at], masks[0, at]) for at in range(COUNT)) > 0.8
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.mp4", "masks"]  # the way back leaves nothing


def test_two_things_pointed_at_in_different_frames_are_followed_together(clip, tmp_path):
    _, masks = scene()
    Image.fromarray(masks[1, 11]).save(tmp_path / "second.png")
    targets = [Target(box=(13, 6, 32, 32), frame=3), Target(mask=tmp_path / "second.png", time=Fraction(11, 25))]
    both = masks[0] | masks[1]
    for order in (targets, targets[::-1]):
        assert overlap(followed(clip, order), both) > 0.9


def test_times_name_the_frame_that_is_nearest(clip):
    target = Target(click=(1, 1), time=Fraction(1, 10))
    with VideoReader(clip) as video:
        due = [frame.index for frame in video if target.is_in(frame, video.info.rate)]
    assert due[0] == 2  # 0.08 s; 0.1 s lies between the frames at 0.08 and 0.12 s


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ({}, UsageError, "just one of"),
        ({"click": (1, 1), "box": (1, 1, 2, 2)}, UsageError, "just one of"),
        ({"click": (1, 1), "time": Fraction(-1)}, UsageError, "needed is 0 or more"),
    ],
)
def test_targets_that_make_no_sense_are_refused(target, error, message):
    with pytest.raises(error, match=message):
        Target(**target)


def test_what_lies_outside_is_refused(clip, tmp_path):
    with pytest.raises(UsageError, match=r"in frame 99 a thing is pointed at, but the clip has 16 frames"):
        followed(clip, [Target(click=(5, 5), frame=99)])
    with pytest.raises(UsageError, match="lies outside the frame"):
        followed(clip, [Target(click=(500, 5))])
    Image.new("L", (9, 9), 255).save(tmp_path / "small.png")
    with pytest.raises(ShapeError, match="has 9 x 9 pixels, but the frames have 128 x 96"):
        followed(clip, [Target(mask=tmp_path / "small.png")])
