"""`tenfold segment`: tracks and an overlay of what is pointed at, what moves, or what a network finds."""

import json

import numpy as np
import pytest
from PIL import Image

from discs import SIZE, crossing_discs, overlap
from tenfold.data.run_lengths import decode_mask
from tenfold.data.video import VideoReader
from video_files import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", np.stack(crossing_discs(8)[0]))


def masks_in(path):
    (entry,) = json.loads(path.read_text())
    return [np.zeros(SIZE, np.bool_) if one is None else decode_mask(one, *SIZE) for one in entry["segmentations"]]


def test_what_is_in_a_box_is_followed_and_shown(tenfold, clip, tmp_path):
    out, overlay = tmp_path / "tracks.json", tmp_path / "overlay.mp4"
    outcome = tenfold("segment", clip, "--box", "23,26,29,29@0.16", "-o", out, "--overlay", overlay, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["frames"], outcome.json["width"], outcome.json["height"]) == (8, SIZE[1], SIZE[0])
    assert [one["id"] for one in outcome.json["objects"]] == [1]
    _, truth = crossing_discs(8)
    assert min(overlap(one, true[0]) for one, true in zip(masks_in(out), truth, strict=True)) > 0.75
    with VideoReader(overlay) as video:
        assert sum(1 for _ in video) == 8
    assert "8 frames in" in outcome.words


def test_a_mask_a_click_and_motion_begin_objects_too(tenfold, clip, tmp_path):
    Image.fromarray(crossing_discs(1)[1][0][0]).save(tmp_path / "mask.png")
    _, truth = crossing_discs(8)
    for number, words in enumerate((("--mask", tmp_path / "mask.png"), ("--click", "25,40"), ("--moving",))):
        out = tmp_path / f"{number}.json"
        outcome = tenfold("segment", clip, *words, "-o", out)
        assert outcome.code == 0, outcome.err
        assert overlap(masks_in(out)[7], truth[7][0]) > 0.7, words


def test_tracks_are_judged_as_youtube_vis_judges_them(tenfold, clip, tmp_path):
    from tenfold.data.run_lengths import encode_mask
    from tenfold.tasks.track_files import Track, TrackTruth, VideoFacts, write_truth

    _, truth = crossing_discs(8)
    codes = [encode_mask(one[0]) for one in truth]
    packed = tuple({"size": code["size"], "counts": code["counts"].encode()} for code in codes)
    areas = tuple(float(one[0].sum()) for one in truth)
    track = Track(video_id=1, category_id=1, masks=packed, areas=areas)
    facts = VideoFacts(id=1, width=SIZE[1], height=SIZE[0], length=8)
    write_truth(TrackTruth(videos={1: facts}, categories={1: "object"}, tracks=[track]), tmp_path / "truth.json")
    tenfold("segment", clip, "--box", "12,26,27,28", "-o", tmp_path / "tracks.json")
    outcome = tenfold("eval-tracks", tmp_path / "tracks.json", tmp_path / "truth.json", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["per_iou"]["0.50"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "what is to be followed? Give --box, --click, --mask, --moving or --network."),
        (("--box", "1,2,3"), "--box 1,2,3 is not of the form"),
        (("--box", "500,2,3,3"), "lies outside the frame of 128 x 96 pixels"),
        (("--click", "5,5@99"), "at 99 s something is pointed at, but the clip has 8 frames"),
        (("--moving", "--overlay", "over.txt"), "ends in '.txt'"),
        (("--network", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_nothing_written(tenfold, clip, tmp_path, words, message):
    outcome = tenfold("segment", clip, *words, "-o", tmp_path / "tracks.json")
    assert outcome.code != 0
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_does_not_follow_is_refused(tenfold, clip, tmp_path, monkeypatch):
    import torch

    from tenfold.cli import artifacts

    # A training would make the artifact; here only what is in it matters.
    monkeypatch.setattr(artifacts, "open_artifact", lambda path: (torch.nn.Linear(1, 1), {"task": {}}))
    outcome = tenfold("segment", clip, "--network", tmp_path / "a.safetensors", "-o", tmp_path / "tracks.json")
    assert outcome.code != 0
    assert "holds a network that does not follow objects in video" in outcome.words
    assert list(tmp_path.iterdir()) == []
