"""What a user may call the data, and what is said when it is not there."""

import builtins
import importlib

import pytest
from PIL import Image

from tenfold.data import open_dataset
from tenfold.data.catalog import find_folder
from tenfold.errors import DataError, MissingDataError, MissingExtraError, UnknownNameError, UsageError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "root"))
    for name in ("cat", "dog"):
        folder = tmp_path / "root" / "pets" / name
        folder.mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
    return tmp_path / "root"


def test_a_name_is_looked_up_in_tenfold_data(root):
    assert open_dataset("pets").labels == ("cat", "dog")
    assert find_folder("pets") == root / "pets"


def test_an_existing_path_comes_first(root, tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_folder("pets").resolve() == (tmp_path / "pets").resolve()


def test_an_unknown_name_suggests_what_there_is(root):
    with pytest.raises(UnknownNameError, match=r"unknown data set 'petz'. Did you mean pets.*TENFOLD_DATA"):
        open_dataset("petz")
    with pytest.raises(UnknownNameError, match=r"Did you mean .*digits"):
        open_dataset("digit")
    with pytest.raises(UnknownNameError, match=r"Did you mean .*CIFAR100"):
        open_dataset("torchvision:CIFAR1000")


def test_an_unknown_name_says_where_to_put_data(monkeypatch):
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    with pytest.raises(UnknownNameError, match=r"TENFOLD_DATA \(not set\)"):
        open_dataset("petz")


def test_a_missing_folder_is_named(root, tmp_path):
    with pytest.raises(MissingDataError, match=r"no data folder at .*gone"):
        open_dataset(tmp_path / "gone")
    with pytest.raises(MissingDataError, match="no data folder at pets/gone"):
        open_dataset("pets/gone")


def test_a_name_does_not_climb_out_of_tenfold_data(root, tmp_path):
    (tmp_path / "secret").mkdir()
    with pytest.raises(MissingDataError):
        find_folder("../secret")


def test_a_file_is_no_folder(root):
    with pytest.raises(DataError, match=r"0\.png is a file; give the folder"):
        open_dataset(root / "pets" / "cat" / "0.png")


def test_a_folder_without_images_says_what_is_expected(tmp_path):
    with pytest.raises(MissingDataError, match=r"holds no image data. Expected is one of: train/"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 1, 2])
def test_an_impossible_split_is_refused(fraction):
    with pytest.raises(UsageError, match=r"eval_fraction is .*; allowed is 0 up to below 1"):
        open_dataset("digits", eval_fraction=fraction)


def test_missing_scikit_learn_is_named_with_its_command(monkeypatch):
    def missing(name, package=None):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(name="sklearn")
        return builtins.__import__(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[demo\]'"):
        open_dataset("digits")


def test_the_imagenet_samples_are_a_thousand_classes(shared):
    dataset = open_dataset(shared / "data" / "imagenet_samples")
    assert len(dataset.labels) == len(dataset.train.targets) == 1000
    assert dataset.labels[0] == "tench"
    assert dataset.evaluation.targets.tolist() == list(range(1000))
