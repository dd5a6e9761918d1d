"""`tenfold export`, `eval`, `predict`, `bench` and `demo`: from an artifact to answers."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tenfold.cli.demo import LARGEST_LOSS, LARGEST_SIZE, Judged, _check
from tenfold.errors import TrainingError

SMALL = ("--model", "convnet_tiny", "--epochs", "2", "--batch-size", "64", "--lr", "0.05", "--pixels")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A 4-bit network, its files, and pictures of digits."""
    from sklearn.datasets import load_digits

    from tenfold.cli.main import run

    folder = tmp_path_factory.mktemp("run") / "sat"
    assert run(["fit", *SMALL, "--method", "sat", "--bits", "4/4", "--out", str(folder)]) == 0
    assert run(["export", str(folder), "--profile", "compact"]) == 0
    digits = load_digits()
    for idx in range(2):
        pixels = np.rint(digits.images[idx] * 255 / 16).astype(np.uint8)
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / f"{idx}.png")
    return folder


@pytest.mark.slow  # the fixture trains and exports
def test_an_export_reports_how_faithful_it_is(tenfold, run_folder, tmp_path):
    done = tenfold(
        "export", run_folder / "artifact.safetensors", "-o", tmp_path / "net.onnx", "--profile", "compact", "--json"
    )
    assert done.code == 0, done.err
    result = done.json
    assert result["profile"] == "compact"
    assert result["file_bytes"] == (tmp_path / "net.onnx").stat().st_size
    assert result["top1_agreement"] >= 0.95
    shown = tenfold("export", run_folder, "-o", tmp_path / "net.onnx", "--profile", "compact")
    assert "Same answer" in shown.words
    assert shown.out.strip() == str(tmp_path / "net.onnx")


@pytest.mark.slow  # the fixture trains and exports
def test_artifact_and_exported_file_are_equally_good(tenfold, run_folder):
    trained = tenfold("eval", run_folder, "--json").json
    exported = tenfold("eval", run_folder / "compact.onnx", "--engine", "onnxruntime", "--json").json
    assert trained["images"] == exported["images"] == 359
    assert trained["metrics"]["top1"] > 0.5
    assert round(359 * abs(trained["metrics"]["top1"] - exported["metrics"]["top1"])) <= 1  # of float32 shares
    report = json.loads((run_folder / "report.json").read_text())
    assert trained["metrics"]["top1"] == pytest.approx(report["metrics"]["final"]["top1"])
    assert "top1" in tenfold("eval", run_folder / "compact.onnx", "--engine", "onnxruntime").out


@pytest.mark.slow  # the fixture trains and exports
def test_both_say_the_same_about_images(tenfold, run_folder):
    by_artifact = tenfold("predict", run_folder / "artifact.safetensors", run_folder / "images", "--json").json
    by_file = tenfold(
        "predict", run_folder / "compact.onnx", run_folder / "images", "--engine", "onnxruntime", "--json"
    ).json
    assert len(by_artifact["predictions"]) == len(by_file["predictions"]) == 2
    for one, other in zip(by_artifact["predictions"], by_file["predictions"], strict=True):
        assert one["image"] == other["image"]
        assert one["answers"][0]["label"] == other["answers"][0]["label"]
        assert one["answers"][0]["probability"] == pytest.approx(other["answers"][0]["probability"], abs=1e-3)


@pytest.mark.slow  # the fixture trains and exports
def test_an_exported_file_runs_without_torch(run_folder):
    words = [
        "predict",
        str(run_folder / "compact.onnx"),
        str(run_folder / "images" / "0.png"),
        "--engine",
        "onnxruntime",
    ]
    program = f"""
import sys
from tenfold.cli.main import run
code = run({words!r}) or run({["eval", str(run_folder / "compact.onnx"), "--engine", "onnxruntime"]!r})
assert "torch" not in sys.modules
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # the fixture trains and exports
def test_files_are_timed_side_by_side(tenfold, run_folder):
    file = run_folder / "compact.onnx"
    done = tenfold("bench", file, file, "--engine", "onnxruntime", "--rounds", "2", "--json")
    assert done.code == 0, done.err
    rows = done.json["rows"]
    assert len(rows) == 2
    assert rows[0]["timing"]["median_ms"] > 0
    assert "compact.onnx" in tenfold("bench", file, "--engine", "onnxruntime", "--rounds", "2").out


@pytest.mark.slow  # the fixture trains and exports
def test_an_exported_file_is_profiled_by_its_own_notes(tenfold, run_folder):
    found = tenfold("profile", run_folder / "compact.onnx", "--json").json
    assert found["bytes"] == (run_folder / "compact.onnx").stat().st_size
    assert found["profile"] == "compact"
    assert found["input"] == [1, 8, 8]


@pytest.mark.slow  # the fixture trains and exports
def test_data_with_other_classes_are_refused(tenfold, run_folder, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for idx in range(5):
            Image.new("L", (8, 8), idx).save(tmp_path / name / f"{idx}.png")
    for file in ("artifact.safetensors", "compact.onnx"):
        done = tenfold("eval", run_folder / file, "--data", tmp_path, "--engine", "onnxruntime")
        assert done.code == 2
        assert (
            "other classes than the network: 2 instead of 10, the first that differs is 'cat' and not '0'" in done.words
        )


@pytest.mark.slow  # the fixture trains and exports
def test_a_picture_that_cannot_be_read_is_named(tenfold, run_folder, tmp_path):
    (tmp_path / "broken.png").write_bytes((run_folder / "images" / "0.png").read_bytes()[:40])
    done = tenfold("predict", run_folder / "compact.onnx", tmp_path / "broken.png", "--engine", "onnxruntime")
    assert done.code == 1
    assert "broken.png" in done.words


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("predict", "net.onnx"), 2, "which images?"),
        (("predict", "net.onnx", "a.png", "--top", "0"), 2, "--top 0 is not allowed"),
        (("predict", "gone.onnx", "a.png"), 1, "gone.onnx"),
        (("eval", "gone.onnx"), 1, "gone.onnx"),
        (("eval", "gone.safetensors"), 1, "there is no artifact at gone.safetensors"),
        (("export", "gone.safetensors"), 1, "there is no artifact at gone.safetensors"),
        (("export", "gone.safetensors", "-o", "net.txt"), 2, "must end in .onnx"),
        (("export", "gone.safetensors", "--profile", "fats"), 2, 'Did you mean "fast"?'),
        (("bench",), 2, "nothing to time"),
        (("bench", "gone.onnx"), 1, "gone.onnx"),
        (("bench", "gone.onnx", "--bits", "8,4,8/8"), 2, "names 8/8 twice; keep one of them"),
    ],
)
def test_wrong_usage_says_what_to_do(tenfold, words, code, message):
    done = tenfold(*words)
    assert done.code == code
    assert message in done.words


def test_a_folder_without_images_is_named(tenfold, run_folder, tmp_path):
    done = tenfold("predict", run_folder / "compact.onnx", tmp_path)
    assert done.code == 1
    assert "holds no images" in done.words


@pytest.mark.slow  # trains two networks and exports three files
def test_the_demo_runs_to_its_report(tenfold, tmp_path):
    done = tenfold("demo", "--quick", "--out", tmp_path / "demo", "--json")
    assert done.code == 0, done.err
    sizes = {row["profile"]: row["bytes"] for row in done.json["exports"]}
    assert sizes["compact"] <= sizes["float"] * LARGEST_SIZE
    assert len(done.json["bench"]) == 3
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "Exported files" in page
    assert "Speed in the runtime" in page
    again = tenfold("demo", "--help")
    assert "within a point" in again.out


def test_the_demo_fails_where_its_promise_does_not_hold(tmp_path):
    class Report:
        def __init__(self, file_bytes):
            self.file_bytes = file_bytes

    def judged(file_bytes, top1):
        return Judged(tmp_path / "x.onnx", Report(file_bytes), top1)

    _check([judged(600, 0.9), judged(100, 0.9 - LARGEST_LOSS + 1e-9), judged(400, 0.9)], accuracy=True)
    with pytest.raises(TrainingError, match="of the bytes"):
        _check([judged(600, 0.9), judged(101, 0.9)], accuracy=True)
    with pytest.raises(TrainingError, match="one point less is promised"):
        _check([judged(600, 0.9), judged(100, 0.88)], accuracy=True)
    _check([judged(600, 0.9), judged(100, 0.5)], accuracy=False)


@pytest.mark.slow  # finds, follows and erases in a clip of 16 frames
def test_the_demo_of_erasing_tells_how_near_it_came(tenfold, tmp_path):
    picture = tmp_path / "look.jpg"
    done = tenfold("demo", "erase", "--quick", "--out", tmp_path / "demo", "--picture", picture, "--json")
    assert done.code == 0, done.err
    assert done.json["psnr_db"] > done.json["psnr_with_object_db"] + 6
    assert picture.stat().st_size > 5000
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["clean.mp4", "sample.mp4"]
    assert tenfold("demo", "--picture", picture).code == 2
