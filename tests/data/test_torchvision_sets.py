"""torchvision's data sets by name, with files as torchvision expects them."""

import struct

import numpy as np
import pytest
import torchvision

from tenfold.data import open_dataset
from tenfold.data.torchvision_sets import NAMES
from tenfold.errors import MissingDataError, UnknownNameError


def write_mnist(root, name="MNIST"):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return images


def test_a_set_is_read_from_tenfold_data(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    images = write_mnist(tmp_path)
    dataset = open_dataset("torchvision:mnist")
    assert len(dataset.labels) == 10
    assert dataset.channels == 1
    assert dataset.size == 28
    assert not dataset.flip
    np.testing.assert_array_equal(dataset.evaluation.pixels[:, 0], images)
    assert dataset.train.targets.tolist() == [number % 10 for number in range(30)]


def test_channels_last_and_labels_are_understood(monkeypatch, tmp_path):
    class Fake:
        classes = ("a", "b")

        def __init__(self, root, train, download):
            self.data = np.arange(2 * 5 * 5 * 3).reshape(2, 5, 5, 3).astype(np.uint8)
            self.labels = [0, 1]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    dataset = open_dataset("torchvision:CIFAR10")
    assert dataset.labels == ("a", "b")
    np.testing.assert_array_equal(dataset.train.pixels, Fake("", True, True).data.transpose(0, 3, 1, 2))


def test_every_name_is_one_of_torchvision():
    assert all(hasattr(torchvision.datasets, name) for name in NAMES)


def test_a_set_that_cannot_be_fetched_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "empty"))

    def offline(*_, **__):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    with pytest.raises(MissingDataError, match=r"MNIST is not in .*empty and could not be fetched"):
        open_dataset("torchvision:MNIST")


def test_an_unknown_set_is_refused():
    with pytest.raises(UnknownNameError, match=r"Did you mean .*MNIST"):
        open_dataset("torchvision:EMNISTT")
