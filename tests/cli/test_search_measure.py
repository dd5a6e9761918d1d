"""`tenfold search measure`."""

import json

import pytest

from tenfold.search import CandidateSpace
from tenfold.search.tables import write_columns

pytest.importorskip("pyarrow", reason="needs the extra search")
QUICK = ["--subset", 64, "--image-size", 16, "--epochs", 1, "--batch-size", 32, "--device", "cpu", "--channels", 8]


@pytest.mark.slow  # starts a process
def test_a_table_is_measured_and_named(tenfold, tmp_path):
    on = ("--on", "classify,lr=0.01", "--on", "recognize,frames=2", "--counts", 1)
    done = tenfold("search", "measure", *QUICK, *on, "--count", 1, "-o", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert "1/1 classify/top1" in done.words
    assert done.json["table"] == str(tmp_path / "run" / "table.parquet")
    assert "recognize/top1" in done.words
    again = tenfold("search", "measure", *QUICK, *on, "--count", 1, "-o", tmp_path / "run")
    assert again.code == 2
    assert "Go on with it by resume" in again.words


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--vary", "width=1"], "does not go with --model multires"),
        (["--model", "mobilenet_v2", "--vary", "width"], "Write an option and its numbers"),
        (["--model", "mobilenet_v2", "--vary", "width=a,b"], "Write an option and its numbers"),
        (["--model", "mobilenet_v2", "--vary", "width=1,1"], "names a value twice"),
        (["--model", "mobilenet_v2"], "nothing varies in 'mobilenet_v2'"),
        (["--on", "classify,subset"], "--on 'classify,subset': 'subset' is not NAME=VALUE"),
        (["--on", "classify,subsets=8"], "unknown option of the task 'classify'"),
        (["--on", "classify,epochs=-1"], "epochs = -1: must be"),
        (["--counts", "5"], "counts is 5; allowed is 1 to 4"),
        (["--model", "mobilenet_v9", "--vary", "width=1"], "unknown model 'mobilenet_v9'"),
    ],
)
def test_what_makes_no_sense_is_refused(tenfold, tmp_path, words, reason):
    done = tenfold("search", "measure", *words, "-o", tmp_path / "run")
    assert done.code == 2
    assert reason in done.words


@pytest.mark.slow
def test_what_is_found_in_a_table_of_ones_own_trains_with_learned_bits_and_is_exported(tenfold, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    # 20 rows, the fewest to learn from; what stands in the table is not measured.
    space = CandidateSpace.multires(channels=8, counts=2)
    codes = space.draw(20, 0)
    columns = {name: [code[name] for code in codes] for name in codes[0]}
    columns |= {"classify/top1": [float(sum(code.values())) for code in codes], "error": [""] * len(codes)}
    write_columns(columns, tmp_path / "run" / "table.parquet", None)
    quick = ["--subset", 64, "--image-size", 16, "--epochs", 1, "--batch-size", 32, "--device", "cpu"]
    words = ("--channels", 8, "--counts", 2, "--count", 20, "-o", tmp_path / "run")
    done = tenfold("search", "measure", *quick, *words)
    assert done.code == 0, done.err
    table = tmp_path / "run" / "table.parquet"
    done = tenfold(
        "search",
        "ncp",
        table,
        "--target",
        "classify",
        "--predictor",
        "gp",
        "--budget",
        "macs=700k",
        "-o",
        tmp_path / "ncp",
    )
    assert done.code == 0, done.err
    assert "of 16x16 pixels, 10 classes" in done.words
    trained = ("--method", "fracbits", "--like", "uniform:4", "--epochs", 2, *quick[:4], *quick[6:])
    done = tenfold("fit", "--recipe", tmp_path / "ncp" / "found.toml", *trained, "--out", tmp_path / "fit", "--json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "ncp" / "result.json").read_text())["best"]
    assert done.json["cost"]["before"]["macs"] == found["costs"]["macs"] <= 700_000
    done = tenfold("export", tmp_path / "fit", "--profile", "compact", "--json")
    assert done.code == 0, done.err
    assert done.json["relative_error"] < 0.05
