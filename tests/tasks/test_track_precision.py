"""Tracks against the truth: the official numbers, and what must hold for any tracks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.errors import DataError, MissingDataError
from tenfold.tasks.track_files import (
    parse_results,
    parse_truth,
    read_results,
    read_truth,
    results_to_json,
    truth_to_json,
)
from tenfold.tasks.track_hota import evaluate_hota
from tenfold.tasks.track_precision import best_first, evaluate_tracks, single_frames, track_overlaps

pytest.importorskip("pycocotools", reason="needs the extra video")

CASES = [
    "absent_frames", "area_ranges", "categories", "crowd", "degenerate", "duplicates_ties", "empty_results",
    "gt_formats", "ignore_flag", "max_dets", "perfect", "random_large", "random_small", "sav_perturbed", "wrong_length",
]  # fmt: skip


def case(shared, name):
    folder = shared / "reference/compfeat/ytvos_eval" / name
    truth = read_truth(folder / "gt.json")
    return folder, truth, read_results(folder / "results.json", truth, strict=False)


@pytest.mark.parametrize("name", CASES)
def test_all_numbers_are_those_of_the_official_program(shared, name):
    folder, truth, found = case(shared, name)
    scores = evaluate_tracks(truth, found)
    wanted = json.loads((folder / "expected.json").read_text())
    assert scores.stats == pytest.approx(wanted["stats"], abs=1e-12)
    assert scores.per_iou == pytest.approx(wanted["AP_per_iou"], abs=1e-12)
    for category, values in wanted["per_category"].items():
        assert scores.per_category.get(int(category), dict.fromkeys(values, -1)) == pytest.approx(values, abs=1e-12)
    for pair, overlaps in wanted["ious"].items():
        key = tuple(map(int, pair.split(",")))
        sides = [[one for one in side if (one.video_id, one.category_id) == key] for side in (found, truth.tracks)]
        if np.size(overlaps):
            assert np.allclose(track_overlaps(*sides), overlaps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["crowd", "random_large", "sav_perturbed"])
def test_hota_is_that_of_trackeval(shared, name):
    pytest.importorskip("trackeval", reason="needs the extra hota")
    folder, truth, found = case(shared, name)
    got = evaluate_hota(truth, found)
    combined = {"cls_comb_cls_av": "mean over categories", "cls_comb_det_av": "mean over detections"}
    for category, measures in json.loads((folder / "trackeval.json").read_text()).items():
        known = got[combined.get(category, category)]
        assert known == pytest.approx({key: measures[key] for key in known}, abs=1e-12)


def blob(x, y, side, height=24, width=32):
    counts = np.zeros((height, width), bool)
    counts[y : y + side, x : x + side] = True
    changes = np.flatnonzero(np.diff(np.r_[False, counts.T.ravel(), False]))
    return {"size": [height, width], "counts": np.diff(np.r_[0, changes, height * width]).tolist()}


def drawn_truth(seed=0, videos=3):
    rng = np.random.default_rng(seed)
    annotations = []
    for video in range(videos):
        for _ in range(3):
            spots = rng.integers(0, 16, (4, 2))
            masks = [blob(*spot, 6) if rng.random() < 0.8 else None for spot in spots]
            masks[0] = blob(*spots[0], 6)
            annotations.append({"id": len(annotations) + 1, "video_id": 10 + video, "iscrowd": 0,
                                "category_id": int(rng.choice([3, 7])), "segmentations": masks})  # fmt: skip
    entries = [{"id": 10 + at, "width": 32, "height": 24, "length": 4, "file_names": []} for at in range(videos)]
    return parse_truth({"videos": entries, "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
                        "annotations": annotations})  # fmt: skip


def drawn_results(truth, seed=1):
    rng = np.random.default_rng(seed)
    entries = []
    for track in truth.tracks:
        moved = [None if mask is None else blob(*rng.integers(0, 16, 2), 6) for mask in track.masks]
        kept = results_to_json([track])[0]["segmentations"]
        masks = [old if rng.random() < 0.6 else new for old, new in zip(kept, moved, strict=True)]
        for copy in (masks, moved):
            entries.append({"video_id": track.video_id, "category_id": track.category_id,
                            "score": round(float(rng.random()), 1), "segmentations": copy})  # fmt: skip
    return parse_results(entries, truth)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.5))
def test_scores_may_be_shifted_classes_renamed_and_time_reversed(seed, shift):
    truth = drawn_truth(seed)
    found = drawn_results(truth, seed)
    wanted = evaluate_tracks(truth, found).stats
    assert 0 < wanted["AR100"] <= 1
    assert evaluate_tracks(truth, [replace(one, score=one.score + shift) for one in found]).stats == wanted
    other = {3: 7, 7: 3}
    swapped = [[replace(one, category_id=other[one.category_id]) for one in side] for side in (truth.tracks, found)]
    assert evaluate_tracks(replace(truth, tracks=swapped[0]), swapped[1]).stats == pytest.approx(wanted, abs=1e-12)
    back = [
        [replace(one, masks=one.masks[::-1], areas=one.areas[::-1]) for one in side] for side in (truth.tracks, found)
    ]
    assert evaluate_tracks(replace(truth, tracks=back[0]), back[1]).stats == wanted


def test_the_truth_itself_is_perfect_and_nothing_is_zero():
    truth = drawn_truth()
    found = parse_results(results_to_json(truth.tracks), truth)
    assert evaluate_tracks(truth, found).stats["AP"] == pytest.approx(1)
    assert evaluate_tracks(truth, []).stats["AP"] == 0
    frames = evaluate_tracks(*single_frames(truth, found)).stats
    assert frames["AP"] == pytest.approx(1)


def test_lost_identities_cost_track_precision_but_no_frame_precision():
    truth = drawn_truth()
    halves = []
    for track in truth.tracks:
        for part in (slice(0, 2), slice(2, 4)):
            masks = [mask if part.start <= at < part.stop else None for at, mask in enumerate(track.masks)]
            halves.append(replace(track, masks=tuple(masks)))
    assert evaluate_tracks(*single_frames(truth, halves)).stats["AP"] == pytest.approx(1)
    assert evaluate_tracks(truth, halves).stats["AP"] < 0.6
    chosen = single_frames(truth, halves, lambda video, frame: video == 11 and frame < 2)
    assert len(chosen[0].videos) == 2


def test_files_come_back_as_they_were_written():
    truth = drawn_truth()
    assert parse_truth(json.loads(json.dumps(truth_to_json(truth)))).tracks == truth.tracks
    found = [replace(one, frame_scores=(0.1, 0.2, 0.3, 0.4)) for one in drawn_results(truth)]
    assert parse_results(json.loads(json.dumps(results_to_json(found))), truth) == found


def test_equal_scores_stay_in_the_order_of_the_file():
    found = drawn_results(drawn_truth())
    ranked = best_first([replace(one, score=0.5) for one in found])
    assert [one.masks for one in ranked] == [one.masks for one in found]


RESULT = {"video_id": 10, "category_id": 3, "score": 0.5, "segmentations": [None] * 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 1}, "result 0 of the results is of video 1, which the ground truth does not have"),
        ({"category_id": 1}, "is of category 1; the ground truth has 3, 7. Write ids, not positions"),
        ({"score": float("nan")}, "has score: nan; needed is a finite number"),
        ({"score": None}, "has score: missing"),
        ({"segmentations": [None] * 3}, "has 3 masks, but video 10 has 4 frames"),
        ({"segmentations": "x"}, "needed is a list with a mask or null a frame"),
        ({"segmentations": [{"size": [1, 1], "counts": [1]}, None, None, None]}, r"frame 0: a mask says that it is of"),
        ({"segmentations": [{"size": [24, 32], "counts": [5]}, None, None, None]}, "the runs of a mask hold 5 pixels"),
        ({"segmentations": [{"size": [24, 32], "counts": "!"}, None, None, None]}, "which run lengths do not"),
        ({"segmentations": [7, None, None, None]}, "a mask cannot be decoded"),
        ({"video_id": True}, "has video_id: True; needed is a whole number"),
        ({"frame_scores": [0.5]}, "needed are 4 numbers, as masks"),
    ],
)
def test_wrong_results_are_named(change, message):
    with pytest.raises(DataError, match=message):
        parse_results([RESULT | change], drawn_truth())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is not a YouTube-VIS ground truth"),
        ({"videos": 3}, "has videos: 3; needed is a list of objects"),
        ({"videos": [{"id": 1, "width": 0}]}, r"videos\[0\] .* has width: 0; needed is a whole number from 1"),
        ({"videos": [{"id": 1, "width": 1, "height": 1, "length": 1}] * 2}, "which another video has already"),
        ({"videos": [], "categories": []}, "has annotations: missing.* A test file without annotations"),
    ],
)
def test_wrong_truth_is_named(content, message):
    with pytest.raises(DataError, match=message):
        parse_truth(content)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(DataError, match="are not results of YouTube-VIS"):
        parse_results({}, drawn_truth())
    with pytest.raises(DataError, match="result 0 of the results is 3; needed is an object"):
        parse_results([3], drawn_truth())
    with pytest.raises(MissingDataError, match="there is no file"):
        read_truth(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_truth(tmp_path)
    (tmp_path / "x.json").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="If it is a zip archive, unpack it first"):
        read_truth(tmp_path / "x.json")
    short = parse_results([RESULT | {"segmentations": [None]}], drawn_truth(), strict=False)
    pytest.importorskip("trackeval", reason="needs the extra hota")
    with pytest.raises(DataError, match="HOTA needs a mask or null for each frame"):
        evaluate_hota(drawn_truth(), short)


def test_what_trackeval_refuses_becomes_one_error():
    pytest.importorskip("trackeval", reason="needs the extra hota")
    with pytest.raises(DataError, match="TrackEval cannot judge these tracks"):
        evaluate_hota(replace(drawn_truth(), videos={}, tracks=[]), [])
