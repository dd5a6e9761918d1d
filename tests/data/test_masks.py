"""Images with masks: every layout, and one clear message for each thing that can be wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masked_images import make_pair, write_pairs, write_segmentation
from tenfold.data import images, open_masked_images
from tenfold.data.label_sets import IGNORE, LABEL_SETS, find_labels, named_labels, voc_colour
from tenfold.data.masks import read_mask
from tenfold.errors import DataError, MissingDataError, UnknownNameError, UsageError


@pytest.fixture
def folder(tmp_path):
    return write_segmentation(tmp_path / "squares")


def test_train_and_val_give_pairs_whose_values_are_classes(folder):
    data = open_masked_images(folder)
    assert data.labels.names == ("ground", "square", "edge")
    assert data.labels.colours[1] == (255, 0, 0)
    assert (len(data.train), len(data.evaluation), data.held_out, data.part) == (8, 3, True, "val")
    image, classes = data.read(data.train[0])
    pixels, values = make_pair(0)
    np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(classes, np.array([0, 1, IGNORE, 2], np.uint8)[values])


def test_images_and_masks_alone_are_split_by_a_seed_of_its_own(tmp_path):
    write_pairs(tmp_path, 10)
    first, again, other = (
        open_masked_images(tmp_path, labels=["a", "b", "void", "c"], split_seed=seed) for seed in (0, 0, 1)
    )
    assert (len(first.train), len(first.evaluation)) == (8, 2)
    assert not {pair.image for pair in first.train} & {pair.image for pair in first.evaluation}
    assert first == again
    assert first.evaluation != other.evaluation
    both = open_masked_images(tmp_path, labels=["a", "b", "void", "c"], eval_fraction=0)
    assert both.train == both.evaluation
    assert not both.held_out


def test_cityscapes_is_read_in_its_own_layout_and_numbering(tmp_path):
    for part in ("train", "val"):
        for tree, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            place = tmp_path / tree / part / "ulm"
            place.mkdir(parents=True)
            values = np.full((8, 16), 26, np.uint8)  # car
            values[0] = 3  # out of the region of interest
            Image.fromarray(values).save(place / f"ulm_0_{ending}.png")
    data = open_masked_images(tmp_path)
    assert len(data.labels.names) == 19
    _, classes = data.read(data.train[0])
    assert data.labels.names[classes[1, 0]] == "car"
    assert classes[0, 0] == IGNORE


def test_another_part_can_be_evaluated_on(folder):
    shutil.copytree(folder / "val", folder / "test")
    assert open_masked_images(folder).part == "val"
    assert open_masked_images(folder, eval_part="test").part == "test"
    with pytest.raises(MissingDataError, match="has no part 'tset' to evaluate on"):
        open_masked_images(folder, eval_part="tset")


def test_a_palette_picture_is_read_as_numbers(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8), mode="P")
    picture.putpalette([9, 9, 9] * 256)
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [[0, 1], [2, 255]])


def test_an_unknown_label_is_named_with_its_file_and_what_is_allowed(folder):
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(folder / "train" / "masks" / "3.png")
    data = open_masked_images(folder)
    with pytest.raises(DataError, match=r"3\.png holds the value 9, which is no label; allowed are 0 to 3, 255\. Name"):
        data.read(next(pair for pair in data.train if pair.image.stem == "3"))


def test_a_mask_of_another_size_is_refused_with_both_sizes(folder):
    Image.fromarray(np.zeros((24, 30), np.uint8)).save(folder / "val" / "masks" / "101.png")
    with pytest.raises(DataError, match=r"101\.png has 30 x 24 pixels, but its image .*101\.png has 32 x 24; .* same"):
        open_masked_images(folder)


def test_a_missing_mask_is_named(folder):
    (folder / "train" / "masks" / "5.png").unlink()
    with pytest.raises(MissingDataError, match=r"5\.png has no mask: looked for .*masks.5 with one of \.png"):
        open_masked_images(folder)


@pytest.mark.parametrize("gone", ["train/images", "train/masks"])
def test_a_missing_folder_is_named(folder, gone):
    shutil.rmtree(folder / gone)
    with pytest.raises(MissingDataError):
        open_masked_images(folder)


def test_an_empty_folder_is_named(folder):
    for path in (folder / "val" / "images").iterdir():
        path.unlink()
    with pytest.raises(MissingDataError, match=r"images is empty: no images \(.*Add images, with a mask for each"):
        open_masked_images(folder)
    with pytest.raises(MissingDataError, match=r"holds no images with masks. Expected is one of: train/"):
        open_masked_images(folder / "val" / "images", labels=["a", "b"])


def test_missing_names_say_where_to_write_them(folder):
    (folder / "labels.txt").unlink()
    with pytest.raises(
        MissingDataError, match=r"names of the classes in .* are not known. Write them into .*labels\.txt"
    ):
        open_masked_images(folder)


def test_data_must_be_named():
    with pytest.raises(UsageError, match="segmentation needs data: --data FOLDER"):
        open_masked_images(None)


def test_a_mask_in_colours_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"is a picture of mode RGB; needed is one channel whose values 0 to 255"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_too_large_to_decode_is_refused_by_its_header(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "mask.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="too large: 40 x 40 pixels; at most 100"):
        read_mask(tmp_path / "mask.png")


def test_names_come_from_a_list_a_set_a_file_or_the_folder(tmp_path):
    assert find_labels(tmp_path, ["a", "b"]).names == ("a", "b")
    assert find_labels(tmp_path, "camvid") is LABEL_SETS["camvid"]
    assert find_labels(Path("somewhere/CamVid")) is LABEL_SETS["camvid"]
    with pytest.raises(UnknownNameError, match=r"unknown set of labels 'camvd'\. Did you mean camvid"):
        find_labels(tmp_path, "camvd")
    with pytest.raises(DataError, match="allowed are 2 to 255 different names"):
        named_labels(["a", "a"])
    again = type(LABEL_SETS["camvid"]).from_dict(LABEL_SETS["camvid"].to_dict())
    assert again == LABEL_SETS["camvid"]


def test_colours_are_those_of_pascal_voc():
    # The first ones of its published table.
    table = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert [voc_colour(number) for number in range(7)] == table
    assert voc_colour(20) == (0, 64, 128)


def test_camvid_has_the_pixels_that_its_readme_counts(shared):
    data = open_masked_images(shared / "data" / "camvid", eval_part="test")
    assert (len(data.train), len(data.evaluation)) == (367, 233)
    counts = np.zeros(256, np.int64)
    for pair in data.train:
        counts += np.bincount(data.read(pair)[1].reshape(-1), minlength=256)
    assert counts[:11].tolist() == [
        2678770, 3685078, 156585, 5031155, 712025, 1538655, 185606, 178945, 930173, 101476, 46277,
    ]  # fmt: skip
    assert counts[IGNORE] == 609655
