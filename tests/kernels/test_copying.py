"""Colours copied from other frames: the native kernel gives those of its twin, to the bit."""

import numpy as np
import pytest

from tenfold.kernels.library import native, without_kernels
from tenfold.video.propagation import NOT_FOUND, Sources, copied_colours

needs_kernels = pytest.mark.skipif(native() is None, reason="the native kernels were not compiled")


def pictures_of(size, numbers, rng):
    return {number: (rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random(size) < 0.4) for number in numbers}


def sources_of(size, numbers, count, rng):
    """Points in frames, between frames' pixels, beyond their borders, and in none."""
    frame = rng.choice([*numbers, NOT_FOUND], count)
    place = np.stack([rng.uniform(-3, size[1] + 3, count), rng.uniform(-3, size[0] + 3, count)])
    place[:, ::3] = np.rint(place[:, ::3])
    return Sources(frame.astype(np.int64), place.astype(np.float32))


@needs_kernels
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (24, 31)])
@pytest.mark.parametrize("numbers", [[4], [3, 4, 9, 30]])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_colours_are_those_of_the_twin_to_the_bit(size, numbers, count):
    rng = np.random.default_rng(count)
    pictures = pictures_of(size, numbers, rng)
    before, after = (sources_of(size, numbers, count, rng) for _ in range(2))
    colours, got = copied_colours(10, before, after, pictures)
    with without_kernels():
        wanted, found = copied_colours(10, before, after, pictures)
    np.testing.assert_array_equal(got, found)
    np.testing.assert_array_equal(colours, wanted)
    assert count < 500 or 0 < got.sum() < count


@needs_kernels
def test_pictures_may_lie_in_memory_as_they_like():
    rng = np.random.default_rng(0)
    pictures = pictures_of((20, 30), [1, 2], rng)
    turned = {number: (image[:, ::-1], hole[:, ::-1]) for number, (image, hole) in pictures.items()}
    copied = {number: (image.copy(), hole.copy()) for number, (image, hole) in turned.items()}
    before, after = (sources_of((20, 30), [1, 2], 200, rng) for _ in range(2))
    for one, other in zip(
        copied_colours(3, before, after, turned), copied_colours(3, before, after, copied), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("missing", [0, 5, 99])
def test_a_frame_that_is_not_there_is_an_error_with_and_without(missing):
    rng = np.random.default_rng(1)
    pictures = pictures_of((6, 6), [1, 2, 7], rng)
    sources = Sources(np.array([1, missing]), np.zeros((2, 2), np.float32))
    with pytest.raises(KeyError):
        copied_colours(3, sources, sources, pictures)
    with without_kernels(), pytest.raises(KeyError):
        copied_colours(3, sources, sources, pictures)


def test_nothing_is_copied_from_no_frames():
    colours, got = copied_colours(0, Sources.none(3), Sources.none(3), {})
    assert colours.shape == (3, 3)
    assert not got.any()
