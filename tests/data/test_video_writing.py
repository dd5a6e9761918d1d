"""Video files are written whole or not at all, with each frame at its time and the sound as it was."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from tenfold.data.video import VideoInfo, VideoReader
from tenfold.data.video_writing import VideoWriter
from tenfold.errors import DataError, MissingDataError, ShapeError, StorageError, UsageError
from video_files import moving_square, sound_packets, write_video, write_with_sound

INFO = VideoInfo(
    height=48, width=64, rate=Fraction(25), frames=None, time_base=Fraction(1, 1000), pixel_aspect=Fraction(1),
    codec="h264", has_sound=False,
)  # fmt: skip


def copy(source, target, **options):
    with VideoReader(source) as video, VideoWriter(target, video.info, **options) as writer:
        for frame in video:
            writer.write(frame)


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.to_ndarray(format="rgb24"), frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_lossless_frames_and_their_variable_times_come_back_exactly(tmp_path, suffix):
    frames, times = moving_square(), [0, 40, 50, 300, 301, 900, 2000, 2001]
    source = write_video(tmp_path / "a.mkv", frames, exact=True, pts=times, time_base=Fraction(1, 1000))
    copy(source, tmp_path / f"b{suffix}", lossless=True)
    images, got = zip(*decoded(tmp_path / f"b{suffix}"), strict=True)
    np.testing.assert_array_equal(images, frames)
    assert got == tuple(Fraction(time, 1000) for time in times)


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (33, 31), (16, 16)])
def test_any_size_is_written_and_looks_as_before(tmp_path, size):
    frames = moving_square(4, *size)
    with VideoWriter(tmp_path / "a.mp4", dataclasses.replace(INFO, height=size[0], width=size[1])) as writer:
        for index, frame in enumerate(frames):
            writer.write_image(frame, 40 * index)
    images = np.stack([image for image, _ in decoded(tmp_path / "a.mp4")])
    assert images.shape == frames.shape
    assert np.abs(images.astype(int) - frames).mean() < 8


def test_grey_levels_and_colours_are_kept_by_any_reader(tmp_path):
    colours = np.array(
        [[0, 0, 0], [255, 255, 255], [128, 128, 128], [200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8
    )
    frame = np.repeat(colours[None].repeat(48, 0), 16, axis=1)[:, :96]
    with VideoWriter(tmp_path / "a.mp4", dataclasses.replace(INFO, width=96), quality=0) as writer:
        writer.write_image(frame, 0)
    with VideoReader(tmp_path / "a.mp4") as video:
        got = next(iter(video)).image
    assert np.abs(got[24, 8::16].astype(int) - colours).max() <= 4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_sound_is_copied_packet_by_packet(tmp_path, suffix, codec):
    source = write_with_sound(tmp_path / "a.mp4", codec=codec)
    copy(source, tmp_path / f"b{suffix}", sound_from=source)
    before, after = sound_packets(source), sound_packets(tmp_path / f"b{suffix}")
    if suffix == ".mkv":  # has no place for what an encoder puts before the start
        before = [packet for packet in before if packet[1] >= 0]
    assert [content for content, _ in after] == [content for content, _ in before]
    assert len(before) > 5
    exact = 0 if suffix == ".mp4" else Fraction(1, 1000)
    assert max(abs(one - other) for (_, one), (_, other) in zip(before, after, strict=True)) <= exact
    assert [time for _, time in decoded(tmp_path / f"b{suffix}")] == [Fraction(index, 25) for index in range(8)]


def test_sound_and_frames_keep_their_distance_when_the_file_starts_late(tmp_path):
    source = write_with_sound(tmp_path / "a.ts")
    copy(source, tmp_path / "b.mp4", sound_from=source)
    lag = [sound_packets(path)[0][1] - decoded(path)[0][1] for path in (source, tmp_path / "b.mp4")]
    assert abs(lag[0] - lag[1]) < Fraction(1, 1000)


def test_sound_and_frames_are_interleaved(tmp_path):
    source = write_with_sound(tmp_path / "a.mp4", np.repeat(moving_square(1), 75, 0), seconds=3)
    copy(source, tmp_path / "b.mkv", sound_from=source)
    with av.open(str(tmp_path / "b.mkv")) as container:
        order = [(one.stream.type, float(one.dts * one.time_base)) for one in container.demux() if one.dts is not None]
    latest = {"audio": 0.0, "video": 0.0}
    for kind, time in order:
        latest[kind] = time
        assert abs(latest["audio"] - latest["video"]) < 0.5 or min(latest.values()) > 2.5


def test_a_file_without_sound_has_none_to_copy(tmp_path):
    source = write_video(tmp_path / "a.mp4")
    copy(source, tmp_path / "b.mp4", sound_from=source)
    assert len(decoded(tmp_path / "b.mp4")) == 8


def test_pixel_aspect_and_the_last_duration_are_kept(tmp_path):
    info = dataclasses.replace(INFO, pixel_aspect=Fraction(4, 3))
    with VideoWriter(tmp_path / "a.mp4", info) as writer:
        writer.write_image(moving_square(1)[0], 0, 500)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert video.info.pixel_aspect == Fraction(4, 3)
        frame = next(iter(video))
        assert frame.duration * video.info.time_base == Fraction(1, 2)


def write_and_fail(path, error):
    with VideoWriter(path, INFO) as writer:
        writer.write_image(moving_square(1)[0], 0)
        raise error


def test_an_error_leaves_nothing_and_what_stood_there_stays(tmp_path):
    (tmp_path / "a.mp4").write_text("before")
    for error in (RuntimeError("stop"), FileNotFoundError("gone"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write_and_fail(tmp_path / "a.mp4", error)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "before"


def test_a_source_that_is_damaged_midway_leaves_nothing(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        copy(path, tmp_path / "b.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mkv"]


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no frame was written"), VideoWriter(tmp_path / "a.mp4", INFO):
        pass
    assert not list(tmp_path.iterdir())


def test_wrong_frames_are_refused(tmp_path):
    frame = moving_square(1)[0]
    with (
        pytest.raises(ShapeError, match=r"a frame is float64 \(48, 64, 3\)"),
        VideoWriter(tmp_path / "a.mp4", INFO) as writer,
    ):
        writer.write_image(frame.astype(float), 0)
    with (
        pytest.raises(ShapeError, match=r"uint8 \(24, 64, 3\), but the video is"),
        VideoWriter(tmp_path / "a.mp4", INFO) as writer,
    ):
        writer.write_image(frame[:24], 0)
    with VideoWriter(tmp_path / "a.mp4", INFO) as writer:
        writer.write_image(frame, 5)
        with pytest.raises(UsageError, match="the frame at 5 does not come after the one at 5"):
            writer.write_image(frame, 5)


def test_what_cannot_be_written_is_refused_at_the_start(tmp_path):
    with pytest.raises(UsageError, match=r"ends in '\.webm'; a video is written as \.mp4, \.m4v, \.mov, \.mkv"):
        VideoWriter(tmp_path / "a.webm", INFO)
    with pytest.raises(UsageError, match="quality 60 is not allowed"):
        VideoWriter(tmp_path / "a.mp4", INFO, quality=60)
    with pytest.raises(UsageError, match="0 x 48 cannot be written"):
        VideoWriter(tmp_path / "a.mp4", dataclasses.replace(INFO, width=0))
    with pytest.raises(MissingDataError, match="no video at"):
        VideoWriter(tmp_path / "a.mp4", INFO, sound_from=tmp_path / "none.mp4")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not write"):
        VideoWriter(tmp_path / "file" / "a.mp4", INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sound_that_the_container_cannot_hold_is_refused_with_a_way_out(tmp_path):
    source = write_with_sound(tmp_path / "a.mkv", codec="pcm_u8")
    with pytest.raises(UsageError, match=r"coded in 'pcm_u8', which a file ending in \.mp4 cannot hold .* Write \.mkv"):
        copy(source, tmp_path / "b.mp4", sound_from=source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    copy(source, tmp_path / "b.mkv", sound_from=source)
    assert sound_packets(tmp_path / "b.mkv")


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_file_that_was_recorded_turned_is_written_turned(tmp_path, quarters, mirrored, ending):
    degrees = (quarters * 90 + 180) % 360 - 180
    source = write_video(tmp_path / "in.mp4", moving_square(3), exact=True, turn=(degrees, mirrored, False))
    with VideoReader(source) as video:
        frames = list(video)
        assert video.info.turn == (quarters, mirrored)
        with VideoWriter(tmp_path / f"out{ending}", video.info, lossless=True) as writer:
            for frame in frames:
                writer.write(frame)
    with VideoReader(tmp_path / f"out{ending}") as video:
        assert video.info.turn == (quarters, mirrored)
        for frame, expected in zip(video, frames, strict=True):
            np.testing.assert_array_equal(frame.image, expected.image)


def test_full_range_stays_full_range(tmp_path):
    levels = np.arange(64, dtype=np.uint8) * 4
    frames = np.broadcast_to(levels[None, None, :, None], (3, 48, 64, 3)).copy()
    for full in (True, False):
        with VideoWriter(tmp_path / "out.mp4", dataclasses.replace(INFO, full_range=full), quality=0) as writer:
            for at, image in enumerate(frames):
                writer.write_image(image, at)
        with VideoReader(tmp_path / "out.mp4") as video:
            assert video.info.full_range == full
            for frame in video:
                assert np.abs(frame.image.astype(int) - frames[0]).max() <= 4
