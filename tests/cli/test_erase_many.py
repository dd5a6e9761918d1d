"""`tenfold erase` for many clips: each is done once, a failing one is told of, and none is dropped."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tenfold.cli import erase_many as module
from tenfold.errors import DataError, StorageError
from tenfold.video import erase_files, threads
from video_files import moving_square, write_video

FRAMES = 6
WORDS = ("--masks", "masks", "--preset", "fast", "--dilate", "3", "-o", "out")


def _here(work, orders, where):
    """The same work without starting processes."""
    for key, order in orders.items():
        yield key, work(*order)


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Two clips with masks of their own, and a file that is no clip."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "run_jobs", _here)
    monkeypatch.setattr(threads, "limit_threads", lambda count: None)  # this process has other tests to run
    (tmp_path / "clips").mkdir()
    for number, name in enumerate(("a", "b")):
        write_video(tmp_path / f"clips/{name}.mp4", moving_square(FRAMES))
        (tmp_path / f"masks/{name}").mkdir(parents=True)
        for frame in range(FRAMES):
            mask = np.zeros((48, 64), np.bool_)
            mask[12:24, 2 * frame : 2 * frame + 16 + 8 * number] = True
            Image.fromarray(mask).save(tmp_path / f"masks/{name}/{frame}.png")
    (tmp_path / "clips/broken.mp4").write_bytes(b"no video")
    return [f"clips/{name}.mp4" for name in ("a", "broken", "b")]


def states(outcome):
    return [row["state"] for row in outcome.json["clips"]]


def test_every_clip_is_told_of_and_what_is_done_is_not_done_again(tenfold, clips, tmp_path):
    first = tenfold("erase", *clips, *WORDS, "--json")
    assert first.code == 1
    assert states(first) == ["done", "failed", "done"]
    assert (first.json["done"], first.json["kept"], first.json["failed"]) == (2, 0, 1)
    a, broken, b = first.json["clips"]
    assert broken["error"]["type"] == "DataError"
    assert re.search(r"clips/broken.mp4: \S+/clips/broken.mp4 is not a video", first.words)
    assert "2 of 3 clips done, 1 failed" in first.words
    assert a["hole_pixels"] < b["hole_pixels"]  # each has its own masks
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".erased", "a.mp4", "b.mp4"]

    again = tenfold("erase", *clips, *WORDS, "--json")
    assert states(again) == ["kept", "failed", "kept"]
    assert again.json["clips"][0] == {**a, "state": "kept"}
    (tmp_path / "out/a.mp4").unlink()
    write_video(tmp_path / "clips/broken.mp4", moving_square(FRAMES))
    third = tenfold("erase", *clips[::2], *WORDS, "--json")
    assert (third.code, states(third)) == (0, ["done", "kept"])
    assert states(tenfold("erase", *clips[::2], *WORDS, "--feather", "1", "--json")) == ["done", "done"]
    lacking = tenfold("erase", *clips, *WORDS, "--feather", "1")
    assert lacking.code == 1
    assert re.search("broken.mp4: .*masks/broken", lacking.words)  # there are no masks of this name


def test_the_result_is_that_of_a_clip_alone(tenfold, clips, tmp_path):
    assert tenfold("erase", clips[0], *WORDS, "--jobs", "1").code == 0
    alone = ("--masks", "masks/a", "--preset", "fast", "--dilate", "3", "-o", "alone.mp4")
    assert tenfold("erase", clips[0], *alone).code == 0
    assert (tmp_path / "alone.mp4").read_bytes() == (tmp_path / "out/a.mp4").read_bytes()


def test_a_clip_that_was_stopped_goes_on(tenfold, clips, stopped_erasing):
    with stopped_erasing():
        stopped = tenfold("erase", clips[0], *WORDS, "--jobs", "1")
    assert stopped.code == 130
    assert "0 of 1 clips were looked at. What is filled is kept, and following begins anew" in stopped.words
    outcome = tenfold("erase", clips[0], *WORDS, "--jobs", "1", "--json")
    assert outcome.json["clips"][0]["resumed_from"] == 2


def test_a_clip_whose_worker_is_lost_and_one_that_meets_a_mistake_of_ours_are_told_of(tenfold, clips, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", lambda work, orders, where: [(key, None) for key in orders])
    outcome = tenfold("erase", *clips, *WORDS, "--json")
    assert (outcome.code, states(outcome)) == (1, ["failed"] * 3)
    assert "was lost 3 times" in outcome.json["clips"][0]["error"]["message"]

    def broken(*words, **options):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(module, "run_jobs", _here)
    monkeypatch.setattr(erase_files, "erase_frames", broken)
    outcome = tenfold("erase", clips[0], *WORDS, "--jobs", "2", "--json")
    assert outcome.json["clips"][0]["error"]["type"] == "ZeroDivisionError"
    assert "a mistake in Tenfold" in outcome.words


@pytest.mark.parametrize(
    ("error", "tries"),
    [(MemoryError(), 2), (StorageError("the disk is full"), 2), (DataError("it is damaged"), 1), (KeyError("x"), 1)],
)
@pytest.mark.parametrize("passes", [True, False])
def test_a_clip_whose_machine_had_no_room_is_tried_once_more(tenfold, clips, monkeypatch, error, tries, passes):
    real, asked = erase_files.erase_frames, []

    def failing(*words, **options):
        asked.append(words)
        if passes and len(asked) > 1:
            return real(*words, **options)
        raise error

    monkeypatch.setattr(erase_files, "erase_frames", failing)
    outcome = tenfold("erase", clips[0], *WORDS, "--jobs", "1", "--json")
    assert len(asked) == tries
    assert states(outcome) == ["done" if passes and tries == 2 else "failed"]
    if outcome.code:
        assert outcome.json["clips"][0]["error"]["type"] == type(error).__name__


def test_a_worker_lost_on_ray_is_not_told_to_take_fewer_jobs(tenfold, clips, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", lambda work, orders, where: [(key, None) for key in orders])
    said = {jobs: tenfold("erase", clips[0], *WORDS, "--jobs", jobs).words for jobs in ("1", "ray://head:10001")}
    assert "fewer --jobs" in said["1"]
    assert "fewer --jobs" not in said["ray://head:10001"]
    assert "`ray status`" in said["ray://head:10001"]


@pytest.mark.slow  # starts processes
def test_processes_do_it_together(process, clips, tmp_path):
    outcome = process("erase", *clips, *WORDS, "--jobs", "2", "--json")
    assert outcome.code == 1
    assert states(outcome) == ["done", "failed", "done"]
    record = json.loads((tmp_path / "out/.erased/a.mp4.json").read_text())
    assert record["report"]["frames"] == FRAMES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is no clip to erase in"),
        (("clips/a.mp4", "--jobs", "0"), "--jobs '0' is not allowed. Write how many at a time"),
        (("clips/a.mp4", "--jobs", "ray://head"), "--jobs 'ray://head' is not allowed"),
        (("clips/a.mp4", "clips/b.mp4", "--preview", "2"), "--preview is for one clip"),
        (("clips/a.mp4", "clips/../clips/a.mp4"), "would both become a.mp4"),
        (("clips/a.mp4", "clips/b.mp4", "-o", "clips"), "would be written over"),
        (("clips/a.mp4", "clips/b.mp4", "-o", "clips/b.mp4"), "is a file; the results of many clips need a folder"),
    ],
)
def test_what_makes_no_sense_is_refused(tenfold, clips, words, message):
    outcome = tenfold("erase", *words, *(() if "-o" in words else ("-o", "out")), "--moving")
    assert outcome.code == 2
    assert message in outcome.words
