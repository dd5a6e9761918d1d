"""Holes have the statistics of the authors' generators, at any size, and are a function of their seed."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from tenfold.data import dilated, hole_masks, object_masks, shape_masks, stroke_masks
from tenfold.data.holes import HOLE_KINDS
from tenfold.data.stroke_holes import COVERAGE_BINS, STROKE_PRESETS
from tenfold.errors import ShapeError, UnknownNameError, UsageError

HAIR = dataclasses.replace(STROKE_PRESETS["rand_curve_small"], vertices=(1, 2))


def seeded(seed=0):
    return np.random.default_rng(seed)


def overlap(masks):
    """Mean intersection over union of consecutive frames."""
    return np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in itertools.pairwise(masks)])


@pytest.mark.parametrize(("preset", "strokes"), [("object_like_middle", 5), ("rand_curve", 10), ("object_like", 3)])
def test_strokes_have_the_statistics_of_the_released_generator(shared, preset, strokes):
    expected = json.loads((shared / "reference/tsam/mask_stats.json").read_text())["strokes"][f"{preset}/n{strokes}"]
    clips = [stroke_masks(preset, 8, 180, 320, seeded(seed), strokes=strokes) for seed in range(200)]
    assert np.mean(clips) == pytest.approx(expected["coverage"]["mean"], rel=0.15)
    assert np.mean([overlap(clip) for clip in clips]) == pytest.approx(expected["consecutive_iou"]["mean"], abs=0.05)


def test_shapes_have_the_statistics_of_the_released_generator(shared):
    expected = json.loads((shared / "reference/tsam/mask_stats.json").read_text())["stationary"]
    clips = [shape_masks(3, 240, 432, seeded(seed)) for seed in range(250)]
    assert np.mean(clips) == pytest.approx(expected["coverage"]["mean"], rel=0.15)
    still = np.mean([(clip == clip[0]).all() for clip in clips])
    assert still == pytest.approx(expected["fraction_static"], abs=0.15)  # a slow drift may round to rest
    assert shape_masks(4, 64, 96, seeded(), drifting=False).std(0).max() == 0
    assert shape_masks(9, 64, 96, seeded(), drifting=True).std(0).max() > 0


@pytest.mark.parametrize("coverage", [0.05, 0.35, 0.95])
def test_a_bin_of_coverage_is_met(coverage):
    for seed in range(5):
        masks = stroke_masks("object_like_middle", 4, 96, 96, seeded(seed), coverage=coverage)
        assert masks.mean() == pytest.approx(coverage, abs=0.055)  # other sizes round a little


def test_coverage_does_not_hang_on_the_size_of_the_frame():
    small, large = (
        np.mean([stroke_masks("object_like", 2, *size, seeded(seed), strokes=3) for seed in range(40)])
        for size in ((90, 160), (360, 640))
    )
    assert small == pytest.approx(large, rel=0.03)


@pytest.mark.parametrize("kind", sorted(HOLE_KINDS))
def test_every_kind_is_a_function_of_its_seed(kind):
    first, again, other = (hole_masks(kind, 5, 40, 56, seeded(seed)) for seed in (3, 3, 4))
    assert first.shape == (5, 40, 56)
    assert first.dtype == np.bool_
    assert 0 < first.mean() < 1
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_border_stays_known():
    masks = stroke_masks("object_like", 3, 90, 160, seeded(), strokes=19, border=15)
    assert masks.any()
    assert not masks[:, :15].any()
    assert not masks[:, :, -15:].any()


def test_dilation_grows_a_diamond_of_that_many_steps():
    point = np.zeros((1, 31, 31), np.bool_)
    point[0, 15, 15] = True
    rows, columns = np.mgrid[:31, :31]
    np.testing.assert_array_equal(dilated(point, 10)[0], abs(rows - 15) + abs(columns - 15) <= 10)
    np.testing.assert_array_equal(dilated(point, 0), point)


def test_a_track_of_an_object_makes_holes_that_move_as_it_does():
    track = np.zeros((6, 30, 40), np.bool_)
    for frame in range(6):
        track[frame, 10:20, 5 + 3 * frame : 12 + 3 * frame] = True
    for seed in range(8):
        holes = object_masks(track, 9, 60, 80, seeded(seed))
        assert holes.shape == (9, 60, 80)
        assert (holes.sum((1, 2)) == 20 * 14).all()  # never cut by the frame
        middles = [np.argwhere(mask)[:, 1].mean() for mask in holes]
        np.testing.assert_allclose(np.abs(np.diff(middles)), 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hole_masks("holes", 2, 20, 20, seeded()), UnknownNameError, "unknown kind of hole 'holes'"),
        (lambda: stroke_masks("curve", 2, 20, 20, seeded()), UnknownNameError, "rand_curve"),
        (lambda: stroke_masks("rand_curve", 0, 20, 20, seeded()), UsageError, "0 frames"),
        (lambda: stroke_masks("rand_curve", 1, 20, 20, seeded(), coverage=0.3), UsageError, "centres of bins"),
        (lambda: stroke_masks(HAIR, 1, 40, 40, seeded(), coverage=0.95), UsageError, "do not reach"),
        (lambda: shape_masks(1, 4, 20, seeded()), UsageError, "at least 1 frame of 8 x 8"),
        (lambda: dilated(np.zeros((2, 2), bool), -1), UsageError, "-1 steps"),
        (lambda: object_masks(np.zeros((2, 2), bool), 1, 2, 2, seeded()), ShapeError, r"masks \(N, h, w\)"),
        (lambda: object_masks(np.zeros((1, 2, 2), bool), 1, 2, 2, seeded()), UsageError, "shows something"),
    ],
)
def test_what_is_not_allowed_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_presets_and_bins_are_those_of_the_paper():
    assert len(STROKE_PRESETS) == 5
    assert COVERAGE_BINS[0] == 0.05
    assert COVERAGE_BINS[-1] == 0.95
