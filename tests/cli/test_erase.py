"""`tenfold erase`: things pointed at are gone, the rest stays, and a stopped run ends as one that was not."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tenfold.cli.main import run
from tenfold.data import dilated, read_image
from tenfold.data.video import VideoReader
from tenfold.video import erase_files, erase_masks
from video_files import sound_packets, write_video, write_with_sound

FAST = erase_files.EraseOptions(preset="fast", dilate=3)


def scene(count=20, height=96, width=128):
    """A noisy still, and a yellow square that moves over it: frames, masks, and the still."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 50, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    still = (np.stack([rows * 120 // height, columns * 150 // width, np.full_like(rows, 90)], 2) + noise).astype(
        np.uint8
    )
    frames, masks = np.repeat(still[None], count, 0), np.zeros((count, height, width), np.bool_)
    for index in range(count):
        masks[index, 30:54, 6 + 4 * index : 30 + 4 * index] = True
    frames[masks] = [250, 230, 20]
    return frames, masks, still


@pytest.fixture
def clip(tmp_path):
    """A lossless file of the scene."""
    return write_video(tmp_path / "clip.mp4", scene()[0], exact=True)


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, mask in enumerate(scene()[1]):
        Image.fromarray(mask).save(folder / f"{number}.png")
    return folder


def stopping_at(number):
    """A progress that somebody stops after so many frames."""

    def stopped(stage, done, total):
        if done == number:
            raise KeyboardInterrupt

    return stopped


def frames_of(file):
    with VideoReader(file) as video:
        return [frame.image for frame in video]


@pytest.mark.parametrize(
    "words", [("--box", "22,26,32,32@0.2"), ("--click", "40,42@0.2"), ("--moving",), ("--mask", "one.png@0.2")]
)
def test_a_thing_pointed_at_in_one_frame_is_gone_from_all(tenfold, clip, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    frames, truth, still = scene()
    Image.fromarray(truth[5]).save(tmp_path / "one.png")
    outcome = tenfold("erase", clip, *words, "-o", "out.mp4", "--lossless", "--preset", "fast", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["copied_share"] > 0.9
    made = frames_of(tmp_path / "out.mp4")
    before = np.abs(frames.astype(int) - still)[truth].mean()
    assert np.abs(np.stack(made).astype(int) - still)[truth].mean() < 0.15 * before
    far = ~dilated(truth, 16)
    np.testing.assert_array_equal(np.stack(made)[far], frames[far])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "one.png", "out.mp4"]


def test_outside_the_grown_masks_every_pixel_time_and_sound_packet_is_the_sources(tenfold, masks, tmp_path):
    source = write_with_sound(tmp_path / "sound.mp4", scene()[0])
    words = ("--masks", masks, "--dilate", "3", "--feather", "2", "-o", tmp_path / "out.mp4", "--lossless", "--json")
    outcome = tenfold("erase", source, *words)
    assert outcome.code == 0, outcome.err
    assert set(outcome.json["stage_seconds"]) == {"follow", "read", "fill", "write"}
    for number, (before, after) in enumerate(zip(frames_of(source), frames_of(tmp_path / "out.mp4"), strict=True)):
        kept = ~dilated(scene()[1][number], 3)
        np.testing.assert_array_equal(after[kept], before[kept])
        assert (after != before).any()
    with VideoReader(source) as one, VideoReader(tmp_path / "out.mp4") as other:
        assert [frame.time for frame in one] == [frame.time for frame in other]
    assert sound_packets(source) == sound_packets(tmp_path / "out.mp4")


@pytest.mark.parametrize(("out", "stop"), [("out.mp4", 11), ("out.mkv", 3), ("out", 19)])
def test_a_stopped_run_goes_on_and_ends_the_same_to_the_bit(clip, masks, tmp_path, monkeypatch, out, stop):
    monkeypatch.setattr(erase_files, "PIECE_FRAMES", 8)
    what = erase_files.What(masks=masks)
    whole = erase_files.erase_clip(clip, tmp_path / f"whole/{out}", what, options=FAST)
    assert whole.resumed_from == 0

    stopped = stopping_at(stop)
    with pytest.raises(KeyboardInterrupt):
        erase_files.erase_clip(clip, tmp_path / out, what, options=FAST, progress=stopped)
    assert not (tmp_path / out).exists()
    report = erase_files.erase_clip(clip, tmp_path / out, what, options=FAST)
    assert report.resumed_from == stop // 8 * 8
    first, second = tmp_path / f"whole/{out}", tmp_path / out
    if first.is_dir():
        first, second = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (first, second))
        assert len(first) == 20
        assert first == second
    else:
        assert first.read_bytes() == second.read_bytes()
    assert report.account == whole.account
    assert not list(tmp_path.glob(".*"))


def test_a_stopped_run_goes_on_inside_the_folder_of_its_own_pictures(masks, tmp_path, monkeypatch):
    monkeypatch.setattr(erase_files, "PIECE_FRAMES", 8)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, frame in enumerate(scene()[0]):
        Image.fromarray(frame).save(folder / f"{number:02d}.png")
    what = erase_files.What(masks=masks)
    with pytest.raises(KeyboardInterrupt):
        erase_files.erase_clip(folder, folder / "out", what, options=FAST, progress=stopping_at(12))
    report = erase_files.erase_clip(folder, folder / "out", what, options=FAST)
    assert report.resumed_from == 8
    assert len(list((folder / "out").iterdir())) == 20


@pytest.mark.slow  # follows or fills a clip several times
def test_another_order_and_no_resume_begin_anew(clip, masks, tmp_path, monkeypatch):
    monkeypatch.setattr(erase_files, "PIECE_FRAMES", 8)
    stopped = stopping_at(12)
    what = erase_files.What(masks=masks)
    for changes in ({"quality": 30}, {"resume": False}):
        with pytest.raises(KeyboardInterrupt):
            erase_files.erase_clip(clip, tmp_path / "out.mp4", what, options=FAST, progress=stopped)
        report = erase_files.erase_clip(clip, tmp_path / "out.mp4", what, options=FAST, **changes)
        assert report.resumed_from == 0


def test_an_option_that_is_not_allowed_leaves_the_pieces_of_a_stopped_run(clip, masks, tmp_path, monkeypatch):
    monkeypatch.setattr(erase_files, "PIECE_FRAMES", 8)
    stopped = stopping_at(12)
    what = erase_files.What(masks=masks)
    with pytest.raises(KeyboardInterrupt):
        erase_files.erase_clip(clip, tmp_path / "out.mp4", what, options=FAST, progress=stopped)
    with pytest.raises(ValueError, match="quality 99"):
        erase_files.erase_clip(clip, tmp_path / "out.mp4", what, options=FAST, quality=99)
    assert erase_files.erase_clip(clip, tmp_path / "out.mp4", what, options=FAST).resumed_from == 8


def test_a_signal_stops_it_with_words_and_code_130(tenfold, clip, masks, tmp_path, monkeypatch):
    import signal

    real = erase_files.erase_frames

    def interrupting(*words, **options):
        for done in real(*words, **options):
            if done.number == 9:
                signal.raise_signal(signal.SIGTERM)
            yield done

    monkeypatch.setattr(erase_files, "PIECE_FRAMES", 8)
    monkeypatch.setattr(erase_files, "erase_frames", interrupting)
    outcome = tenfold("erase", clip, "--masks", masks, "--preset", "fast", "-o", tmp_path / "out.mp4")
    assert outcome.code == 130
    assert "give the same command again" in outcome.words
    monkeypatch.setattr(erase_files, "erase_frames", real)
    outcome = tenfold("erase", clip, "--masks", masks, "--preset", "fast", "-o", tmp_path / "out.mp4", "--json")
    assert outcome.json["resumed_from"] == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "out.mp4"), "Nothing is filled yet, and following begins anew"),
        (("-o", "look.png", "--preview", "1"), "Of a preview nothing is kept"),
    ],
)
def test_a_signal_while_following_keeps_nothing_and_says_so(tenfold, clip, tmp_path, monkeypatch, words, said):
    import signal

    real = erase_masks.follow_targets

    def interrupted(*given, **options):
        signal.raise_signal(signal.SIGTERM)
        return real(*given, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(erase_masks, "follow_targets", interrupted)
    outcome = tenfold("erase", clip, "--box", "22,26,32,32@0.2", *words)
    assert outcome.code == 130
    assert said in outcome.words
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_two_runs_do_not_write_one_result(clip, masks, tmp_path):
    what = erase_files.What(masks=masks)

    def second(stage, done, total):
        if done == 1:
            erase_files.erase_clip(clip, tmp_path / "out.mp4", what)

    with pytest.raises(OSError, match="another process is writing this result"):
        erase_files.erase_clip(clip, tmp_path / "out.mp4", what, progress=second)


@pytest.mark.slow  # follows or fills a clip several times
def test_a_preview_draws_frames_before_and_after(tenfold, clip, tmp_path):
    words = ("erase", clip, "--box", "22,26,32,32@0.2", "--preview", "3", "--preset", "fast", "--json")
    outcome = tenfold(*words, "-o", tmp_path / "look.png")
    assert outcome.code == 0, outcome.err
    assert len(outcome.json["frames"]) == 3
    picture = read_image(tmp_path / "look.png")
    assert picture.shape == (3 * 96 + 2 * 4, 2 * 128 + 4, 3)
    still = scene()[2]
    after = picture[:96, 132:].astype(int)
    assert np.abs(after - still).mean() < 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "look.png"]


def test_the_masks_beside_the_frames_of_a_folder_are_taken(tenfold, masks, tmp_path):
    (tmp_path / "c/frames").mkdir(parents=True)
    for number, frame in enumerate(scene()[0]):
        Image.fromarray(frame).save(tmp_path / f"c/frames/{number}.png")
    assert tenfold("erase", tmp_path / "c", "-o", tmp_path / "out").code == 2
    masks.rename(tmp_path / "c/masks")
    outcome = tenfold("erase", tmp_path / "c", "-o", tmp_path / "out", "--preset", "fast")
    assert outcome.code == 0, outcome.err
    assert "copied from other frames" in outcome.words
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{number}.png" for number in range(20))


@pytest.mark.slow  # follows or fills a clip several times
def test_tracks_of_segment_are_erased_by_their_ids(tenfold, clip, tmp_path):
    frames, truth, still = scene()
    tracks = tmp_path / "tracks.json"
    assert tenfold("segment", clip, "--box", "22,26,32,32@0.2", "--box", "90,60,20,20@0", "-o", tracks).code == 0
    outcome = tenfold(
        "erase", clip, "--tracks", tracks, "--ids", "1", "-o", tmp_path / "out.mp4", "--preset", "fast", "--lossless"
    )
    assert outcome.code == 0, outcome.err
    made = np.stack(frames_of(tmp_path / "out.mp4"))
    assert np.abs(made.astype(int) - still)[truth].mean() < 0.15 * np.abs(frames.astype(int) - still)[truth].mean()
    np.testing.assert_array_equal(made[0, 60:80, 90:110], frames[0, 60:80, 90:110])  # the other object stays
    outcome = tenfold("erase", clip, "--tracks", tracks, "--ids", "7", "-o", tmp_path / "no.mp4")
    assert outcome.code == 2
    assert "the track 7 is not in" in outcome.words
    assert "it has 1, 2" in outcome.words


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "what is to be erased"),
        (("--box", "1,2,3"), 2, r"--box 1,2,3 is not of the form 120,80,60,140@1.5"),
        (("--box", "1,2,0,4"), 2, "the box has no area"),
        (("--box", "1,2,3,4@-1"), 2, "is not of the form"),
        (("--box", "900,2,3,4"), 2, "lies outside the frame"),
        (("--click", "1,2@x"), 2, "--click 1,2@x is not of the form"),
        (("--click", "500,500"), 2, "lies outside the frame"),
        (("--click", "40,40@100"), 2, "at 100 s a thing is pointed at, but the clip has 20 frames"),
        (("--mask", "small.png"), 2, "has 8 x 8 pixels, but the frames have 128 x 96"),
        (("--mask", "none.png@0.2"), 1, "none.png"),
        (("--masks", "masks", "--moving"), 2, "in more than one way"),
        (("--masks", "masks", "--dilate", "-1"), 2, "dilate is -1"),
        (("--masks", "masks", "--dilate", "2", "--feather", "3"), 2, "feather is 3"),
        (("--masks", "masks", "-o", "out.avi"), 2, "ends in '.avi'"),
        (("--masks", "masks", "--quality", "77"), 2, "quality 77"),
        (("--box", "22,26,32,32", "--quality", "77"), 2, "quality 77"),
        (("--click", "40,40@100", "-o", "no/such/out.mp4"), 2, "but the clip has 20 frames"),
        (("--click", "40,40@100", "--preview", "1", "-o", "no/such/x.png"), 2, "but the clip has 20 frames"),
        (("--masks", "masks", "--preview", "3"), 2, "a preview is one picture"),
        (("--masks", "masks", "--preview", "0", "-o", "x.png"), 2, "a preview of 0 frames"),
        (("--masks", "empty.png", "--preview", "1", "-o", "x.png"), 2, "nothing is erased in any frame"),
        (("--masks", "masks", "--ids", "1"), 2, "ids are those of tracks"),
        (("--tracks", "masks", "--ids", "one"), 2, "--ids one is not of the form 1,3"),
        (("--tracks", "none.json"), 1, "there is no file none.json with tracks"),
        (("--tracks", "short.json"), 1, "are those of 7 frames, but the video has 20"),
        (("--tracks", "small.png"), 1, "small.png is no file of tracks"),
        (("--masks", "masks", "--seam", "2"), 2, "--seam means nothing without --network"),
        (("--masks", "masks", "--rate", "24"), 2, "a video file has its own times"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(tenfold, clip, masks, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8), 255).save(tmp_path / "small.png")
    Image.new("L", (128, 96), 0).save(tmp_path / "empty.png")
    (tmp_path / "short.json").write_text(json.dumps([{"id": 1, "segmentations": [None] * 7}]))
    before = sorted(path for path in tmp_path.iterdir())
    outcome = tenfold("erase", clip, *words, *(() if "-o" in words else ("-o", "out.mp4")))
    assert outcome.code == code, outcome.err
    assert re.search(message, outcome.words)
    assert sorted(path for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("clip.mp4", "--moving"), "clip.mp4"),
        (("clip.mp4", "--moving"), "linked/clip.mp4"),
        (("linked/clip.mp4", "--moving"), "clip.mp4"),
        (("clip.mp4", "--masks", "masks.mp4"), "masks.mp4"),
        (("clip.mp4", "--tracks", "tracks.mp4"), "tracks.mp4"),
        (("clip.mp4", "--mask", "masks/0.png", "--preview", "1"), "masks/0.png"),
        (("clip.mp4", "--masks", "masks", "--preview", "1"), "masks/0.png"),
        (("frames", "--moving", "--preview", "1"), "frames/0.png"),
    ],
)
def test_a_result_is_not_written_over_what_it_is_made_from(tenfold, clip, masks, tmp_path, monkeypatch, words, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path)
    write_video(tmp_path / "masks.mp4", scene()[0])
    (tmp_path / "tracks.mp4").write_text("[]")
    (tmp_path / "frames").mkdir()
    Image.fromarray(scene()[0][0]).save(tmp_path / "frames/0.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = tenfold("erase", *words, "-o", out)
    assert outcome.code == 2
    assert f"the result {out} would be written over what it is made from" in outcome.words
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_nothing_moves_in_a_still(tenfold, tmp_path):
    still = write_video(tmp_path / "still.mp4", np.repeat(scene()[2][None], 12, 0))
    outcome = tenfold("erase", still, "--moving", "-o", tmp_path / "out.mp4")
    assert outcome.code == 2
    assert "nothing was found" in outcome.words


def test_the_help_names_every_way_to_point(capsys):
    assert run(["erase", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(
        word in said for word in ("--box", "--click", "--mask", "--masks", "--moving", "--preview", "--lossless")
    )
