import numpy as np
import pytest

from discs import crossing_discs, overlap
from tenfold.errors import ShapeError, UsageError
from tenfold.video.follow import FollowOptions, FollowSession, Given, follow_frames


def test_an_object_given_by_its_mask_is_followed():
    frames, masks = crossing_discs()
    found = list(follow_frames(frames, [Given(mask=masks[0][0])]))
    assert len(found) == len(frames)
    assert min(overlap(one[1], true[0]) for one, true in zip(found, masks, strict=True)) > 0.85


def test_two_objects_are_followed_under_their_names_and_share_no_pixel():
    frames, masks = crossing_discs(second=True)
    given = [Given(mask=masks[0][0], id=7), Given(box=(88, 53, 34, 34), id=3)]
    found = list(follow_frames(frames, given))
    assert overlap(found[-1][7], masks[-1][0]) > 0.8
    assert overlap(found[-1][3], masks[-1][1]) > 0.8
    assert not any((one[7] & one[3]).any() for one in found)


def test_an_object_given_later_appears_from_there_on():
    frames, masks = crossing_discs(6)
    found = list(follow_frames(frames, [Given(mask=masks[3][0], frame=3)]))
    assert [sorted(one) for one in found] == [[], [], [], [1], [1], [1]]


def test_an_object_that_leaves_the_frame_is_no_longer_seen():
    frames, masks = crossing_discs(24, step=6)
    found = list(follow_frames(frames, [Given(mask=masks[0][0])]))
    assert not masks[-1][0].any()
    assert not found[-1][1].any()


def test_masks_have_the_size_of_large_frames():
    frames, masks = crossing_discs(3)
    large = [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in frames]
    given = Given(mask=np.repeat(np.repeat(masks[0][0], 2, 0), 2, 1))
    found = list(follow_frames(large, [given], FollowOptions(longest_side=128)))
    assert found[-1][1].shape == large[0].shape[:2]
    assert overlap(found[-1][1][::2, ::2], masks[2][0]) > 0.85


def test_sessions_do_not_mix_and_give_what_follow_frames_gives():
    frames, masks = crossing_discs(5)
    one, other = FollowSession(), FollowSession()
    first, second = [], []
    for at, frame in enumerate(frames):
        first.append(one.step(frame, [Given(mask=masks[0][0])] if at == 0 else [])[1])
        second.append(other.step(frame[:, ::-1].copy(), [Given(mask=masks[0][0][:, ::-1])] if at == 0 else [])[1])
    assert np.array_equal(first, [found[1] for found in follow_frames(frames, [Given(mask=masks[0][0])])])
    assert overlap(first[-1], second[-1][:, ::-1]) > 0.9


def test_an_object_on_a_frame_beyond_the_end_is_refused():
    frames, masks = crossing_discs(2)
    with pytest.raises(UsageError, match="given on frame 2, but the video has 2 frames"):
        list(follow_frames(frames, [Given(mask=masks[0][0], frame=2)]))


def test_frames_of_two_sizes_are_refused():
    session = FollowSession()
    session.step(np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"frame 1 has the size \(32, 40\), but those before \(32, 48\)"):
        session.step(np.zeros((32, 40, 3), np.uint8))


def test_frames_of_one_channel_are_refused():
    with pytest.raises(ShapeError, match=r"frame 0 is uint8 \(32, 40\); needed is uint8 \(H, W, 3\)"):
        FollowSession().step(np.zeros((32, 40), np.uint8))


def test_a_size_that_is_not_allowed_is_refused():
    with pytest.raises(UsageError, match="longest_side is 8; allowed is 32 to 4096"):
        FollowOptions(longest_side=8)


def test_more_objects_than_are_held_are_refused():
    session = FollowSession()
    frame = np.zeros((64, 64, 3), np.uint8)
    mask = np.ones((64, 64), np.bool_)
    session.step(frame, [Given(mask=mask, id=1)])
    session._objects = dict.fromkeys(range(1, 101), session._objects[1])
    with pytest.raises(UsageError, match="more than 100 objects are not followed at a time"):
        session.step(frame, [Given(mask=mask)])
