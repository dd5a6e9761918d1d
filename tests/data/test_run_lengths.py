"""Run lengths of masks, against pycocotools and against masks written out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.run_lengths import decode_mask, encode_mask
from tenfold.errors import DataError, ShapeError


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.03, 0.5, 1.0]))
def test_what_pycocotools_writes_is_read(seed, height, width, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    code = encode_mask(mask)
    assert isinstance(code["counts"], str)
    np.testing.assert_array_equal(decode_mask(code, height, width), mask)


def test_long_runs_are_read():
    mask = np.zeros((900, 1100), np.bool_)
    mask[300:, 200:900] = True
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), 900, 1100), mask)


def test_uncompressed_runs_go_down_the_columns():
    mask = decode_mask({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    np.testing.assert_array_equal(mask, [[False, True, False], [True, False, False]])


def test_polygons_are_filled():
    mask = decode_mask([[2, 1, 6, 1, 6, 5, 2, 5]], 8, 10)
    expected = np.zeros((8, 10), np.bool_)
    expected[1:5, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ({"size": [2, 3], "counts": [1, 2]}, "hold 3 pixels, but it has 6"),
        ({"size": [2, 3], "counts": [8, -2]}, "cannot be decoded"),
        ({"size": [3, 2], "counts": [6]}, r"says that it is of \[3, 2\], but its video is of \[2, 3\]"),
        ({"size": [2, 3], "counts": " "}, "holds ' ', which run lengths do not"),
        ({"size": [2, 3], "counts": "P"}, "ends inside a run"),
        ({"size": [2, 3], "counts": "O"}, "a run of a mask is negative"),
        ({"counts": [6]}, "cannot be decoded"),
        (None, "cannot be decoded"),
    ],
)
def test_damaged_codes_are_refused(code, message):
    with pytest.raises(DataError, match=message):
        decode_mask(code, 2, 3)


def test_masks_and_sizes_that_are_none_are_refused():
    with pytest.raises(ShapeError, match=r"a mask is float64 \(2, 3\); needed is bool"):
        encode_mask(np.zeros((2, 3)))
    with pytest.raises(DataError, match="0 x 5 pixels is not decoded"):
        decode_mask({"size": [5, 0], "counts": []}, 5, 0)
