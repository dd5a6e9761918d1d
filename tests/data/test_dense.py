"""Scores of pixels without torch: the same numbers as torch gives, and windows that cover everything."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.data.dense import coloured_mask, enlarged, overlay, pixel_scores, side_by_side, window_starts


@pytest.mark.parametrize("size", [(45, 60), (180, 240), (23, 30), (50, 31)])
def test_enlarging_equals_torch(size):
    scores = np.random.default_rng(0).standard_normal((3, 23, 30)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarged(scores, size), wanted[0].numpy(), atol=5e-5)


@pytest.mark.parametrize("length", [5, 8, 9, 20, 97])
def test_windows_cover_a_length_and_overlap_by_a_third(length):
    starts = window_starts(length, 8)
    assert starts[0] == 0
    assert starts[-1] + 8 >= length
    assert all(0 < later - earlier <= 8 * 2 / 3 + 1 for earlier, later in pairwise(starts))


def test_windows_of_a_network_that_sees_single_pixels_change_nothing():
    inputs = np.random.default_rng(0).standard_normal((2, 13, 17)).astype(np.float32)
    seen = []

    def run(batch):
        seen.append(batch.shape)
        return 2 * batch

    np.testing.assert_allclose(pixel_scores(run, inputs, (6, 8)), 2 * inputs, rtol=1e-6)
    assert set(seen) == {(1, 2, 6, 8)}


def test_a_mask_keeps_its_values_under_its_colours(tmp_path):
    classes = np.array([[0, 1], [2, 255]], np.uint8)
    coloured_mask(classes, [(1, 2, 3), (4, 5, 6), (7, 8, 9)]).save(tmp_path / "mask.png")
    back = Image.open(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(back), classes)
    assert np.asarray(back.convert("RGB"))[1].tolist() == [[7, 8, 9], [0, 0, 0]]


def test_an_overlay_mixes_image_and_colours_and_pictures_stand_in_a_row():
    image = Image.new("RGB", (2, 2), (100, 100, 100))
    drawn = overlay(image, np.zeros((2, 2), np.uint8), [(200, 100, 0)])
    red, green, blue = drawn.getpixel((0, 0))
    assert 100 < red < 200
    assert green == 100
    assert 0 < blue < 100
    assert side_by_side([image, drawn], gap=1).size == (5, 2)
