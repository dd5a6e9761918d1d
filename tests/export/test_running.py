"""Running ONNX files: engines, answers, accuracy, timing; on files made by hand."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tenfold.errors import ArtifactError, DataError, MissingDataError, ShapeError, UnknownNameError, UsageError
from tenfold.export.benchmark import bench
from tenfold.export.engine import ENGINES, open_engine
from tenfold.export.metadata import KEY, read_metadata
from tenfold.export.prediction import evaluate, predict, read_task

LABELS = ["dark", "bright", "never"]
TASK = {
    "task": "classify",
    "labels": LABELS,
    "num_outputs": 3,
    "preprocess": {"size": 4, "resize": 4, "channels": 3, "pixels": True},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def brightness(tmp_path):
    """A file that answers "bright" above a mean pixel of 127.5, and "dark" below."""
    weights = np.array([[-1, 1, 0]] * 3, np.float32)
    bias = np.array([3 * 127.5, -3 * 127.5, -1000], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
            helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {"other": "entry", KEY: json.dumps({"task": TASK, "profile": "float"})})
    path = tmp_path / "brightness.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for name, level in (("dark", 20), ("bright", 230)):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(paths[-1])
    return paths


def test_metadata_is_read_without_any_onnx_package(brightness):
    assert read_metadata(brightness)["task"] == TASK
    assert read_task(brightness)["labels"] == LABELS


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_answers_are_the_same_in_every_runtime(engine, brightness, pictures):
    found = predict(brightness, pictures, engine=engine, top=2, threads=1)
    assert [prediction.answers[0][0] for prediction in found] == ["dark", "bright"]
    assert all(len(prediction.answers) == 2 and prediction.answers[0][1] > 0.99 for prediction in found)


def test_accuracy_counts_first_answers(brightness):
    images = np.stack([np.full((3, 4, 4), level, np.float32) for level in (0, 250, 250)])
    found = evaluate(brightness, [(images, np.array([0, 1, 0]))], engine="onnxruntime")
    assert found.metrics == pytest.approx({"top1": 2 / 3})  # of three classes, five answers say nothing
    assert (found.images, found.engine) == (3, "onnxruntime")


def test_the_faster_runtime_is_measured_once_and_remembered(brightness, tmp_path, monkeypatch):
    first = open_engine(brightness, threads=1).name
    (remembered,) = json.loads((tmp_path / "cache" / "engines.json").read_text()).values()
    assert remembered == first
    monkeypatch.setattr("tenfold.export.engine.interleaved", lambda *_, **__: pytest.fail("measured twice"))
    assert open_engine(brightness, threads=1).name == first


def test_bench_times_every_file_in_every_runtime(brightness):
    rows = bench([brightness, brightness], rounds=1, threads=1)
    assert [row.engine for row in rows] == [*ENGINES, *ENGINES]
    assert rows[0].speedup == 1
    assert all(row.timing.median_ms > 0 for row in rows)
    assert all(row.to_dict()["size_bytes"] == brightness.stat().st_size for row in rows)


def test_wrong_arguments_say_what_is_allowed(brightness, pictures):
    with pytest.raises(
        UnknownNameError, match="unknown engine 'onnxruntme'. Did you mean onnxruntime".replace(".", r"\.")
    ):
        open_engine(brightness, "onnxruntme")
    with pytest.raises(ShapeError, match=r"takes images of any x 3 x 4 x 4 .*; got 1 x 3 x 5 x 4"):
        open_engine(brightness, "onnxruntime").run(np.zeros((1, 3, 5, 4), np.float32))
    with pytest.raises(UsageError, match="batch is 0"):
        bench([brightness], batch=0)
    with pytest.raises(UsageError, match="nothing to time"):
        bench([])
    with pytest.raises(DataError, match="no images to predict"):
        predict(brightness, [])
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate(brightness, [])


def test_missing_damaged_and_foreign_files_are_refused(brightness, tmp_path):
    with pytest.raises(MissingDataError, match="there is no file"):
        open_engine(tmp_path / "nothing.onnx")
    content = brightness.read_bytes()
    for name, damaged in {"cut": content[: len(content) // 2], "empty": b"", "text": b"not a network" * 9}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"is damaged, or not an ONNX file|cannot run"):
            open_engine(path, "onnxruntime")
    model = onnx.load(brightness)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="does not say how to prepare images"):
        read_task(tmp_path / "foreign.onnx")


def test_predicting_imports_no_torch(brightness, pictures):
    code = (
        "import sys; from tenfold.export import predict\n"
        f"predict({str(brightness)!r}, [{str(pictures[0])!r}], engine='onnxruntime')\n"
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules or 'pydantic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


_CLOSING = """
import gc, signal, sys
from pathlib import Path
from tenfold.export.engine import open_engine
signal.signal(signal.SIGINT, lambda *_: print("handled"))
engines = [open_engine(Path(sys.argv[1]), "openvino") for _ in range(2)]
while engines:
    engines.pop(0)
    gc.collect()
signal.raise_signal(signal.SIGINT)
"""


def test_signals_have_a_stack_after_engines_were_closed(brightness):
    result = subprocess.run([sys.executable, "-c", _CLOSING, brightness], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr
