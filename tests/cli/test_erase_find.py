"""`tenfold erase --find --class`: what a network takes for a class is gone, the rest stays."""

import numpy as np
import pytest

from tenfold.cli import finding_network
from tenfold.cli.erase_order import EraseOrder
from tenfold.data.video import VideoReader
from tenfold.video.segment import Seen
from video_files import moving_square, write_video

COUNT = 6


class SeesTheSquare:
    """Finds the bright square, takes it for a dog in one frame; and finds a tree that stands still."""

    categories = {1: "car", 2: "dog", 3: "tree"}  # noqa: RUF012
    engine = None

    def reserve(self, names):
        assert not list(names)

    def start(self, height, width):
        self.frame = 0

    def step(self, frame, given=()):
        square, tree = frame[..., :2].min(-1) > 215, np.zeros(frame.shape[:2], np.bool_)
        tree[30:40, 40:50] = True
        self.frame += 1
        return {1: Seen(square, 2 if self.frame == 3 else 1, 0.9), 2: Seen(tree, 3, 0.8)}


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding_network, "open_segmenter", lambda path, **options: SeesTheSquare())
    return write_video(tmp_path / "clip.mp4", moving_square(COUNT), exact=True)


def changed(clip, out):
    with VideoReader(clip) as one, VideoReader(out) as other:
        pairs = zip(one, other, strict=True)
        return np.stack([(before.image != after.image).any(-1) for before, after in pairs])


def test_every_track_that_is_mostly_of_the_class_is_erased_and_no_other(tenfold, clip, tmp_path):
    words = ("--find", "run", "--preset", "fast", "--dilate", "3", "--lossless", "--json")
    outcome = tenfold("erase", clip, *words, "--class", "car", "-o", "cars.mp4")
    assert outcome.code == 0, outcome.err
    car = changed(clip, tmp_path / "cars.mp4")
    for number in range(COUNT):
        assert car[number, 14:22, 2 * number + 2 : 2 * number + 14].mean() > 0.9  # the frame with the dog, too
    assert not car[:, 30:].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cars.mp4", "clip.mp4"]
    both = tenfold("erase", clip, *words, "--class", "car", "--class", "tree", "-o", "both.mp4")
    assert both.json["hole_pixels"] > outcome.json["hole_pixels"]
    none = tenfold("erase", clip, *words, "--class", "dog", "-o", "dogs.mp4")
    assert none.code == 0
    assert none.json["hole_pixels"] == 0
    assert not changed(clip, tmp_path / "dogs.mp4").any()


@pytest.mark.parametrize(("changed", "resumed"), [(None, 2), ("run", 0), ("fill.onnx", 0), ("artifact.safetensors", 0)])
def test_a_network_that_was_changed_begins_anew(
    tenfold, clip, tmp_path, monkeypatch, stopped_erasing, changed, resumed
):
    for name in ("run", "artifact.safetensors", "fill.onnx"):
        (tmp_path / name).write_bytes(b"a network")
    monkeypatch.setattr(EraseOrder, "filling", lambda *words, **options: None)
    words = ("--find", "run", "--class", "car", "--network", "fill.onnx", "--preset", "fast", "-o", "out.mp4", "--json")
    with stopped_erasing():
        assert tenfold("erase", clip, *words).code == 130
    if changed is not None:
        (tmp_path / changed).write_bytes(b"another network")
    assert tenfold("erase", clip, *words).json["resumed_from"] == resumed


def test_the_engine_must_run_the_network_that_finds(tenfold, clip, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    words = ("erase", clip, "--class", "car", "-o", "out.mp4")
    assert "run is none. Give the file of its step" in tenfold(*words, "--find", "run", "--engine", "openvino").words
    refused = tenfold(*words, "--find", "step.onnx", "--engine", "torch")
    assert "step.onnx runs in ONNX Runtime or OpenVINO on the CPU; for PyTorch give the artifact" in refused.words
    assert "there is no file step.onnx" in tenfold(*words, "--find", "step.onnx").words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--find", "run", "--class", "cat"), "the network finds no class 'cat'; it finds: car, dog, tree"),
        (("--class", "car"), "--find and --class go together"),
        (("--find", "run"), "--find and --class go together"),
        (("--find", "run", "--class", "car", "--moving"), "in more than one way"),
    ],
)
def test_what_makes_no_sense_is_refused(tenfold, clip, tmp_path, words, message):
    outcome = tenfold("erase", clip, *words, "-o", "out.mp4")
    assert outcome.code == 2
    assert message in outcome.words
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
