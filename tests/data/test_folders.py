"""Folders of images: classes are found and numbered, and what is wrong is named."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data import Augmentation, Draws, Preprocess, open_dataset
from tenfold.data.folders import read_labels_csv, scan_classes
from tenfold.errors import DataError, MissingDataError

PREPROCESS = Preprocess(size=8, resize=9, pixels=True)


def write_image(path, colour=(10, 20, 30), size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_classes(folder, counts):
    for shade, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(folder / name / f"{number}.png", (shade * 50, number, 0))


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_classes_are_numbered_by_their_sorted_names(tmp_path):
    write_classes(tmp_path, {"dog": 2, "cat": 3})
    write_image(tmp_path / "dog" / "deeper" / "x.JPG")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / ".cache").mkdir()
    images, labels = scan_classes(tmp_path)
    assert labels == ("cat", "dog")
    assert images.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert [path.name for path in images.paths] == ["0.png", "1.png", "2.png", "0.png", "1.png", "x.JPG"]


def test_an_empty_class_is_named(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "eel").mkdir()
    with pytest.raises(DataError, match=r"the class 'eel' is empty.*Add images, or remove the folder"):
        open_dataset(tmp_path)


def test_one_class_is_too_few(tmp_path):
    write_classes(tmp_path, {"cat": 3})
    with pytest.raises(DataError, match=r"has 1 class folders \['cat'\]; expected are at least two"):
        open_dataset(tmp_path)


def test_validation_keeps_the_numbers_of_training(tmp_path):
    write_classes(tmp_path / "train", {"ant": 1, "bee": 1, "cat": 1})
    write_classes(tmp_path / "val", {"cat": 2})
    dataset = open_dataset(tmp_path)
    assert dataset.labels == ("ant", "bee", "cat")
    assert dataset.evaluation.targets.tolist() == [2, 2]
    assert dataset.held_out


def test_a_class_that_training_lacks_is_refused(tmp_path):
    write_classes(tmp_path / "train", {"ant": 1, "bee": 1})
    write_classes(tmp_path / "test", {"bee": 1, "wasp": 1})
    with pytest.raises(DataError, match="has the class 'wasp', which the training part does not have"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_single_folder_is_split_in_proportion_by_a_fixed_seed(tmp_path, inside):
    write_classes(tmp_path / inside, {"ant": 20, "bee": 10})
    dataset = open_dataset(tmp_path)
    assert np.bincount(dataset.evaluation.targets).tolist() == [4, 2]
    assert np.bincount(dataset.train.targets).tolist() == [16, 8]
    assert not set(dataset.train.paths) & set(dataset.evaluation.paths)
    assert open_dataset(tmp_path).evaluation.paths == dataset.evaluation.paths
    assert open_dataset(tmp_path, split_seed=1).evaluation.paths != dataset.evaluation.paths


def test_a_folder_too_small_to_split_is_refused(tmp_path):
    write_classes(tmp_path, {"ant": 1, "bee": 1})
    with pytest.raises(DataError, match=r"2 images cannot be split with a fraction of 0.2"):
        open_dataset(tmp_path)


def test_a_truncated_file_is_named_when_it_is_read(tmp_path):
    write_classes(tmp_path / "train", {"ant": 2, "bee": 2})
    write_classes(tmp_path / "val", {"ant": 2, "bee": 2})
    for part in ("train", "val"):
        cut_in_half(tmp_path / part / "ant" / "1.png")
    dataset, rows = open_dataset(tmp_path), np.arange(4)
    with pytest.raises(DataError, match=r"val.ant.1\.png .*skip_bad=True"):
        dataset.evaluation.framed(rows, PREPROCESS)
    with pytest.raises(DataError, match=r"train.ant.1\.png .*skip_bad=True"):
        dataset.train.varied(rows, PREPROCESS, Augmentation(crop="resized"), Draws(0, 0, rows))


def test_an_image_too_narrow_to_resize_is_named(tmp_path):
    write_classes(tmp_path / "train", {"ant": 1, "bee": 1})
    write_classes(tmp_path / "val", {"ant": 1})
    write_image(tmp_path / "val" / "bee" / "line.png", size=(1_000_000, 1))
    with pytest.raises(DataError, match=r"line\.png: an image of 1000000 x 1 pixels is too narrow"):
        open_dataset(tmp_path).evaluation.framed(np.array([1]), PREPROCESS)


def test_bad_files_are_skipped_on_request_and_listed(tmp_path):
    write_classes(tmp_path / "train", {"ant": 3, "bee": 2})
    write_classes(tmp_path / "val", {"ant": 2, "bee": 2})
    cut_in_half(tmp_path / "train" / "ant" / "1.png")
    (tmp_path / "val" / "bee" / "0.png").write_text("no image")
    dataset = open_dataset(tmp_path, skip_bad=True)
    assert [path.name for path in dataset.train.paths] == ["0.png", "2.png", "0.png", "1.png"]
    assert dataset.train.targets.tolist() == [0, 0, 1, 1]
    assert dataset.evaluation.targets.tolist() == [0, 0, 1]
    assert len(dataset.skipped) == 2
    assert "1.png" in dataset.skipped[0]
    assert "bee" in dataset.skipped[1]
    assert dataset.evaluation.framed(np.arange(3), PREPROCESS).shape == (3, 3, 8, 8)


def test_a_class_whose_files_are_all_bad_is_refused(tmp_path):
    write_classes(tmp_path, {"ant": 3, "bee": 1})
    cut_in_half(tmp_path / "bee" / "0.png")
    with pytest.raises(DataError, match=r"no readable image is left in 1 of the classes.*bee.0\.png"):
        open_dataset(tmp_path, skip_bad=True)


def write_table(folder, text, files=("images/a.png", "images/b.png")):
    for file in files:
        write_image(folder / file)
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_a_table_with_numbers_and_names_is_read(tmp_path):
    table = write_table(tmp_path, "index,name,file\n2,cat,images/a.png\n0,ant,images/b.png\n")
    images, labels = read_labels_csv(table)
    assert labels == ("ant", "1", "cat")
    assert images.targets.tolist() == [2, 0]
    assert [path.name for path in images.paths] == ["a.png", "b.png"]


def test_a_table_with_words_is_read(tmp_path):
    images, labels = read_labels_csv(write_table(tmp_path, "file,label\nimages/a.png,dog\nimages/b.png,cat\n"))
    assert labels == ("cat", "dog")
    assert images.targets.tolist() == [1, 0]


def test_a_table_is_an_evaluation_set_unless_a_split_is_asked_for(tmp_path):
    files = [f"images/{number}.png" for number in range(10)]
    write_table(tmp_path, "file,index\n" + "".join(f"{file},{i}\n" for i, file in enumerate(files)), files)
    whole = open_dataset(tmp_path)
    assert len(whole.train.targets) == len(whole.evaluation.targets) == 10
    assert not whole.held_out
    parted = open_dataset(tmp_path, eval_fraction=0.5)
    assert parted.held_out
    assert not set(parted.train.targets.tolist()) & set(parted.evaluation.targets.tolist())
    assert len(parted.labels) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,index\nimages/a.png,0\nimages/gone.png,1\n", r"line 3: the file 'images/gone.png' is not there"),
        ("file,index\n../a.png,0\n", r"the file is '../a.png'; allowed is a path below"),
        ("file,index\n/etc/a.png,0\n", "allowed is a path below"),
        ("file,index\nimages/a.png,-1\n", "the class index is '-1'; allowed is a whole number from 0"),
        ("file,index\nimages/a.png,99999999999\n", "the class index is '99999999999'"),
        ("file,index\nimages/a.png\n", "another number of fields than the header"),
        ("file,index\nimages/a.png,0,7\n", "another number of fields than the header"),
        ("path,index\nimages/a.png,0\n", r"has the columns \['path', 'index'\]; needed are 'file'"),
        ("file,index\n", "has no rows"),
        ("file,index\nimages/a.png,0\n", "names one class only"),
        ("", "has the columns"),
        ('file,index\n"images/a.png,0\n', "cannot be read as a table"),
    ],
)
def test_a_malformed_table_is_refused_by_row(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_labels_csv(write_table(tmp_path, text))


def test_a_missing_row_file_is_missing_data(tmp_path):
    with pytest.raises(MissingDataError):
        read_labels_csv(write_table(tmp_path, "file,index\nimages/gone.png,1\n"))
