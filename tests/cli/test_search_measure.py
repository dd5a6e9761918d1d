"""`tenfold search measure`."""

import pytest

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
