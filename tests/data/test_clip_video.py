"""Frames and masks from files and folders, side by side; and one clear message for each way they do not fit."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tenfold.data.clip_video import ClipMasks, PictureVideo, masked_frames, open_clip_video, read_hole
from tenfold.data.video import VideoReader
from tenfold.errors import DataError, MissingDataError, UsageError
from video_files import moving_square, write_video

HEIGHT, WIDTH = 48, 64


def write_pictures(folder, count, *, size=(WIDTH, HEIGHT), mode="L", pattern="{:05d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new(mode, size, number if mode == "L" else (number,) * 3).save(folder / pattern.format(number))
    return folder


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path / "clip/frames", 4, mode="RGB")
    write_pictures(tmp_path / "clip/masks", 4)
    return tmp_path / "clip"


@pytest.fixture
def file(tmp_path):
    return write_video(tmp_path / "clip.mp4", moving_square(4))


def pairs(place, masks, **options):
    with open_clip_video(place, **options) as video, ClipMasks(masks, video) as found:
        return list(masked_frames(video, found))


def test_a_folder_brings_its_own_masks_and_times(folder):
    read = pairs(folder, None, rate=Fraction(30000, 1001))
    assert [frame.image[0, 0, 0] for frame, _ in read] == [0, 1, 2, 3]
    assert [bool(mask.all()) for _, mask in read] == [False, True, True, True]
    assert read[3][0].time == Fraction(3 * 1001, 30000)


def test_masks_of_a_folder_are_found_by_name_or_by_their_order(folder, tmp_path):
    by_name = write_pictures(tmp_path / "more", 6)
    assert [int(mask.sum() > 0) for _, mask in pairs(folder, by_name)] == [0, 1, 1, 1]
    by_order = write_pictures(tmp_path / "other", 4, pattern="mask_{}.png")
    assert len(pairs(folder, by_order)) == 4


def test_a_file_takes_masks_from_a_folder_a_video_or_one_picture(file, tmp_path):
    assert len(pairs(file, write_pictures(tmp_path / "masks", 4))) == 4
    light = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
    light[:, 10:20, 30:50] = 255
    read = pairs(file, write_video(tmp_path / "masks.mp4", light))
    expected = light[..., 0] > 0
    assert np.mean([(mask != hole).mean() for (_, mask), hole in zip(read, expected, strict=True)]) < 0.01
    Image.fromarray(light[0, ..., 0]).save(tmp_path / "logo.png")
    assert all((mask == expected[0]).all() for _, mask in pairs(file, tmp_path / "logo.png"))


def test_a_file_is_read_as_it_is(file):
    video = open_clip_video(file)
    assert isinstance(video, VideoReader)
    video.close()
    with pytest.raises(UsageError, match="has its own times"):
        open_clip_video(file, rate=Fraction(25))


@pytest.mark.parametrize("count", [2, 6])
def test_another_number_of_masks_than_frames_is_refused_before_any_work(file, tmp_path, count):
    with (
        pytest.raises(DataError, match=f"there are {count} masks in .* but the video has 4 frames"),
        open_clip_video(file) as video,
    ):
        ClipMasks(write_pictures(tmp_path / "masks", count), video)


@pytest.mark.parametrize(("count", "message"), [(2, "there are 2 masks in"), (6, "more masks in .* than the 4 frames")])
def test_a_video_of_masks_that_ends_elsewhere_is_noticed(folder, tmp_path, count, message):
    masks = write_video(tmp_path / "masks.mp4", np.zeros((count, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=message):
        pairs(folder, masks)


def test_a_frame_without_a_mask_is_named(folder, tmp_path):
    with pytest.raises(MissingDataError, match=r"the frame 00002\.png has no mask .* 2 of 4 frames have none"):
        pairs(folder, write_pictures(tmp_path / "few", 2))
    (folder / "masks/00003.png").unlink()
    with pytest.raises(MissingDataError, match=r"frame 3 .* has no mask"):
        pairs(folder, None)


def test_masks_of_another_size_are_named(folder, file, tmp_path):
    masks = write_pictures(tmp_path / "masks", 4)
    Image.new("L", (10, 12)).save(masks / "00003.png")
    message = r"00003\.png has 10 x 12 pixels, but the frames have 64 x 48"
    for place, named in ((folder, masks), (file, masks), (file, masks / "00003.png")):
        with open_clip_video(place) as video, pytest.raises(DataError, match=message):
            ClipMasks(named, video)  # before any work
    Image.new("L", (10, 12)).save(folder / "masks/00003.png")
    with open_clip_video(folder) as video, pytest.raises(DataError, match=message):
        ClipMasks(None, video)
    with pytest.raises(DataError, match=r"masks\.mp4 has 32 x 24 pixels"):
        pairs(folder, write_video(tmp_path / "masks.mp4", moving_square(4, 24, 32)))


def test_a_mask_that_is_turned_has_the_size_that_it_is_shown_at(file, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.jpg"):
        Image.new("L", (HEIGHT, WIDTH), 255).save(tmp_path / name, exif=exif)
        assert all(mask.all() for _, mask in pairs(file, tmp_path / name))


def test_masks_may_be_grey_coloured_transparent_or_jpeg(tmp_path):
    values = np.zeros((16, 16), np.uint8)
    values[4:8, 4:8] = 255
    image = Image.fromarray(values)
    image.save(tmp_path / "grey.png")
    Image.fromarray((values > 0).astype(np.uint8)).save(tmp_path / "ones.png")
    Image.fromarray(values > 0).save(tmp_path / "bits.png")
    Image.fromarray(values.astype(np.uint16) * 3).save(tmp_path / "wide.png")
    image.convert("P").save(tmp_path / "palette.png")
    Image.merge("RGB", (image, Image.new("L", (16, 16)), Image.new("L", (16, 16)))).save(tmp_path / "red.png")
    image.save(tmp_path / "lossy.jpg", quality=60)
    Image.merge("LA", (Image.new("L", (16, 16), 255), image)).save(tmp_path / "transparent.png")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_hole(path), values > 0, err_msg=path.name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "grey.png").read_bytes()[:50])
    with pytest.raises(DataError, match="broken"):
        read_hole(tmp_path / "broken.png")


def test_what_is_missing_is_said(file, folder, tmp_path):
    with pytest.raises(MissingDataError, match="what is to be filled"):
        pairs(file, None)
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingDataError, match="holds no masks"):
        pairs(folder, tmp_path / "none")
    with pytest.raises(MissingDataError):
        pairs(folder, tmp_path / "nowhere.png")
    with pytest.raises(UsageError, match="a rate of 0"):
        open_clip_video(folder, rate=Fraction(0))
    assert isinstance(open_clip_video(folder), PictureVideo)
