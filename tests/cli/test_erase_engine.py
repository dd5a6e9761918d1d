"""`tenfold erase --engine`: what runs the network behind it, and what is said of that."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from tenfold.export.metadata import KEY
from video_files import moving_square, write_video

WORDS = ("--preset", "fast", "--dilate", "3", "-o", "out.mp4")


def write_painter(path, added):
    """An .onnx file that paints what it is shown, and something added."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    numbers = {"from": [0], "to": [3], "axis": [1]}
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["window", *numbers], ["colours"]),
            helper.make_node("Add", ["colours", "added"], ["painted"]),
        ],
        "painter",
        [helper.make_tensor_value_info("window", floats, ["frames", 11, "height", "width"])],
        [helper.make_tensor_value_info("painted", floats, ["frames", 3, "height", "width"])],
        [
            *(helper.make_tensor(name, onnx.TensorProto.INT64, [1], value) for name, value in numbers.items()),
            helper.make_tensor("added", floats, [1], [added]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    facts = {"version": 1, "profile": "float", "task": {}, "input_shape": [11, 16, 16]}
    model.metadata_props.add(key=KEY, value=json.dumps(facts))
    onnx.save(model, path)
    return path


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A clip, and a mask of what no frame shows."""
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((48, 64), np.uint8)
    mask[30:40, 30:44] = 255
    Image.fromarray(mask).save("mask.png")
    return (write_video(tmp_path / "clip.mp4", moving_square(5)), "--masks", "mask.png")


@pytest.mark.slow  # loads OpenVINO, and erases several times
def test_auto_times_the_runtimes_of_a_file_and_says_what_each_would_fill(tenfold, clip, tmp_path):
    write_painter(tmp_path / "painter.onnx", 0.5)
    outcome = tenfold("erase", *clip, *WORDS, "--network", "painter.onnx", "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json["engine"]
    assert set(report["milliseconds"]) == {"onnxruntime", "openvino"}
    assert report["engine"] in report["milliseconds"]
    assert report["reference"] == "onnxruntime"
    assert report["differences"] == {"openvino": {"largest": 0, "mean": 0}}
    assert f"filled by a network that {report['engine']} ran (first call: onnxruntime" in outcome.words
    assert "openvino differs from onnxruntime by 0 of 255 levels on average, 0 at most" in outcome.words
    other = tenfold("erase", *clip, *WORDS, "--network", "painter.onnx", "--engine", "openvino", "--json")
    assert other.json["engine"]["engine"] == "openvino"
    assert tenfold("erase", *clip, *WORDS, "--json").json["engine"] is None


@pytest.mark.slow  # loads PyTorch and OpenVINO, and erases several times
def test_a_run_folder_with_an_export_is_run_by_all_and_held_against_pytorch(tenfold, clip, tmp_path):
    import torch

    from tenfold import build
    from tenfold.export import write_artifact

    torch.manual_seed(0)
    network = build("tsam_tiny").eval()
    (tmp_path / "run").mkdir()
    header = {"architecture": network.architecture.to_dict(), "schemes": {}, "task": {}, "metrics": {}}
    write_artifact(tmp_path / "run/artifact.safetensors", network.state_dict(), header)
    assert (
        "Make one by `tenfold export`"
        in tenfold("erase", *clip, *WORDS, "--network", "run", "--engine", "onnxruntime").words
    )
    write_painter(tmp_path / "run/fast.onnx", 0.5)
    outcome = tenfold("erase", *clip, *WORDS, "--network", "run", "--engine", "onnxruntime", "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json["engine"]
    assert report["engine"] == "onnxruntime"
    assert list(report["milliseconds"]) == ["torch", "onnxruntime", "openvino"]
    assert report["reference"] == "torch"
    gap = report["differences"]["onnxruntime"]
    assert 0 < gap["mean"] < gap["largest"] <= 255
    same = tenfold("erase", *clip, *WORDS, "--network", "run/fast.onnx", "--engine", "torch", "--json")
    assert same.json["engine"]["engine"] == "torch"
    os.utime(tmp_path / "run/fast.onnx", (0, 0))  # the network was trained anew since
    only = tenfold("erase", *clip, *WORDS, "--network", "run", "--json")
    assert list(only.json["engine"]["milliseconds"]) == ["torch"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "openvino"), "--engine means nothing without --network"),
        (("--network", "painter.onnx", "--engine", "torch"), "no artifact beside it that PyTorch could run"),
        (("--network", "tsam_tiny", "--engine", "openvino"), "--engine openvino runs .onnx files on the CPU, and"),
    ],
)
def test_an_engine_that_cannot_run_it_is_refused(tenfold, clip, tmp_path, words, message):
    write_painter(tmp_path / "painter.onnx", 0.5)
    outcome = tenfold("erase", *clip, *WORDS, *words)
    assert outcome.code == 2
    assert message in outcome.words
