"""`tenfold search autospace`: from data and a budget to a network that `fit` trains, quantizes and exports."""

import json

import pytest

from tenfold.models import Architecture, build
from tenfold.search import read_space

QUICK = ["--image-size", 8, "--subset", 160, "--batch-size", 16, "--epochs", 1, "--device", "cpu"]
FEW = ["--set", "rounds=1", "--set", "evolved=2", "--set", "population=4", "--set", "kept=1"]


@pytest.mark.slow  # a search, a training and an export, each once
def test_a_found_network_trains_quantizes_and_exports_like_any_other(tenfold, tmp_path):
    run = tmp_path / "search"
    done = tenfold("search", "autospace", *QUICK, *FEW, "--budget", "macs=500k", "-o", run, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["cost"]["macs"] <= 500_000
    assert build(Architecture.from_dict(found["architecture"])).genes()[0] == "512112/0/00"
    assert [len(layer) for layer in found["space"]] == [1] * 5
    report = (run / "report.html").read_text()
    assert report.count("<figcaption>Block ") == 10
    assert "Expected MACs" not in report  # one round is no curve
    words = ["fit", "--recipe", run / "found.toml", *QUICK, "--method", "fracbits", "-o", tmp_path / "fit", "--json"]
    fitted = tenfold(*words, "--budget", "macs=500k,bitops=12M")
    assert fitted.code == 0, fitted.err
    assert fitted.json["cost"]["after"]["bitops"] <= 12e6
    assert fitted.json["cost"]["after"]["macs"] == found["cost"]["macs"]
    exported = tenfold("export", tmp_path / "fit" / "artifact.safetensors", "-o", tmp_path / "net.onnx")
    assert exported.code == 0, exported.err
    assert [list(layer) for layer in read_space(str(run))] == found["space"]


def test_what_cannot_be_searched_is_said_at_once(tenfold, tmp_path):
    def fails(code, *words):
        done = tenfold("search", "autospace", *QUICK, *words, "-o", tmp_path / "run")
        assert done.code == code, done.err
        return done.words

    assert "the least is" in fails(3, "--budget", "macs=10k")
    assert "not on bytes" in fails(2, "--budget", "bytes=10k")
    assert "unknown option of the search 'round'. Did you mean rounds" in fails(2, "--set", "round=3")
    assert "mutation is 3; allowed is 0 to 1" in fails(2, "--set", "mutation=3")
    assert "does not go with --space hand-made" in fails(2, "--space", "hand-made", "--set", "rounds=3")
    assert "the space has 11 layers, but this skeleton needs 5" in fails(2, "--space", "published")
    assert "there is no space" in fails(1, "--space", tmp_path / "nothing")
    (tmp_path / "space.json").write_text(json.dumps({"layers": 3}))
    assert "is no space" in fails(1, "--space", tmp_path)
