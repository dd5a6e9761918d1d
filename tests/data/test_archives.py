"""Archives of images: decoded once, kept, and never trusted."""

import io
import json
import logging
import tarfile

import numpy as np
import pytest
from PIL import Image

from tenfold.data import archives, cache_folder, open_dataset
from tenfold.data.archives import decode_archive, load_archive
from tenfold.errors import DataError, MissingDataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def jpeg(shade, size=(6, 5)):
    content = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(content, "JPEG", quality=100)
    return content.getvalue()


def write_archive(path, members):
    """Members are (name, bytes), or whole TarInfo objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def small(path, names=("train/dog/2.jpg", "train/cat/1.jpg", "train/cat/0.jpg"), size=(6, 5)):
    return write_archive(path, [(name, jpeg(20 * place, size)) for place, name in enumerate(names)])


def directory(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.gz", ".tar"])
def test_images_come_sorted_by_class_and_name(tmp_path, suffix):
    members = [
        directory("train"),
        directory("train/cat"),
        ("train/README.txt", b"hello"),
        ("train/cat/._0.jpg", b"mac"),
    ]
    images = [(f"train/{name}.jpg", jpeg(shade)) for name, shade in (("dog/2", 0), ("cat/1", 20), ("cat/0", 40))]
    pixels, targets, labels = decode_archive(write_archive(tmp_path / f"train{suffix}", members + images))
    assert labels == ("cat", "dog")
    assert targets.tolist() == [0, 0, 1]
    assert pixels.shape == (3, 3, 5, 6)
    assert pixels[:, 1, 2, 3].tolist() == [40, 20, 0]


def test_an_archive_is_decoded_once(tmp_path, cache, monkeypatch):
    path, told = small(tmp_path / "train.tar.xz"), []
    first, labels = load_archive(path, told.append)
    assert told[-1] == 1.0
    monkeypatch.setattr(archives, "decode_archive", lambda *_: pytest.fail("decoded again"))
    second, labels_again = load_archive(path)
    assert labels == labels_again == ("cat", "dog")
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.targets, second.targets)
    assert isinstance(second.pixels, np.memmap)
    assert not list(cache.rglob("*.part"))


@pytest.mark.parametrize("file", ["pixels.npy", "targets.npy", "index.json"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_cache_is_made_again(tmp_path, cache, file, keep):
    path = small(tmp_path / "train.tar.xz")
    expected = load_archive(path)[0].pixels.copy()
    (kept,) = cache.rglob(file)
    kept.write_bytes(kept.read_bytes()[: int(keep * kept.stat().st_size)])
    np.testing.assert_array_equal(load_archive(path)[0].pixels, expected)


def test_another_archive_of_the_same_name_has_a_cache_of_its_own(tmp_path):
    first = load_archive(small(tmp_path / "a" / "train.tar.xz"))
    second = load_archive(small(tmp_path / "b" / "train.tar.xz", ["train/x/0.jpg", "train/y/0.jpg"]))
    assert (first[1], second[1]) == (("cat", "dog"), ("x", "y"))


def test_a_cache_that_cannot_be_written_costs_only_the_time(tmp_path, cache, caplog):
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        images, _ = load_archive(small(tmp_path / "train.tar.xz"))
    assert len(images.targets) == 3
    assert "not kept" in caplog.text


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.gz", ".tar"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_an_archive_cut_short_is_named(tmp_path, cache, suffix, part):
    random = np.random.default_rng(0)
    path = tmp_path / f"train{suffix}"
    members = []
    for number in range(6):
        content = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(content, "JPEG")
        members.append((f"train/{number % 2}/{number}.jpg", content.getvalue()))
    write_archive(path, members)
    used = path.stat().st_size if suffix != ".tar" else 6 * 1536  # without the padding at the end
    path.write_bytes(path.read_bytes()[: int(part * used)])
    with pytest.raises(DataError, match=rf"train\{suffix}"):
        load_archive(path)
    assert not cache.exists()


def test_links_and_devices_are_refused(tmp_path):
    link = tarfile.TarInfo("train/cat/0.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(DataError, match=r"'train/cat/0.jpg' is a link or a device"):
        decode_archive(write_archive(tmp_path / "train.tar", [link]))


def test_names_that_point_elsewhere_write_nothing(tmp_path):
    path = small(tmp_path / "in" / "train.tar", ["../../cat/evil.jpg", "/dog/evil.jpg"])
    decode_archive(path)
    assert [found.name for found in tmp_path.rglob("*")] == ["in", "train.tar"]


def test_limits_hold_before_a_member_is_read(tmp_path, monkeypatch):
    path = small(tmp_path / "train.tar.xz")
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(DataError, match=r"allowed are .* members of at most 100 bytes"):
        decode_archive(path)
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 10_000)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match=r"'train/cat/0.jpg' is member 3"):
        decode_archive(path)
    monkeypatch.setattr(archives, "MAX_DECODED_BYTES", 100)
    with pytest.raises(DataError, match="Extract it and give the folder instead"):
        decode_archive(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no images"),
        ([("top.jpg", jpeg(0))], "'top.jpg' lies in no class folder"),
        ([("a/0.jpg", jpeg(0)), ("a/1.jpg", jpeg(0, (7, 5)))], "a/1.jpg is 7 x 5 pixels, but .* 6 x 5"),
        ([("a/0.jpg", jpeg(0)), ("a/1.jpg", jpeg(0)[:300])], "a/1.jpg in .* cannot be decoded"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        decode_archive(write_archive(tmp_path / "train.tar.xz", members))


def test_a_folder_with_two_archives_is_a_data_set(tmp_path):
    small(tmp_path / "set" / "train.tar.xz")
    small(tmp_path / "set" / "test.tar.xz", ["test/cat/0.jpg", "test/dog/0.jpg"])
    dataset = open_dataset(tmp_path / "set")
    assert dataset.labels == ("cat", "dog")
    assert (len(dataset.train.targets), len(dataset.evaluation.targets)) == (3, 2)
    assert dataset.mean == (0.078, 0.078, 0.078)  # (0 + 20 + 40) / 3 / 255


def test_archives_that_do_not_fit_together_are_refused(tmp_path):
    small(tmp_path / "set" / "train.tar.xz")
    with pytest.raises(MissingDataError, match=r"has train\.tar\.xz but no test"):
        open_dataset(tmp_path / "set")
    small(tmp_path / "set" / "test.tar.xz", ["test/cat/0.jpg", "test/eel/0.jpg"])
    with pytest.raises(DataError, match=r"test\.tar\.xz holds the classes \['cat', 'eel'\]"):
        open_dataset(tmp_path / "set")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_CACHE", "/somewhere")
    assert str(cache_folder()) == "/somewhere"
    monkeypatch.delenv("TENFOLD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tenfold"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tenfold"


def test_the_index_of_the_cache_is_plain_json(tmp_path, cache):
    load_archive(small(tmp_path / "train.tar.xz"))
    (index,) = cache.rglob("index.json")
    assert set(json.loads(index.read_text())) == {"layout", "sha256", "labels"}


def test_the_first_members_of_cifar10_decode(shared, tmp_path):
    """A few images of the real archive, repacked: the whole takes half a minute."""
    with tarfile.open(shared / "data" / "cifar10" / "test.tar.xz", "r|xz") as archive:
        found = []
        for member in archive:
            if member.isreg():
                found.append((member.name, archive.extractfile(member).read()))
            if len(found) == 5:
                break
    pixels, _, labels = decode_archive(write_archive(tmp_path / "test.tar.xz", found))
    assert pixels.shape == (5, 3, 32, 32)
    assert labels == ("airplane",)
    expected = np.asarray(Image.open(io.BytesIO(found[0][1])).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels[0], expected)
