"""Preprocessing equals torchvision's, works without torch, and refuses sizes that make no sense."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tenfold.data import Preprocess, WholeImage, read_preprocess
from tenfold.errors import DataError, ShapeError, UnknownNameError, UsageError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(97, 61), (61, 97), (40, 40), (41, 300), (20, 33), (40, 57), (64, 65)])
def test_geometry_is_bit_equal_to_torchvision(height, width, interpolation):
    image = noise(height, width)
    preprocess = Preprocess(size=33, resize=40, interpolation=interpolation, pixels=True)
    theirs = v2.Compose([v2.Resize(40, v2.InterpolationMode(interpolation)), v2.CenterCrop(33)])
    expected = np.asarray(theirs(Image.fromarray(image))).transpose(2, 0, 1)
    np.testing.assert_array_equal(preprocess(image), expected.astype(np.float32))


def test_normalisation_equals_torchvision_to_float_rounding():
    image, mean, std = noise(50, 40), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = v2.Compose(
        [
            v2.Resize(32),
            v2.CenterCrop(24),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    got = Preprocess(size=24, resize=32, mean=mean, std=std)(image)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, theirs(Image.fromarray(image)).numpy(), atol=1e-6)


def test_pixels_are_whole_numbers_from_0_to_255():
    got = Preprocess(size=8, resize=8, pixels=True)(noise(8, 8))
    np.testing.assert_array_equal(got, noise(8, 8).transpose(2, 0, 1))
    assert got.dtype == np.float32


def test_grey_and_rgb_go_into_one_another():
    rgb = noise(8, 8)
    to_grey = Preprocess(size=8, resize=8, channels=1, mean=(0.0,), std=(1.0,), pixels=True)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    assert to_grey(rgb).shape == (1, 8, 8)
    np.testing.assert_allclose(to_grey(rgb)[0], luma, atol=1)
    grey = rgb[:, :, 0]
    np.testing.assert_array_equal(to_grey(grey)[0], grey)
    to_rgb = Preprocess(size=8, resize=8, pixels=True)
    np.testing.assert_array_equal(to_rgb(grey[:, :, None]), np.stack([grey] * 3))


def test_description_survives_json():
    preprocess = Preprocess(size=24, resize=32, mean=(0.5,), std=(0.25,), channels=1, interpolation="bicubic")
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize("size", [0, -1, 4097, 10**9, 1.5, True, "224"])
def test_a_size_that_makes_no_sense_is_refused(size):
    with pytest.raises(ShapeError, match=r"size is .*; allowed is a whole number of pixels from 1 to 4096"):
        Preprocess(size=size, resize=256)


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ShapeError, match="resize is 20, but a crop of 24 needs at least 24"):
        Preprocess(size=24, resize=20)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (0.5,)}, "mean is .*needs 3 finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "std is .*above 0"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is .*finite"),
        ({"channels": 4}, "channels is 4; allowed are 1"),
        ({"interpolation": "bilinaer"}, "unknown interpolation 'bilinaer'. Did you mean bilinear"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Preprocess(size=8, resize=8, **fields)


def test_an_unknown_key_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean resize"):
        Preprocess.from_dict({"size": 8, "resiz": 8})
    with pytest.raises(UsageError, match="does not fit"):
        Preprocess.from_dict({"size": 8})


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ShapeError, match=r"needed is uint8 of shape \(H, W, 3\)"):
        Preprocess(size=8, resize=8)(image)


def test_reading_and_preprocessing_import_no_torch(tmp_path):
    Image.fromarray(noise(20, 20)).save(tmp_path / "a.png")
    program = (
        "import sys; from tenfold.data import Preprocess, read_image\n"
        "x = Preprocess(size=8, resize=9)(read_image(sys.argv[1])); assert x.shape == (3, 8, 8)\n"
        "assert 'torch' not in sys.modules and 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)


def test_a_whole_image_is_brought_to_one_size_or_left_for_windows():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    stretched = WholeImage(height=10, width=12, pixels=True)
    wanted = np.asarray(Image.fromarray(image).resize((12, 10), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(stretched(image), wanted)
    windows = WholeImage(height=10, width=12, windows=True, pixels=True)
    np.testing.assert_array_equal(windows(image), image.transpose(2, 0, 1))
    assert windows(image[:5]).shape == (3, 10, 60)  # enlarged in proportion until a window fits
    assert stretched.input_shape == windows.input_shape == (3, 10, 12)


def test_either_kind_is_read_back_from_its_description():
    for one in (Preprocess(size=8, resize=9), WholeImage(height=8, width=9, windows=True)):
        assert read_preprocess(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(ShapeError, match="height is 0; allowed is a whole number of pixels from 1 to 4096"):
        WholeImage(height=0, width=4)
    with pytest.raises(DataError, match="too narrow: enlarged to a window of 4096 x 4096"):
        WholeImage(height=4096, width=4096, windows=True).frame_size(1, 100_000)
