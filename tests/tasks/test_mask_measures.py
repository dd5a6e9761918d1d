import math

import numpy as np
import pytest

from tenfold.errors import ShapeError, UsageError
from tenfold.tasks.mask_measures import boundary, boundary_accuracy, region_similarity


def square(top, left, side, size=(40, 50)):
    mask = np.zeros(size, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def test_region_similarity_of_shifted_squares_is_that_of_their_rectangles():
    assert region_similarity(square(5, 5, 10), square(5, 8, 10)) == 70 / 130


def test_two_empty_masks_agree_and_one_empty_mask_does_not():
    empty = square(0, 0, 0)
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1
    assert region_similarity(empty, square(5, 5, 10)) == boundary_accuracy(square(5, 5, 10), empty) == 0


def test_the_boundary_lies_on_the_pixels_left_of_and_above_a_change():
    assert np.argwhere(boundary(square(2, 3, 1, (5, 6)))).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert not boundary(np.ones((5, 6), np.bool_)).any()


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_boundary_accuracy_equals_matching_all_pairs_of_pixels(pixels):
    rng = np.random.default_rng(pixels)
    found, true = (rng.random((24, 31)) < 0.06 for _ in range(2))
    found, true = (one | np.roll(one, 1, 0) | np.roll(one, 1, 1) for one in (found, true))
    points = [
        [(y, x) for y in range(24) for x in range(31) if differs(one, y, x)]  # by the definition, pixel by pixel
        for one in (found, true)
    ]
    shares = [
        sum(any(math.dist(a, b) <= pixels for b in other) for a in one) / len(one)
        for one, other in (points, points[::-1])
    ]
    expected = 2 * shares[0] * shares[1] / sum(shares)
    assert boundary_accuracy(found, true, pixels) == pytest.approx(expected, abs=1e-12)


def differs(mask, y, x):
    down, right = min(y + 1, mask.shape[0] - 1), min(x + 1, mask.shape[1] - 1)
    return any(mask[y, x] != mask[b, a] for b, a in ((y, right), (down, x), (down, right)))


def test_the_tolerance_is_a_share_of_the_diagonal_rounded_up():
    found, true = square(5, 5, 10, (30, 40)), square(5, 7, 10, (30, 40))  # diagonal 50
    assert boundary_accuracy(found, true, 0.021) == 1  # 1.05 pixels become 2
    assert boundary_accuracy(found, true, 0.02) < 1  # just 1 pixel


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"shapes \(40, 50\) and \(4, 5\); they must be the same"):
        region_similarity(square(0, 0, 3), square(0, 0, 3, (4, 5)))


def test_masks_of_numbers_are_refused():
    with pytest.raises(ShapeError, match=r"a mask is uint8 \(4, 5\); needed is bool"):
        boundary_accuracy(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.bool_))


def test_a_tolerance_of_nothing_is_refused():
    with pytest.raises(UsageError, match="a tolerance of 0 is not allowed"):
        boundary_accuracy(square(0, 0, 3), square(0, 0, 3), 0)
