"""Clips in folders: every layout, the order of time, and one clear message for each thing that can be wrong."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data import open_clip, open_clips
from tenfold.errors import DataError, MissingDataError


def write_frames(folder, count, size=(12, 8), first=0, pattern="{:05d}.png", mode="RGB"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture = Image.new(mode, size, (number,) * 3 if mode == "RGB" else number)
        picture.save(folder / pattern.format(number))


def write_davis(folder, names, resolution="480p"):
    for name in names:
        write_frames(folder / "JPEGImages" / resolution / name, 3)
        write_frames(folder / "Annotations" / resolution / name, 3, mode="L")


def test_frames_and_masks_are_one_clip(tmp_path):
    write_frames(tmp_path / "walk/frames", 4)
    write_frames(tmp_path / "walk/masks", 2, first=1, mode="L")
    clip = open_clip(tmp_path / "walk")
    assert (clip.name, len(clip), clip.height, clip.width, sorted(clip.masks)) == ("walk", 4, 8, 12, [1, 2])
    frames, objects = clip.read(1, 3)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(objects[:, 0, 0], [True, True, False])
    frames, objects = clip.read(0, 2, (4, 6))
    assert frames.shape == (2, 4, 6, 3)
    assert objects.shape == (2, 4, 6)


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution", ""])
def test_davis_is_found_with_and_without_its_resolution(tmp_path, resolution):
    write_davis(tmp_path, ["tennis", "bmx"], resolution)
    clips = open_clips(tmp_path)
    assert [clip.name for clip in clips] == ["bmx", "tennis"]
    assert all(len(clip.masks) == 3 for clip in clips)


def test_folders_of_clips_are_searched_one_level_down(tmp_path):
    write_frames(tmp_path / "a/frames", 2)
    write_frames(tmp_path / "b", 3)
    (tmp_path / "notes").mkdir()
    assert [(clip.name, len(clip)) for clip in open_clips(tmp_path)] == [("a", 2), ("b", 3)]
    with pytest.raises(DataError, match="2 clips"):
        open_clip(tmp_path)


def test_frames_follow_their_numbers_and_not_the_alphabet(tmp_path):
    write_frames(tmp_path, 11, pattern="f{}.png")
    clip = open_clip(tmp_path)
    assert [path.stem for path in clip.frames] == [f"f{number}" for number in range(11)]


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="no data folder"):
        open_clips(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="holds no clip"):
        open_clips(tmp_path / "empty")
    (tmp_path / "bare/frames").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="no frames"):
        open_clips(tmp_path / "bare")
    write_frames(tmp_path / "stray/frames", 2)
    write_frames(tmp_path / "stray/masks", 2, first=1, mode="L")
    with pytest.raises(DataError, match=r"00002\.png belongs to no frame"):
        open_clips(tmp_path / "stray")
    write_frames(tmp_path / "twice", 1)
    write_frames(tmp_path / "twice", 1, pattern="{:05d}.bmp")
    with pytest.raises(DataError, match="there twice"):
        open_clips(tmp_path / "twice")


def test_masks_beyond_the_last_frame_do_no_harm(tmp_path):
    write_frames(tmp_path / "frames", 2)
    write_frames(tmp_path / "masks", 5, mode="L")
    assert sorted(open_clip(tmp_path).masks) == [0, 1]


def test_sizes_and_lengths_are_checked(tmp_path):
    write_frames(tmp_path / "frames", 2)
    write_frames(tmp_path / "frames", 1, first=2, size=(10, 8))
    write_frames(tmp_path / "masks", 1, size=(6, 4), mode="L")
    clip = open_clip(tmp_path)
    with pytest.raises(DataError, match="10 x 8 pixels, but the clip's first frame has 12 x 8"):
        clip.read_frame(2)
    with pytest.raises(DataError, match=r"the mask .* has 6 x 4"):
        clip.read_mask(0)
    with pytest.raises(MissingDataError, match=r"frame 1 .* has no mask"):
        clip.read_mask(1)
    with pytest.raises(DataError, match="has 3 frames, but 3 from frame 1"):
        clip.read(1, 3)


def test_the_real_clips_are_read(shared):
    clips = {clip.name: clip for clip in open_clips(shared / "data/video")}
    frames, objects = clips["davis_tennis"].read(0, 2, (128, 224))
    assert frames.shape == (2, 128, 224, 3)
    assert 0.005 < objects.mean() < 0.2
