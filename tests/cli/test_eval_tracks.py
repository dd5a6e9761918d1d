"""`tenfold eval-tracks`."""

import json

import pytest

pytest.importorskip("pycocotools", reason="needs the extra video")

MASK = {"size": [4, 4], "counts": [0, 8, 8]}
TRUTH = {
    "videos": [{"id": 5, "width": 4, "height": 4, "length": 2, "file_names": []}],
    "categories": [{"id": 9, "name": "owl"}],
    "annotations": [{"id": 1, "video_id": 5, "category_id": 9, "iscrowd": 0, "segmentations": [MASK, MASK]}],
}
RESULT = {"video_id": 5, "category_id": 9, "score": 0.7, "segmentations": [MASK, None]}


@pytest.fixture
def files(tmp_path):
    def write(results, truth=TRUTH):
        paths = tmp_path / "results.json", tmp_path / "truth.json"
        for path, content in zip(paths, (results, truth), strict=True):
            path.write_text(json.dumps(content))
        return paths

    return write


def test_json_holds_the_official_numbers(tenfold, files):
    done = tenfold("eval-tracks", *files([RESULT]), "--frames", "--json")
    assert done.code == 0, done.err
    assert done.json["stats"]["AP50"] == pytest.approx(1)
    assert done.json["stats"]["AP75"] == 0
    assert done.json["per_category"]["owl"]["AP"] == pytest.approx(0.1)
    assert done.json["frames"]["AP"] == pytest.approx(51 / 101)
    assert "hota" not in done.json


def test_the_table_names_the_categories(tenfold, files):
    pytest.importorskip("trackeval", reason="needs the extra hota")
    done = tenfold("eval-tracks", *files([RESULT]), "--frames", "--hota")
    assert done.code == 0, done.err
    for words in ("owl", "AP50", "100.0%", "frame by frame", "HOTA", "identity switches 0", "large -"):
        assert words in done.out


def test_a_short_result_is_refused_unless_leniency_is_asked_for(tenfold, files):
    short = files([RESULT | {"segmentations": [MASK]}])
    refused = tenfold("eval-tracks", *short)
    assert refused.code == 1
    assert "has 1 masks, but video 5 has 2 frames" in refused.words
    assert tenfold("eval-tracks", *short, "--lenient", "--json").json["stats"]["AP"] == pytest.approx(1)
