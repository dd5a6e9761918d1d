import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from discs import SIZE, crossing_discs, overlap
from tenfold.data.run_lengths import decode_mask
from tenfold.data.video import VideoReader
from tenfold.errors import DataError, MissingDataError, UsageError
from tenfold.video.erase_follow import Target
from tenfold.video.segment_files import segment_clip
from video_files import sound_packets, write_video, write_with_sound


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_with_sound(tmp_path_factory.mktemp("clips") / "clip.mp4", np.stack(crossing_discs(10)[0]))


def masks_in(path, at=0):
    return [
        np.zeros(SIZE, np.bool_) if code is None else decode_mask(code, *SIZE)
        for code in json.loads(path.read_text())[at]["segmentations"]
    ]


def box_of(mask):
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (int(columns[0]) - 1, int(rows[0]) - 1, int(np.ptp(columns)) + 3, int(np.ptp(rows)) + 3)


def test_an_object_given_in_the_middle_is_followed_both_ways(video, tmp_path):
    _, truth = crossing_discs(10)
    target = Target(box=box_of(truth[5][0]), time=Fraction(5, 25))
    report = segment_clip(video, tmp_path / "tracks.json", [target])
    found = masks_in(tmp_path / "tracks.json")
    assert len(found) == 10
    assert min(overlap(one, true[0]) for one, true in zip(found, truth, strict=True)) > 0.75
    assert (report.tracks[0].first, report.tracks[0].last, report.tracks[0].frames) == (0, 9, 10)


def test_the_largest_moving_thing_is_found_and_followed_from_the_start(video, tmp_path):
    _, truth = crossing_discs(10)
    segment_clip(video, tmp_path / "tracks.json", moving=True)
    found = masks_in(tmp_path / "tracks.json")
    assert np.mean([overlap(one, true[0]) for one, true in zip(found, truth, strict=True)]) > 0.7


def test_the_overlay_keeps_sound_and_times(video, tmp_path):
    segment_clip(video, tmp_path / "tracks.json", [Target(click=(25, 40))], overlay=tmp_path / "overlay.mp4")
    with VideoReader(video) as one, VideoReader(tmp_path / "overlay.mp4") as other:
        assert [frame.time for frame in one] == [frame.time for frame in other]
    assert len(sound_packets(tmp_path / "overlay.mp4")) == len(sound_packets(video)) > 0


def test_two_objects_have_the_ids_of_their_order(tmp_path):
    frames, truth = crossing_discs(6, second=True)
    video = write_video(tmp_path / "clip.mp4", np.stack(frames), exact=True)
    targets = [Target(box=box_of(truth[0][1])), Target(box=box_of(truth[4][0]), time=Fraction(4, 25))]
    segment_clip(video, tmp_path / "tracks.json", targets)
    ids = [entry["id"] for entry in json.loads((tmp_path / "tracks.json").read_text())]
    assert sorted(ids) == [1, 2]
    second = masks_in(tmp_path / "tracks.json", ids.index(2))
    assert overlap(second[0], truth[0][0]) > 0.7
    assert overlap(masks_in(tmp_path / "tracks.json", ids.index(1))[5], truth[5][1]) > 0.7


def test_a_folder_of_pictures_is_a_clip_too(tmp_path):
    frames, truth = crossing_discs(4)
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"clip/{number}.png")
    Image.fromarray(truth[0][0]).save(tmp_path / "mask.png")
    report = segment_clip(tmp_path / "clip", tmp_path / "tracks.json", [Target(mask=tmp_path / "mask.png")])
    assert report.to_dict()["frames"] == 4
    assert overlap(masks_in(tmp_path / "tracks.json")[3], truth[3][0]) > 0.85


def test_nothing_is_left_of_a_run_that_failed(video, tmp_path):
    with pytest.raises(UsageError, match=r"at 9 s something is pointed at, but the clip has 10 frames, 0\.40 s"):
        segment_clip(video, tmp_path / "no/such/tracks.json", [Target(click=(25, 40), time=Fraction(9))])
    assert list(tmp_path.iterdir()) == []


def test_a_clip_in_which_nothing_moves_is_refused(tmp_path):
    video = write_video(tmp_path / "clip.mp4", np.stack(crossing_discs(8, step=0)[0]))
    with pytest.raises(DataError, match="nothing was found that moves by itself"):
        segment_clip(video, tmp_path / "tracks.json", moving=True)


def test_nothing_to_look_for_is_refused(video, tmp_path):
    with pytest.raises(UsageError, match="what is to be followed"):
        segment_clip(video, tmp_path / "tracks.json")


def test_an_overlay_that_is_no_video_is_refused(video, tmp_path):
    with pytest.raises(UsageError, match=r"overlay.png ends in '.png'; written are .mp4"):
        segment_clip(video, tmp_path / "tracks.json", [Target(click=(1, 1))], overlay=tmp_path / "overlay.png")


@pytest.mark.parametrize("results", [{"out": "clip.mp4"}, {"out": "thing.png"}, {"overlay": "clip.mp4"}])
def test_a_result_is_not_written_over_what_it_is_made_from(video, tmp_path, results):
    (tmp_path / "clip.mp4").write_bytes(video.read_bytes())
    Image.new("L", SIZE[::-1], 255).save(tmp_path / "thing.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    places = {"out": tmp_path / "tracks.json"} | {name: tmp_path / place for name, place in results.items()}
    with pytest.raises(UsageError, match="would be written over what it is made from"):
        segment_clip(tmp_path / "clip.mp4", targets=[Target(mask=tmp_path / "thing.png")], **places)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_network_and_moving_are_not_mixed(video, tmp_path):
    with pytest.raises(UsageError, match="leave out either --moving or --network"):
        segment_clip(video, tmp_path / "tracks.json", moving=True, network=object())


def test_a_clip_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(MissingDataError):
        segment_clip(tmp_path / "none.mp4", tmp_path / "tracks.json", [Target(click=(1, 1))])
