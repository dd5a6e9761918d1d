"""A file of several inputs and outputs gives the same in every runtime, by name."""

import numpy as np
import pytest

from tenfold.errors import ArtifactError, UnknownNameError
from tenfold.export.step_session import StepSession

onnx = pytest.importorskip("onnx", reason="needs the extra export")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
FACTS = {"profile": "video-step"}


@pytest.fixture
def step(tmp_path):
    """`sum` and `empty` of a frame and a state of bools; and a state that nothing follows from."""
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["state.filled"], ["number"], to=kinds.FLOAT),
            helper.make_node("Add", ["frame", "number"], ["sum"]),
            helper.make_node("Not", ["state.filled"], ["empty"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("frame", kinds.FLOAT, [1, 3]),
            helper.make_tensor_value_info("state.filled", kinds.BOOL, [3]),
        ],
        [
            helper.make_tensor_value_info("sum", kinds.FLOAT, [1, 3]),
            helper.make_tensor_value_info("empty", kinds.BOOL, [3]),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "step.onnx"
    )
    return tmp_path / "step.onnx"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_outputs_have_their_names_and_stay_when_it_runs_again(step, engine):
    session = StepSession(step, FACTS, engine, threads=1)
    assert session.shapes == {"frame": (1, 3), "state.filled": (3,)}
    filled = np.array([True, False, True])
    first = session.run({"frame": np.ones((1, 3), np.float32), "state.filled": filled, "state.unused": filled})
    session.run({"frame": np.zeros((1, 3), np.float32), "state.filled": filled})
    np.testing.assert_array_equal(first["sum"], [[2, 1, 2]])
    np.testing.assert_array_equal(first["empty"], ~filled)
    assert first["empty"].dtype == np.bool_


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_a_runtime_cannot_run_is_said(tmp_path, engine):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=rf"{engine} cannot run .*broken.onnx: "):
        StepSession(tmp_path / "broken.onnx", FACTS, engine)
    with pytest.raises(UnknownNameError, match="unknown engine 'tensorrt'"):
        StepSession(tmp_path / "broken.onnx", FACTS, "tensorrt")
