"""Pieces of video joined: frames, times and sound as if they had been written at once."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tenfold.data.video import VideoInfo, VideoReader
from tenfold.data.video_joining import join_videos
from tenfold.data.video_writing import VideoWriter
from tenfold.errors import DataError, UsageError
from video_files import moving_square, sound_packets, write_with_sound

TIMES = [0, 3, 4, 9, 10, 11, 20, 21]
"""Of eight frames, in 25ths of a second: the clip has no constant rate."""


def info(height=48, width=64):
    return VideoInfo(
        height=height, width=width, rate=Fraction(25), frames=None, time_base=Fraction(1, 25),
        pixel_aspect=Fraction(1), codec="rgb", has_sound=False,
    )  # fmt: skip


def pieces_in(folder, *, lossless=True, first=0):
    """The clip in pieces of three frames, each counted from 0."""
    frames = moving_square(8)
    pieces = []
    for start in range(first, 8, 3):
        path = folder / f"{start}.mp4"
        with VideoWriter(path, info(), lossless=lossless) as writer:
            for at in range(start, min(start + 3, 8)):
                writer.write_image(frames[at], TIMES[at] - TIMES[start], 1)
        pieces.append((path, Fraction(TIMES[start], 25)))
    return pieces


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_joined_pieces_have_every_pixel_and_time(tmp_path, ending):
    join_videos(pieces_in(tmp_path), tmp_path / f"out{ending}")
    with VideoReader(tmp_path / f"out{ending}") as video:
        for frame, image, time in zip(video, moving_square(8), TIMES, strict=True):
            np.testing.assert_array_equal(frame.image, image)
            assert frame.time == Fraction(time, 25)


def test_sound_is_copied_packet_by_packet(tmp_path):
    source = write_with_sound(tmp_path / "sound.mp4")
    join_videos(pieces_in(tmp_path, lossless=False), tmp_path / "out.mp4", sound_from=source)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(source)


def test_what_cannot_be_joined_is_said_and_nothing_is_written(tmp_path):
    pieces = pieces_in(tmp_path)
    with pytest.raises(UsageError, match="0 pieces cannot be joined"):
        join_videos([], tmp_path / "out.mp4")
    with pytest.raises(UsageError, match="an ending of"):
        join_videos(pieces, tmp_path / "out.avi")
    with pytest.raises(DataError, match="is no number"):
        join_videos([pieces[0], (pieces[1][0], Fraction(1, 1_000_003))], tmp_path / "out.mp4")
    with VideoWriter(tmp_path / "other.mp4", info(32, 32)) as writer:
        writer.write_image(np.zeros((32, 32, 3), np.uint8), 0)
    with pytest.raises(DataError, match="with other settings"):
        join_videos([pieces[0], (tmp_path / "other.mp4", Fraction(1))], tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("turn", [(1, False), (2, True)])
def test_a_mark_to_turn_the_picture_survives(tmp_path, turn):
    images = [np.full((64, 48, 3), 40 * number, np.uint8) for number in range(1, 3)]
    for number, image in enumerate(images):
        image[:8, :16] = 255
        with VideoWriter(tmp_path / f"{number}.mp4", replace(info(64, 48), turn=turn), lossless=True) as writer:
            writer.write_image(image, 0, 1)
    join_videos([(tmp_path / f"{number}.mp4", Fraction(number, 25)) for number in range(2)], tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as video:
        assert video.info.turn == turn
        for frame, image in zip(video, images, strict=True):
            np.testing.assert_array_equal(frame.image, image)
