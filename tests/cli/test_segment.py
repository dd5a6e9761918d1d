"""Segmentation by every verb: fit, resume, eval, export, predict, profile; and the methods that go with it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from masked_images import make_pair, write_segmentation
from tenfold.data import read_image
from tenfold.data.masks import read_mask

SMALL = ("--task", "segment", "--model", "mobilenet_v2_tiny", "--set", "model.width=0.25", "--batch-size", "4")
CALM = ("--set", "task.scale=[1.0,1.0]", "--set", "model.head_channels=16", "--set", "task.pixels=true")


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_segmentation(tmp_path_factory.mktemp("data") / "squares", train=16, evaluation=4)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, squares):
    """A 4-bit segmentation network with its compact file."""
    from tenfold.cli.main import run

    folder = tmp_path_factory.mktemp("run")
    words = ("fit", *SMALL, *CALM, "--data", squares, "--lr", "0.1", "--epochs", "14")
    assert run([*map(str, words), "--out", str(folder / "float")]) == 0
    start = (
        "--weights",
        folder / "float" / "artifact.safetensors",
        "--lr",
        "0.02",
        "--epochs",
        "4",
        "--calibration-batches",
        "4",
    )
    sat = ("--method", "sat", "--bits", "4/4", "--out", folder / "sat")
    assert run([str(word) for word in (*words[:-4], *start, *sat)]) == 0
    export = ("export", folder / "sat", "--data", squares, "--images", "4")
    for profile in ("compact", "fast"):
        assert run([str(word) for word in (*export, "--profile", profile)]) == 0
    return folder / "sat"


@pytest.mark.slow  # the fixture trains and exports
def test_the_report_tells_each_class_and_shows_pictures(run_folder):
    report = json.loads((run_folder / "report.json").read_text())
    assert report["main_metric"] == "miou"
    assert report["model"] == "segmenter on mobilenet_v2_tiny"
    final = report["metrics"]["final"]
    assert {"miou", "pixel_accuracy", "iou_ground", "iou_square", "iou_edge", "loss"} <= final.keys()
    assert final["miou"] > 0.4
    page = (run_folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(report["pictures"]) == 4
    assert "mIoU" in page
    assert "background:#ff0000" in page


@pytest.mark.slow  # the fixture trains and exports
@pytest.mark.parametrize("profile", ["compact", "fast"])
def test_artifact_and_exported_file_are_equally_good(tenfold, run_folder, squares, profile):
    trained = tenfold("eval", run_folder, "--data", squares, "--json").json
    exported = tenfold(
        "eval", run_folder / f"{profile}.onnx", "--data", squares, "--engine", "onnxruntime", "--json"
    ).json
    assert trained["images"] == exported["images"] == 4
    names = exported["metrics"] if profile == "compact" else ["pixel_accuracy"]  # the other rounds sums to 8 bits
    for name in names:
        # One code at the border of two levels decides over a patch of pixels.
        tolerance = 0.01 if profile == "compact" else 0.1
        assert exported["metrics"][name] == pytest.approx(trained["metrics"][name], abs=tolerance)
    assert "iou_square" in tenfold("eval", run_folder, "--data", squares).out


@pytest.mark.slow  # the fixture trains and exports
def test_predict_draws_masks_of_the_images_own_size(tenfold, run_folder, tmp_path):
    image, _ = make_pair(300, height=48, width=64)
    Image.fromarray(image).save(tmp_path / "one.png")
    for number, file in enumerate((run_folder / "artifact.safetensors", run_folder / "compact.onnx")):
        done = tenfold("predict", file, tmp_path / "one.png", "-o", tmp_path / f"out{number}", "--json")
        assert done.code == 0, done.err
        (told,) = done.json["predictions"]
        assert read_image(told["overlay"]).shape == (48, 64, 3)
        values = read_mask(Path(told["mask"]))
        assert values.shape == (48, 64)
        shares = {answer["label"]: answer["share"] for answer in told["answers"]}
        for value, label in enumerate(("ground", "square", "edge")):
            assert shares.get(label, 0) == pytest.approx((values == value).mean())
    first, second = (read_mask(tmp_path / f"out{number}" / "one_mask.png") for number in range(2))
    assert (first == second).mean() > 0.999


@pytest.mark.slow  # the fixture trains and exports
def test_two_images_of_one_name_are_not_drawn_over_each_other(tenfold, run_folder, squares):
    twice = [squares / "train" / "images" / "0.png", squares / "train" / "images"]
    done = tenfold("predict", run_folder, *twice, "-o", run_folder / "out")
    assert done.code == 2
    assert "several images are named '0'" in done.words


@pytest.mark.slow  # the fixture trains and exports
def test_profile_knows_the_shape_that_the_artifact_was_made_for(tenfold, run_folder):
    told = tenfold("profile", run_folder / "artifact.safetensors", "--json").json
    assert told["input"] == [3, 24, 32]
    report = json.loads((run_folder / "report.json").read_text())
    assert told["bitops"] == report["cost"]["after"]["bitops"]


@pytest.mark.slow  # six trainings
@pytest.mark.parametrize(
    "method",
    [
        ("--method", "sat", "--budget", "bitops=200M"),
        ("--method", "qat", "--bits", "4/8"),
        ("--method", "fracbits", "--like", "uniform:4"),
        ("--method", "adabits", "--bits", "8,4", "--head", "multires"),
        ("--method", "atomnas", "--method", "fracbits", "--budget", "macs=9M,bytes=40k"),
        ("--method", "autonl", "--budget", "macs=16M"),
    ],
    ids=lambda method: "+".join(word for word in method if word.isalpha()),
)
def test_every_method_goes_with_it(tenfold, squares, tmp_path, method):
    done = tenfold(
        "fit", *SMALL, *CALM[:4], "--data", squares, "--epochs", "2", *method, "--out", tmp_path / "run", "--json"
    )
    assert done.code == 0, done.err
    assert 0 <= done.json["metrics"]["final"]["miou"] <= 1
    assert tenfold("eval", tmp_path / "run", "--data", squares).code == 0


def test_weights_of_a_classifier_start_the_backbone(tmp_path):
    import torch

    from tenfold import build
    from tenfold.cli.starting_weights import start_from
    from tenfold.errors import UsageError
    from tenfold.export import write_artifact

    classifier, path = build("mobilenet_v2_tiny"), tmp_path / "classifier.safetensors"
    write_artifact(path, classifier.state_dict(), {"schemes": {}, "metrics": {"top1": 0.9}})
    segmenter = build("segmenter", network="mobilenet_v2_tiny")
    assert start_from(segmenter, path) is None  # another task: its metrics are no comparison
    assert torch.equal(segmenter.backbone.stem.conv.weight, classifier.stem.conv.weight)
    with pytest.raises(UsageError, match="do not fit this network"):
        start_from(build("segmenter", network="mobilenet_v2_tiny", options={"width": 0.25}), path)


def test_mixup_is_refused_in_words(tenfold, squares, tmp_path):
    done = tenfold("fit", *SMALL, "--data", squares, "--mixup", "0.2", "--out", tmp_path / "run")
    assert done.code == 2
    assert "the task 'segment' has one for each pixel. Set both to 0" in done.words


def test_a_head_needs_pixels(tenfold):
    done = tenfold("fit", "--model", "convnet_tiny", "--head", "lraspp", "--dry-run")
    assert done.code == 2
    assert "'head'" in done.words


def test_data_must_be_named(tenfold):
    done = tenfold("fit", *SMALL)
    assert done.code == 2
    assert "segmentation needs data: --data FOLDER" in done.words
