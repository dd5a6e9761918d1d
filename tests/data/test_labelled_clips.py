"""Clips with labels: which frames are taken, that those of a clip are varied alike, and what a folder may hold."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data import Augmentation, Draws, Preprocess
from tenfold.data.clip_sources import PictureFolder, VideoFile, open_clip_source
from tenfold.data.labelled_clips import LabelledClips, open_labelled_clips
from tenfold.errors import DataError, MissingDataError, UnknownNameError

LOOK = Preprocess(size=16, resize=16, mean=(0.5,), std=(0.25,), channels=1)


class Numbered:
    """A clip of six frames, each of one brightness: its number times ten."""

    def read(self, shares):
        return [Image.new("L", (20, 16), 10 * int(share * 6)) for share in shares]


class Still:
    """A clip that does not move, of random pixels."""

    def read(self, shares):
        noise = np.random.default_rng(3).integers(0, 256, (16, 20), np.uint8)
        return [Image.fromarray(noise)] * len(shares)


def test_evaluation_takes_the_middle_of_each_part_and_training_any_frame_of_it():
    clips = LabelledClips([Numbered(), Numbered()], [0, 1], 3)
    assert clips.framed(np.array([0, 1]), LOOK)[:, 0, 0, 0].tolist() == [10, 30, 50] * 2
    seen = set()
    for epoch in range(30):
        draws = Draws(0, epoch, np.array([0, 1]))
        frames = clips.varied(np.array([0, 1]), LOOK, Augmentation(), draws)[:, 0, 0, 0].reshape(2, 3)
        again = clips.varied(np.array([0, 1]), LOOK, Augmentation(), draws)[:, 0, 0, 0].reshape(2, 3)
        assert np.array_equal(frames, again)
        assert (frames // 20 == np.arange(3)).all()  # each from its own part
        seen |= set(frames.reshape(-1).tolist())
    assert seen == {0, 10, 20, 30, 40, 50}


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_the_frames_of_a_clip_are_varied_alike_and_those_of_another_are_not(crop):
    clips = LabelledClips([Still(), Still()], [0, 1], 4)
    augmentation = Augmentation(crop=crop, padding=4, flip=True)
    batch = clips.varied(np.array([0, 1]), LOOK, augmentation, Draws(1, 0, np.array([0, 1]))).reshape(2, 4, 1, 16, 16)
    assert (batch == batch[:, :1]).all()
    assert not np.array_equal(batch[0], batch[1])


def save_pictures(folder, levels):
    folder.mkdir(parents=True)
    for number, level in enumerate(levels):
        Image.new("RGB", (24, 20), (level,) * 3).save(folder / f"{number}.png")


def test_a_class_folder_holds_videos_and_folders_of_pictures(tmp_path):
    pytest.importorskip("av", reason="needs the extra video")
    from video_files import moving_square, write_video

    for label in ("jump", "run"):
        save_pictures(tmp_path / label / "b", [0, 50, 100, 150])
        write_video(tmp_path / label / "a.mp4", moving_square(count=7))
        (tmp_path / label / "notes.txt").write_text("no clip")
    whole = open_labelled_clips(tmp_path, 2, eval_fraction=0)
    assert whole.labels == ("jump", "run")
    assert whole.train.targets.tolist() == [0, 0, 1, 1]
    frames = whole.train.clips[0].read(np.array([0.0, 0.5, 0.999]))
    for frame, index in zip(frames, (0, 3, 6), strict=True):
        wanted = moving_square(count=7)[index].astype(int)
        assert np.abs(np.asarray(frame).astype(int) - wanted).mean() < 8  # 4:2:0
    assert whole.train.framed(np.array([1]), LOOK)[:, 0, 0, 0].tolist() == [50, 150]
    assert not whole.held_out
    parted = open_labelled_clips(tmp_path, 2, eval_fraction=0.5)
    assert parted.train.targets.tolist() == parted.evaluation.targets.tolist() == [0, 1]


def test_parts_of_its_own_are_kept_and_share_their_classes(tmp_path):
    for part, labels in (("train", "ab"), ("val", "b")):
        for label in labels:
            save_pictures(tmp_path / part / label / "clip", [10, 20])
    found = open_labelled_clips(tmp_path, 1)
    assert (found.train.targets.tolist(), found.evaluation.targets.tolist()) == ([0, 1], [1])
    save_pictures(tmp_path / "val" / "c" / "clip", [10])
    with pytest.raises(DataError, match="has the class 'c', which the training part does not have"):
        open_labelled_clips(tmp_path, 1)


def test_what_is_no_data_is_told(tmp_path):
    with pytest.raises(UnknownNameError, match="nowhere"):
        open_labelled_clips("nowhere", 1)
    with pytest.raises(DataError, match=r"has 0 class folders \[\]; expected are at least two"):
        open_labelled_clips(tmp_path, 1)
    save_pictures(tmp_path / "a" / "clip", [1])
    (tmp_path / "b").mkdir()
    with pytest.raises(MissingDataError, match="the class 'b' is empty"):
        open_labelled_clips(tmp_path, 1)
    with pytest.raises(MissingDataError, match="holds no pictures"):
        open_clip_source(tmp_path / "b")


def test_a_damaged_video_is_named(tmp_path):
    pytest.importorskip("av", reason="needs the extra video")
    from video_files import write_video

    whole = write_video(tmp_path / "whole.mkv")
    (tmp_path / "half.mkv").write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"half\.mkv"):
        open_clip_source(tmp_path / "half.mkv").read(np.array([0.5]))
    assert len(VideoFile(tmp_path / "half.mkv", "skip").read(np.array([0.1, 0.9]))) == 2


def test_a_picture_is_a_clip_of_one_frame(tmp_path):
    save_pictures(tmp_path / "clip", [77])
    source = open_clip_source(tmp_path / "clip" / "0.png")
    assert isinstance(source, PictureFolder)
    assert [np.asarray(frame)[0, 0, 0] for frame in source.read(np.array([0.1, 0.9]))] == [77, 77]
