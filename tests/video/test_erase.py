"""Erasing frame by frame: the rim, what is never changed, and beginning in the middle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data import dilated
from tenfold.errors import UnknownNameError, UsageError
from tenfold.video.erase import EraseOptions, erase_frames, grown_mask
from video_files import moving_square


def square_masks(count, height=48, width=64):
    masks = np.zeros((count, height, width), np.bool_)
    for index, mask in enumerate(masks):
        mask[height // 4 : height // 2, 2 * index : 2 * index + width // 4] = True
    return masks


@given(st.integers(0, 5), st.data())
@settings(max_examples=40, deadline=None)
def test_a_grown_mask_is_a_dilated_one_and_its_rim_fades_from_the_object_outwards(dilate, data):
    feather = data.draw(st.integers(0, dilate))
    mask = np.random.default_rng(data.draw(st.integers(0, 1000))).random((20, 30)) < 0.02
    grown, rim = grown_mask(mask, dilate, feather)
    np.testing.assert_array_equal(grown, dilated(mask, dilate))
    if rim is None:
        assert feather == 0 or not mask.any()
        return
    part = np.zeros(mask.shape, np.float32)
    part[rim.box] = rim.part
    np.testing.assert_array_equal(part > 0, grown)
    np.testing.assert_array_equal(part == 1, dilated(mask, dilate - feather))
    for step in range(1, feather + 1):
        ring = dilated(mask, dilate - feather + step) & ~dilated(mask, dilate - feather + step - 1)
        np.testing.assert_allclose(part[ring], 1 - step / (feather + 1))


def test_outside_the_grown_mask_nothing_changes_and_the_object_is_gone():
    frames, masks = moving_square(12), square_masks(12)
    rows, columns = np.mgrid[0:48, 0:64]
    still = np.stack([rows * 200 // 48, columns * 200 // 64, np.full_like(rows, 60)], axis=2)
    for done in erase_frames(zip(frames, masks, strict=True), EraseOptions(dilate=3, feather=2)):
        grown = dilated(masks[done.number], 3)
        np.testing.assert_array_equal(done.frame[~grown], frames[done.number][~grown])
        np.testing.assert_array_equal(done.provenance > 0, grown)
        before = np.abs(frames[done.number].astype(int) - still)[masks[done.number]].mean()
        assert np.abs(done.frame.astype(int) - still)[masks[done.number]].mean() < 0.1 * before


def test_a_frame_without_a_mask_is_the_very_same_array():
    frames = [np.full((32, 48, 3), 90, np.uint8) for _ in range(3)]
    empty = np.zeros((32, 48), np.bool_)
    assert all(done.frame is frames[done.number] for done in erase_frames((frame, empty) for frame in frames))


def scenes():
    """Three scenes with a moving square, of 30, 5 and 40 frames, with noise so that no two pixels are alike."""
    parts = []
    for number, count in enumerate((30, 5, 40)):
        noise = np.random.default_rng(number).integers(0, 60, (32, 48, 3))
        still = np.clip(noise + np.array([[30, 200, 90], [200, 20, 60], [60, 90, 220]])[number], 0, 255)
        part = np.repeat(still[None].astype(np.uint8), count, 0)
        parts.append(part)
    frames = np.concatenate(parts)
    masks = np.zeros(frames.shape[:3], np.bool_)
    for at, mask in enumerate(masks):
        mask[8:20, at % 30 : at % 30 + 12] = True
    frames[masks] = 255
    return frames, masks


class StandingStill:
    """Sees no motion, and counts how often it was asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, first, second):
        self.asked += 1
        return np.zeros((2, *first.shape[:2]), np.float32)


def test_a_beginning_in_the_middle_gives_the_same_to_the_bit():
    frames, masks = scenes()
    options = EraseOptions(dilate=2, feather=1, preset="fast")

    def erased(first):
        return list(erase_frames(zip(frames, masks, strict=True), options, estimator=StandingStill(), first=first))

    whole = erased(0)
    assert [done.number for done in whole if done.begins_scene] == [30, 35]
    for first in (31, 36, 70):
        part = erased(first)
        assert [done.number for done in part] == list(range(first, 75))
        for done in part:
            np.testing.assert_array_equal(done.frame, whole[done.number].frame)
            np.testing.assert_array_equal(done.provenance, whole[done.number].provenance)
            assert done.begins_scene == whole[done.number].begins_scene


def test_frames_long_before_the_first_wanted_are_not_filled():
    frames, masks = scenes()
    flow = StandingStill()
    options = EraseOptions(preset="fast", cuts=False)
    made = list(erase_frames(zip(frames, masks, strict=True), options, estimator=flow, first=70))
    assert [done.number for done in made] == list(range(70, 75))
    assert 0 < flow.asked < 2 * 60


def test_what_is_wrong_is_said():
    with pytest.raises(UnknownNameError, match="unknown preset 'finest'"):
        EraseOptions(preset="finest")
    with pytest.raises(UsageError, match="dilate is 500"):
        EraseOptions(dilate=500)
    assert [EraseOptions(dilate=dilate).fading for dilate in (0, 2, 3, 6)] == [0, 2, 3, 3]
    with pytest.raises(UsageError, match="feather is 9; allowed are 0 to 6"):
        EraseOptions(feather=9)
    with pytest.raises(UsageError, match="first frame wanted is -1"):
        next(erase_frames([], first=-1))
