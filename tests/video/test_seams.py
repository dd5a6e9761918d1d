"""Copies meet what is around them, whatever the light."""

import numpy as np

from tenfold.video import InpaintOptions, inpaint_frames
from tenfold.video.propagation import NOT_FOUND, Hole, Sources
from tenfold.video.seams import seam_correction


def test_a_change_of_light_is_taken_out_of_the_copies():
    rng = np.random.default_rng(0)
    still = rng.integers(60, 160, (48, 64, 3)).astype(np.uint8)
    tint = np.linspace(10, 40, 64)[None, :, None] * np.array([1, 0.5, 0])
    bright = np.rint(still + tint).astype(np.uint8)
    mask = np.zeros((48, 64), bool)
    mask[15:30, 20:44] = True
    rows, columns = np.nonzero(mask)
    place = np.stack([columns, rows]).astype(np.float32)
    before = Sources(np.zeros(len(rows), np.int64), place)
    none = np.zeros_like(mask)
    for frame, expected in ((bright, tint), (still, 0 * tint)):
        off = seam_correction(1, frame, Hole.of(mask), before, Sources.none(len(rows)), {0: (still, none)})
        wanted = np.broadcast_to(np.moveaxis(expected, -1, 0), off.shape)
        np.testing.assert_allclose(off[:, mask], wanted[:, mask], atol=2)


def test_where_nothing_can_be_compared_nothing_is_added():
    hole = Hole.of(np.ones((6, 8), bool))
    frame = np.full((6, 8, 3), 200, np.uint8)
    one = Sources(np.zeros(48, np.int64), np.zeros((2, 48), np.float32))
    assert not seam_correction(1, frame, hole, one, Sources.none(48), {0: (frame, np.zeros((6, 8), bool))}).any()
    part = Hole.of(np.pad(np.ones((2, 2), bool), 2))
    lost = Sources(np.full(4, NOT_FOUND), np.zeros((2, 4), np.float32))
    assert not seam_correction(1, frame, part, lost, lost, {}).any()


def test_a_session_follows_the_light_at_full_and_at_working_size():
    rng = np.random.default_rng(1)
    small = rng.integers(40, 120, (30, 40, 3), dtype=np.uint8)
    still = np.repeat(np.repeat(small, 3, 0), 3, 1)
    frames = [np.clip(still.astype(int) + 6 * t, 0, 255).astype(np.uint8) for t in range(7)]
    masks = [np.zeros((90, 120), bool) for _ in range(7)]
    masks[5][30:60, 40:80] = masks[6][30:60, 40:80] = True
    for longest in (120, 60):
        done = list(inpaint_frames(zip(frames, masks, strict=True), InpaintOptions(longest_side=longest)))
        for t in (5, 6):
            off = done[t].frame.astype(int)[masks[t]] - frames[t][masks[t]]
            assert abs(off.mean()) < 1.5  # without the correction it is off by 6 and by 12
            assert np.abs(off).mean() < 6
