"""Images of one size in an array, and the digits."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data import ArrayImages, Augmentation, Draws, Preprocess, open_dataset
from tenfold.data.arrays import channel_statistics, load_digits
from tenfold.errors import ShapeError


def images(count=6, channels=3, side=8):
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, side, side), np.uint8)
    return ArrayImages(pixels, np.arange(count) % 3)


def test_images_of_the_right_size_pass_untouched():
    rows = np.array([4, 0])
    got = images().framed(rows, Preprocess(size=8, resize=8))
    np.testing.assert_array_equal(got, images().pixels[rows])


@pytest.mark.parametrize(("channels", "wanted"), [(3, 3), (1, 1), (1, 3), (3, 1)])
def test_other_sizes_are_framed_as_predict_frames_a_file(channels, wanted):
    preprocess = Preprocess(size=10, resize=12, channels=wanted, mean=(0.0,) * wanted, std=(1.0,) * wanted, pixels=True)
    source = images(channels=channels)
    got = source.framed(np.arange(6), preprocess)
    for image, batched in zip(source.pixels, got, strict=True):
        np.testing.assert_array_equal(preprocess(image.transpose(1, 2, 0)), batched)


def test_a_random_box_is_cut_and_resized_as_pillow_does():
    rows, augmentation, draws = np.arange(6), Augmentation(crop="resized"), Draws(1, 2, np.arange(6))
    got = images().varied(rows, Preprocess(size=5, resize=5), augmentation, draws)
    for image, chances, varied in zip(images().pixels, augmentation.box_chances(draws), got, strict=True):
        box = augmentation.choose_box(8, 8, chances)
        expected = Image.fromarray(image.transpose(1, 2, 0).copy()).resize((5, 5), Image.Resampling.BILINEAR, box=box)
        np.testing.assert_array_equal(varied, np.asarray(expected).transpose(2, 0, 1))


def test_a_memory_map_gives_plain_arrays(tmp_path):
    np.save(tmp_path / "a.npy", images().pixels)
    mapped = ArrayImages(np.load(tmp_path / "a.npy", mmap_mode="r"), np.arange(6))
    got = mapped.framed(np.array([1, 2]), Preprocess(size=8, resize=8))
    assert type(got) is np.ndarray
    assert got.flags.writeable
    np.testing.assert_array_equal(mapped.take(np.array([5])).pixels, images().pixels[5:])


@pytest.mark.parametrize(
    ("pixels", "count"),
    [
        (np.zeros((2, 3, 4, 4)), 2),
        (np.zeros((2, 4, 4, 3), np.uint8), 2),
        (np.zeros((2, 3, 4, 4), np.uint8), 3),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(pixels, count):
    with pytest.raises(ShapeError, match="needed is uint8 of shape"):
        ArrayImages(pixels, np.zeros(count, np.int64))


def test_statistics_equal_the_direct_formula():
    pixels = images(50).pixels
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 2, 3)), atol=6e-4)
    np.testing.assert_allclose(std, (pixels / 255).std((0, 2, 3)), atol=6e-4)


def test_statistics_of_a_constant_channel_can_be_divided_by():
    assert channel_statistics(np.full((3, 1, 2, 2), 51, np.uint8)) == ((0.2,), (0.001,))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits as theirs

    dataset = load_digits()
    assert dataset.labels == tuple("0123456789")
    assert (len(dataset.train.targets), len(dataset.evaluation.targets)) == (1438, 359)
    assert not dataset.flip
    both = np.concatenate([dataset.train.pixels, dataset.evaluation.pixels])
    assert both.shape == (1797, 1, 8, 8)
    assert both.max() == 255
    np.testing.assert_allclose(
        np.sort(both.reshape(1797, 64).sum(1)), np.sort(theirs().data.sum(1) * 255 / 16), atol=16
    )
    assert np.bincount(dataset.evaluation.targets).min() >= 34
    assert (open_dataset().train.pixels == dataset.train.pixels).all()


def test_digits_without_a_split_are_judged_on_themselves():
    dataset = open_dataset("digits", eval_fraction=0)
    assert len(dataset.train.targets) == len(dataset.evaluation.targets) == 1797
    assert not dataset.held_out
