"""Video files come in frame by frame, upright, in the right colours and at their times; everything else is refused."""

import contextlib
import io
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tenfold.data.video import VideoLimits, VideoReader
from tenfold.data.video_formats import declared_bytes
from tenfold.errors import DataError, MissingDataError, UsageError
from video_files import add_sound, add_video, moving_square, write_video, write_with_sound


def read(path, **options):
    with VideoReader(path, **options) as video:
        return video.info, list(video), video


def test_frames_come_back_exactly_and_in_order(tmp_path):
    frames = moving_square()
    info, got, _ = read(write_video(tmp_path / "a.mp4", frames, exact=True))
    np.testing.assert_array_equal([frame.image for frame in got], frames)
    assert [frame.index for frame in got] == list(range(8))
    assert [frame.time for frame in got] == [Fraction(index, 25) for index in range(8)]
    assert (info.height, info.width, info.rate, info.frames, info.codec) == (48, 64, 25, 8, "h264")
    assert not info.has_sound


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".ts", ".webm", ".gif", ".mpg", ".wmv", ".flv"])
def test_common_formats_are_read_whatever_the_ending(tmp_path, suffix):
    written = write_video(tmp_path / f"a{suffix}")
    _, got, video = read(written.rename(tmp_path / "a.unknown"))
    assert len(got) == 8
    assert video.damaged == 0
    error = np.abs(np.stack([frame.image for frame in got]).astype(int) - moving_square())
    assert error.mean() < (20 if suffix == ".gif" else 6)


RED_BLUE = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}


@pytest.mark.parametrize(
    ("height", "matrix", "full", "named"),
    [
        (48, 1, False, "BT.709"), (48, 5, False, "BT.601"), (48, 9, False, "BT.2020"), (48, 1, True, "BT.709"),
        (48, 5, True, "BT.601"), (48, 2, False, "BT.601"), (720, 2, False, "BT.709"),
    ],
)  # fmt: skip
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path, height, matrix, full, named):
    luma, blue, red = 120, 90, 180
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        stream.codec_context.color_range = 2 if full else 1
        stream.codec_context.colorspace = matrix
        frame = av.VideoFrame(64, height, "yuv444p")
        for plane, value in zip(frame.planes, (luma, blue, red), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    # ITU-R BT.601, BT.709 and BT.2020: luma is Kr R + Kg G + Kb B.
    kr, kb = RED_BLUE[named]
    y, cb, cr = (
        (luma / 255, (blue - 128) / 255, (red - 128) / 255)
        if full
        else ((luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224)
    )
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    expected = 255 * np.array([r, (y - kr * r - kb * b) / (1 - kr - kb), b])
    _, got, _ = read(tmp_path / "a.mkv")
    assert np.abs(got[0].image[5, 5] - expected).max() <= 1


@pytest.mark.parametrize("mirror", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_the_display_matrix_says(tmp_path, degrees, mirror):
    frames = moving_square(2)
    path = write_video(tmp_path / "a.mp4", frames, exact=True, turn=(degrees, *mirror))
    with av.open(str(path)) as container:
        decoded = next(container.decode(video=0))
        data = [one for one in decoded.side_data if one.type.name == "DISPLAYMATRIX"]
        a, b, _, c, d = np.frombuffer(bytes(data[0]), "<i4")[:5] / 65536 if data else (1, 0, 0, 0, 1)
    # ISO/IEC 14496-12: a stored point (x, y) is shown at (a x + c y, b x + d y), moved into the picture.
    rows, columns = np.mgrid[0:48, 0:64]
    across, down = np.rint(a * columns + c * rows).astype(int), np.rint(b * columns + d * rows).astype(int)
    across, down = across - across.min(), down - down.min()
    expected = np.zeros((down.max() + 1, across.max() + 1, 3), np.uint8)
    expected[down, across] = frames[0]
    info, got, _ = read(path)
    assert (info.height, info.width) == expected.shape[:2]
    np.testing.assert_array_equal(got[0].image, expected)


def test_a_stored_square_turned_by_ninety_degrees_is_upright_for_a_person(tmp_path):
    frames = np.zeros((1, 48, 64, 3), np.uint8)
    frames[:, :24, :32] = [255, 0, 0]
    _, got, _ = read(write_video(tmp_path / "a.mp4", frames, exact=True, turn=(90, False, False)))
    np.testing.assert_array_equal(got[0].image[60, 4], [255, 0, 0])  # the upper left corner, turned to the left


def test_variable_times_are_kept(tmp_path):
    times = [0, 40, 50, 300, 301, 900, 2000, 2001]
    _, got, _ = read(write_video(tmp_path / "a.mkv", pts=times, time_base=Fraction(1, 1000)))
    assert [frame.time for frame in got] == [Fraction(time, 1000) for time in times]


def test_times_count_from_the_start_of_the_file(tmp_path):
    _, got, _ = read(
        write_video(tmp_path / "a.ts", pts=[90_000 * 7 + 3600 * i for i in range(8)], time_base=Fraction(1, 90_000))
    )
    assert [frame.time for frame in got] == [Fraction(index, 25) for index in range(8)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (17, 31), (33, 16)])
def test_odd_and_tiny_sizes_are_read(tmp_path, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, "bgr0"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    _, got, _ = read(tmp_path / "a.mkv")
    np.testing.assert_array_equal([frame.image for frame in got], frames)


def test_a_video_of_one_frame_is_read(tmp_path):
    _, got, _ = read(write_video(tmp_path / "a.mp4", moving_square(1)))
    assert len(got) == 1


def test_frames_of_another_size_are_brought_to_that_of_the_first(tmp_path):
    small, large = (
        write_video(tmp_path / name, moving_square(4, *size))
        for name, size in (("s.ts", (48, 64)), ("l.ts", (96, 128)))
    )
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    _, got, video = read(tmp_path / "both.ts", damage="skip")
    assert {frame.image.shape for frame in got} == {(48, 64, 3)}
    assert len(got) == 8
    assert video.resized == 4
    assert np.abs(got[5].image.astype(int) - moving_square(4)[1]).mean() < 25
    with pytest.raises(DataError, match="too large: 128 x 96 pixels a frame; at most 4,000"):
        read(tmp_path / "both.ts", limits=VideoLimits(pixels=4000))


def test_a_frame_larger_than_allowed_is_refused_before_it_is_decoded(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4 is too large: 64 x 48 pixels a frame; at most 3,000 pixels"):
        VideoReader(path, limits=VideoLimits(pixels=3000))


def test_more_frames_than_allowed_are_refused(tmp_path):
    with pytest.raises(DataError, match="more than the 5 frames that are allowed"):
        read(write_video(tmp_path / "a.mp4"), limits=VideoLimits(frames=5))


DISGUISED = {
    "an HLS playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "a list to concatenate": "ffconcat version 1.0\nfile '{secret}'\n",
    "a DASH manifest": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet><Representation id="1"><BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "a session description": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nhello\n",
    "text": "not a video at all\n" * 20,
}


@pytest.mark.parametrize("kind", DISGUISED)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
def test_files_that_name_other_files_are_refused(tmp_path, kind, suffix):
    secret = write_video(tmp_path / "secret.ts")
    path = tmp_path / f"clip{suffix}"
    path.write_text(DISGUISED[kind].format(secret=secret))
    for damage in ("refuse", "skip"):
        with pytest.raises(DataError, match=rf"clip\{suffix} is not a video that can be read"):
            VideoReader(path, damage=damage)


def test_a_picture_is_not_a_video(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (64, 48)).save(content, "PNG")
    (tmp_path / "frame%03d.mp4").write_bytes(content.getvalue())
    with pytest.raises(DataError, match="not a video that can be read"):
        VideoReader(tmp_path / "frame%03d.mp4")


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "frame%03d.jpg", "pipe:0"])
def test_a_name_is_always_that_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48)).save(tmp_path / "frame001.jpg")
    with pytest.raises(MissingDataError, match="no video at"):
        VideoReader(name)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MissingDataError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        VideoReader(tmp_path / "empty.mp4")
    with pytest.raises(DataError, match="is a folder; needed is a video file"):
        VideoReader(tmp_path)
    with pytest.raises(UsageError, match="'repair' is no way to treat damage"):
        VideoReader(tmp_path / "empty.mp4", damage="repair")


def test_sound_without_a_picture_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        add_sound(container)
    with pytest.raises(DataError, match=r"a\.mp4 holds no video, only sound"):
        VideoReader(tmp_path / "a.mp4")


def test_sound_beside_the_picture_is_told(tmp_path):
    info, got, _ = read(write_with_sound(tmp_path / "a.mp4"))
    assert info.has_sound
    assert len(got) == 8


def test_a_codec_that_is_not_allowed_is_refused_by_name(tmp_path):
    with av.open(str(tmp_path / "c.mkv"), "w") as container:
        stream = container.add_stream("jpeg2000", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(moving_square(1)[0], format="rgb24")))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="coded in 'jpeg2000', which is not decoded here; allowed are h264"):
        VideoReader(tmp_path / "c.mkv")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_file_cut_short_is_refused_with_its_bytes(tmp_path, suffix):
    frames = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w", options={"movflags": "faststart"} if suffix == ".mp4" else {}) as container:
        add_video(container, frames)
    whole = path.read_bytes()
    with path.open("rb") as file:
        assert declared_bytes(file) == len(whole)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(
        DataError, match=rf"a\{suffix} is cut short: it has {len(whole) * 2 // 3:,} of {len(whole):,} bytes"
    ):
        VideoReader(path)
    _, got, _ = read(path, damage="skip")
    assert 10 <= len(got) < 30


def test_damage_is_refused_or_skipped_as_wanted(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mkv is damaged .*damage='skip'"):
        read(path)
    _, got, video = read(path, damage="skip")
    assert len(got) >= 4
    assert video.damaged >= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".gif"])
def test_any_damage_is_a_data_error_or_frames_of_one_size(tmp_path, suffix):
    """Flip bytes all over a file: nothing but DataError may come out, and times rise."""
    random = np.random.default_rng(0)
    whole = np.frombuffer(write_video(tmp_path / f"a{suffix}", moving_square(6)).read_bytes(), np.uint8)
    for attempt in range(12):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 12)] = random.integers(0, 256, 12)
        if attempt % 3 == 0:
            damaged = damaged[: random.integers(1, len(whole))]
        (tmp_path / "b").write_bytes(damaged.tobytes())
        with contextlib.suppress(DataError):
            info, got, _ = read(tmp_path / "b", damage="skip", limits=VideoLimits(pixels=1_000_000, frames=100))
            assert {frame.image.shape for frame in got} <= {(info.height, info.width, 3)}
            times = [frame.pts for frame in got]
            assert times == sorted(set(times))


MEMORY_PROGRAM = """
import resource, sys
from tenfold.data.video import VideoReader
with VideoReader(sys.argv[1]) as video:
    for frame in video:
        if frame.index == 40:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(frame.index, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_length(tmp_path):
    path = write_video(tmp_path / "a.mp4", np.broadcast_to(moving_square(1, 360, 640), (300, 360, 640, 3)))
    printed = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, str(path)], capture_output=True, text=True, check=True
    )
    last, grown_kib = map(int, printed.stdout.split())
    assert last == 299
    assert grown_kib < 20_000  # kept frames would be 175 MB
