"""Crops and flips equal slow obvious versions, and boxes are spread as torchvision's."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from tenfold.data import Augmentation, Draws
from tenfold.data.augment import mirror, pad_crop
from tenfold.errors import UsageError


def batch(count=9, channels=3, height=10, width=8):
    return np.random.default_rng(0).integers(1, 256, (count, channels, height, width), np.uint8)


def test_pad_crop_equals_one_image_at_a_time():
    images, random = batch(), np.random.default_rng(1)
    tops, lefts = random.integers(0, 7, 9), random.integers(0, 7, 9)
    got = pad_crop(images, 3, tops, lefts)
    for image, top, left, crop in zip(images, tops, lefts, got, strict=True):
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
        np.testing.assert_array_equal(crop, padded[:, top : top + 10, left : left + 8])


def test_mirror_flips_the_chosen_only_and_leaves_its_input():
    images = batch(2)
    kept = images.copy()
    got = mirror(images, np.array([True, False]))
    np.testing.assert_array_equal(got[0], np.flip(kept[0], 2))
    np.testing.assert_array_equal(got[1], kept[1])
    np.testing.assert_array_equal(images, kept)


def test_an_image_is_varied_alike_in_any_batch():
    images, augmentation = batch(), Augmentation(crop="pad", padding=2, flip=True, rand_augment=9)
    whole = augmentation.vary(images, Draws(1, 2, np.arange(9)))
    for index in range(9):
        alone = augmentation.vary(images[index : index + 1], Draws(1, 2, np.array([index])))
        np.testing.assert_array_equal(alone[0], whole[index])
    assert (whole != augmentation.vary(images, Draws(1, 3, np.arange(9)))).any()


def test_every_place_and_side_comes_up():
    images = np.zeros((2000, 1, 3, 3), np.uint8)
    images[:, :, 1, 1] = 1
    images[:, :, 1, 2] = 2
    varied = Augmentation(crop="pad", padding=1, flip=True).vary(images, Draws(0, 0, np.arange(2000)))
    assert len(np.unique(varied.reshape(2000, 9), axis=0)) == 18


@pytest.mark.parametrize(("width", "height"), [(341, 256), (64, 64), (30, 200)])
def test_boxes_are_distributed_as_torchvisions(width, height):
    augmentation = Augmentation(crop="resized")
    ours = np.array(
        [augmentation.choose_box(width, height, row) for row in augmentation.box_chances(Draws(0, 0, np.arange(3000)))]
    )
    theirs = v2.RandomResizedCrop(8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [theirs.make_params([torch.zeros(1, height, width)]) for _ in range(3000)]
    reference = np.array([(p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]) for p in drawn])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2] <= width).all()
    assert (ours[:, 3] <= height).all()
    assert (ours[:, 2:] > ours[:, :2]).all()
    for column in range(4):
        a, b = ours[:, column], reference[:, column]
        error = np.sqrt((a.var() + b.var()) / 3000)
        assert abs(a.mean() - b.mean()) < 4 * error + 0.5
        assert abs(a.std() - b.std()) < 4 * error + 0.5


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000), (1, 1)])
def test_a_very_long_image_gives_a_box_of_an_allowed_ratio(width, height):
    augmentation = Augmentation(crop="resized", scale=(1.0, 1.0))
    left, top, right, bottom = augmentation.choose_box(width, height, np.full((10, 4), 0.5))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert 0.7 < (right - left) / (bottom - top) < 1.4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": "resize"}, "unknown crop 'resize'. Did you mean resized"),
        ({"padding": -1}, "padding is -1"),
        ({"scale": (0.0, 1.0)}, "scale is"),
        ({"ratio": (2.0, 1.0)}, "ratio is"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Augmentation(**fields)
