"""Operations equal timm's, and are drawn as often and as strongly; boxes are erased as the paper says."""

import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment

from tenfold.data import Augmentation, Draws
from tenfold.data.rand_augment import OPERATIONS, erase, rand_augment
from tenfold.errors import UsageError

FILL = (120, 110, 100)


def picture(height=24, width=32):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("level", [-0.9, 0.35, 0.99])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_timm(name, level, monkeypatch):
    # timm draws the sign by itself.
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: value if level > 0 else -value)
    find = auto_augment.LEVEL_TO_ARG[name]
    arguments = () if find is None else find(10 * abs(level), {})
    operation = auto_augment.NAME_TO_OP[name]
    expected = operation(picture(), *arguments, fillcolor=FILL, resample=Image.Resampling.BICUBIC)
    got = OPERATIONS[name](picture(), level, FILL, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_names_are_those_of_timm():
    assert list(OPERATIONS) == auto_augment._RAND_INCREASING_TRANSFORMS


def test_a_quarter_of_the_images_stays_as_it_was():
    # Either operation is left out half of the time; AutoContrast, for one, leaves noise as it is.
    images = np.random.default_rng(0).integers(0, 256, (600, 3, 8, 8), np.uint8)
    got = rand_augment(images, 9, FILL, Draws(0, 0, np.arange(600)))
    assert got.shape == images.shape
    same = (got == images).all(axis=(1, 2, 3)).mean()
    assert 0.2 < same < 0.36


def test_grey_images_are_varied_too():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    got = rand_augment(images, 9, FILL, Draws(0, 0, np.arange(40)))
    assert got.shape == images.shape
    assert (got != images).any()


def test_boxes_are_filled_with_noise_in_their_share_of_the_images():
    numbers = np.full((800, 3, 20, 30), 7, np.float32)
    got = erase(numbers, 0.25, Draws(0, 0, np.arange(800)))
    changed = (got != 7).any(axis=1)
    areas = changed.mean(axis=(1, 2))
    assert 0.2 < (areas > 0).mean() < 0.3
    assert areas[areas > 0].min() > 0.01
    assert areas.max() <= 0.36
    noise = got[got != 7]
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    for one in changed[areas > 0][:20]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize(("option", "value"), [("rand_augment", 11), ("erasing", -0.1)])
def test_strengths_out_of_range_are_refused(option, value):
    with pytest.raises(UsageError, match=rf"{option} is {value}; allowed are numbers from 0 to"):
        Augmentation(**{option: value})
