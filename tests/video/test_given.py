import numpy as np
import pytest

from tenfold.errors import ShapeError, UsageError
from tenfold.video.given import Given, mask_of

SIZE = (60, 80)


def disc(y=30, x=40, radius=12):
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return np.hypot(rows - y, columns - x) <= radius


def picture(mask):
    rng = np.random.default_rng(0)
    colours = np.where(mask[..., None], [200, 60, 40], [60, 120, 90])
    return np.clip(colours + rng.normal(0, 8, (*SIZE, 3)), 0, 255).astype(np.uint8)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_a_mask_is_taken_as_it_is():
    assert mask_of(Given(mask=disc()), picture(disc())) is not None
    assert np.array_equal(mask_of(Given(mask=disc()), picture(disc())), disc())


def test_the_colours_inside_a_box_are_told_from_those_around_it():
    assert overlap(mask_of(Given(box=(25, 15, 30, 30)), picture(disc())), disc()) > 0.95


def test_a_box_may_reach_beyond_the_frame():
    mask = disc(x=4)
    assert overlap(mask_of(Given(box=(-12, 15, 32, 30)), picture(mask)), mask) > 0.9


def test_a_box_around_nothing_is_its_ellipse():
    found = mask_of(Given(box=(20, 10, 20, 20)), np.full((*SIZE, 3), 90, np.uint8))
    assert found.any()
    assert not found[:10].any()
    assert not found[:, :20].any()


def test_a_click_finds_the_object_under_it():
    assert overlap(mask_of(Given(click=(44.5, 28.5)), picture(disc())), disc()) > 0.9


def test_a_click_finds_what_moves_alike_where_colours_say_nothing():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (*SIZE, 3), np.uint8)
    motion = np.where(disc(), np.array([4, 1])[:, None, None], 0).astype(np.float32)
    assert overlap(mask_of(Given(click=(40, 30)), frame, motion), disc()) > 0.6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "by just one of a mask, a box and a click"),
        ({"box": (0, 0, 5, 5), "click": (3, 3)}, "by just one of a mask, a box and a click"),
        ({"box": (0, 0, 0, 5)}, "no place; needed are finite numbers, with a width and height above 0"),
        ({"click": (float("nan"), 3)}, "no place"),
        ({"click": (3, 3), "frame": -1}, "given on frame -1; frames are counted from 0"),
        ({"click": (3, 3), "id": 0}, "called 0; allowed are numbers from 1"),
    ],
)
def test_what_is_no_object_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Given(**given)


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ShapeError, match="a mask is uint8"):
        Given(mask=np.zeros(SIZE, np.uint8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Given(box=(100, 0, 5, 5)), "the box .* lies outside the frame of 80 x 60 pixels"),
        (Given(click=(80, 3)), "the click .* lies outside the frame of 80 x 60 pixels"),
        (Given(mask=np.zeros(SIZE, np.bool_)), "the mask is empty"),
    ],
)
def test_what_is_not_on_the_frame_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        mask_of(given, picture(disc()))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ShapeError, match=r"the mask has the size \(60, 80\), but the frame \(30, 40\)"):
        mask_of(Given(mask=disc()), np.zeros((30, 40, 3), np.uint8))
