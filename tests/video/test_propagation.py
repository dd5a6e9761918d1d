"""Propagation along exact flow finds exactly what is there, and says where it is from."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data import Motion, dilated, simulate_clip
from tenfold.video.copying import Copying, Draft
from tenfold.video.flow import sample
from tenfold.video.propagation import NOT_FOUND, Hole, Link, Sources, follow, link, mix, read_colours

HEIGHT, WIDTH = 48, 64


def scene(seed=0, height=140, width=260):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def panned(frames, right=3, down=-2):
    """A camera that moves by whole pixels: what was at p is seen at p - (right, down) one frame later."""
    picture = scene()
    return [
        picture[50 + down * t : 50 + down * t + HEIGHT, 50 + right * t : 50 + right * t + WIDTH] for t in range(frames)
    ]


def constant_flow(right=3, down=-2):
    """The exact estimator of `panned`, told forward from backward by the order of the calls."""
    calls = []

    def estimate(first, second):
        calls.append(1)
        sign = -1 if len(calls) % 2 else 1
        flow = np.empty((2, *first.shape[:2]), np.float32)
        flow[0], flow[1] = sign * right, sign * down
        return flow

    return estimate


def run_pass(frames, masks, estimator, **options):
    copying = Copying(estimator, **{"reach": 8, "hop": 3, "margin": None} | options)
    drafts = [Draft.of(t, frame, mask, 0) for t, (frame, mask) in enumerate(zip(frames, masks, strict=True))]
    done = [one for draft in drafts for one in copying.push(draft)]
    return [*done, *copying.finish()]


def test_whole_pixel_motion_is_copied_exactly_from_the_nearest_frames():
    frames = panned(7)
    masks = [np.zeros((HEIGHT, WIDTH), bool) for _ in frames]
    for mask in masks:
        mask[20:28, 26:37] = True  # eleven wide, and the scene moves by three: up to four frames to look through
    hidden = [np.where(mask[..., None], 0, frame).astype(np.uint8) for frame, mask in zip(frames, masks, strict=True)]
    done = run_pass(hidden, masks, constant_flow())
    for frame, draft in zip(frames, done, strict=True):
        np.testing.assert_array_equal(draft.picture[~draft.rest], frame[~draft.rest])
    middle = done[3]
    assert not middle.rest.any()
    assert middle.before.found.any()
    assert middle.after.found.any()
    # At the left of the hole the scene was outside it long ago, at the right it was one frame ago... either way exact:
    distance = np.abs(middle.before.frame - 3)[middle.before.found]
    assert set(distance.tolist()) <= {1, 2, 3}
    assert (np.abs(middle.after.frame - 3)[middle.after.found] >= 1).all()


def test_chains_of_fractions_of_pixels_end_where_the_exact_path_does():
    picture = Image.fromarray(scene())
    clip = simulate_clip([picture], 9, HEIGHT, WIDTH, np.random.default_rng(5), Motion(pan=1.3, sprites=0, turn=0.004))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[18:30, 24:40] = True
    pairs = iter([flow for t in range(8) for flow in (clip.flow_fwd[t], clip.flow_bwd[t])])
    done = run_pass(clip.frames, [mask] * 9, lambda first, second: next(pairs))
    for draft in done[4:]:
        place = np.stack([draft.hole.columns, draft.hole.rows]).astype(np.float32)
        for back in range(draft.number - 1, -1, -1):  # the same path, step by step through the exact flow
            place = place + sample(clip.flow_bwd[back], place)
            arrived = draft.before.frame == back
            np.testing.assert_allclose(draft.before.place[:, arrived], place[:, arrived], atol=0.1)
    far = np.abs(done[8].before.frame - 8)[done[8].before.found]
    assert far.max() > 3


def test_what_comes_out_does_not_depend_on_how_the_stream_is_cut():
    rng = np.random.default_rng(1)
    frames = panned(14)
    masks = [dilated(rng.random((HEIGHT, WIDTH)) < 0.004, 6) for _ in frames]
    whole, *pieces = (run_pass(frames, masks, constant_flow(), reach=3, hop=hop) for hop in (100, 1, 4))
    for piece in pieces:
        for first, second in zip(whole, piece, strict=True):
            np.testing.assert_array_equal(first.picture, second.picture)
            np.testing.assert_array_equal(first.rest, second.rest)
            np.testing.assert_array_equal(first.after.frame, second.after.frame)
    frames_used = np.concatenate([np.abs(one.after.frame - one.number)[one.after.found] for one in whole])
    assert frames_used.max() <= 3


def test_links_that_disagree_or_leave_the_frame_are_not_taken():
    hole = Hole.of(np.ones((4, 6), bool))
    flow, reverse = np.zeros((2, 4, 6), np.float32), np.zeros((2, 4, 6), np.float32)
    flow[0, 0, 0] = 3  # nothing comes back
    flow[0, 1, 5] = 2  # beyond the border
    flow[:, 2, 2] = 1e6
    valid = link(hole, flow, reverse).valid.reshape(4, 6)
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 5], [2, 2]]


def test_a_link_in_a_part_of_the_frame_is_one_in_the_frame():
    mask = np.zeros((20, 30), bool)
    mask[8:11, 12:15] = True
    rng = np.random.default_rng(0)
    flow, reverse = rng.normal(0, 0.2, (2, 2, 20, 30)).astype(np.float32)
    whole = link(Hole.of(mask), flow, reverse)
    part = link(Hole.of(mask), flow[:, 5:18, 7:25], reverse[:, 5:18, 7:25], (5, 7))
    np.testing.assert_allclose(whole.place, part.place, atol=1e-6)
    np.testing.assert_array_equal(whole.valid, part.valid)


def test_a_source_moves_along_with_the_nearest_pixel():
    neighbour = Hole.of(np.array([[False, True, True]]))
    sources = Sources(np.array([7, NOT_FOUND]), np.array([[40.5, 0], [20.25, 0]], np.float32))
    step = Link(np.array([[1.25, 2, 0.25, 1], [0, 0, 0, 0]], np.float32), np.array([True, True, True, False]))
    found = follow(step, neighbour, sources, 3)
    np.testing.assert_array_equal(found.frame, [7, NOT_FOUND, 3, NOT_FOUND])
    np.testing.assert_allclose(found.place[:, 0], [40.75, 20.25])
    np.testing.assert_allclose(found.place[:, 2], [0.25, 0])


def test_colours_are_read_among_known_pixels_only():
    frame = np.array([[[0, 0, 0], [100, 50, 10], [200, 0, 0]]], np.uint8)
    hole = np.array([[False, False, True]])
    colours, seen = read_colours(frame, hole, np.array([[0.5, 1.5, 2.0, -3.0], [0, 0, 0, 9.0]], np.float32))
    np.testing.assert_allclose(colours[:2], [[50, 25, 5], [100, 50, 10]])
    np.testing.assert_array_equal(seen, [True, True, False, True])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(4, 7, (2 / 3, 1 / 3)), (NOT_FOUND, 8, (0, 1)), (2, NOT_FOUND, (1, 0)), (NOT_FOUND, NOT_FOUND, (0, 0))],
)
def test_the_nearer_source_weighs_more(before, after, expected):
    one = [Sources(np.array([frame]), np.zeros((2, 1), np.float32)) for frame in (before, after)]
    np.testing.assert_allclose([weight[0] for weight in mix(5, *one)], expected, atol=1e-6)
