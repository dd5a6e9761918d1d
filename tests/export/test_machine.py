"""What the machine does with 8-bit products."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tenfold.export import machine


def test_the_probe_is_the_model_that_its_comment_says():
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])],
        [numpy_helper.from_array(np.full((2, 1), 127, np.int8), "b")],
    )
    wanted = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=4)
    wanted.producer_name = ""  # set, though empty
    found = onnx.load_model_from_string(machine._PROBE)
    assert found == wanted


def test_the_probe_finds_what_a_larger_product_shows():
    generator = np.random.default_rng(0)
    a = generator.integers(200, 256, (4, 64)).astype(np.uint8)
    b = generator.integers(100, 128, (64, 4)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [4, 4])],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": a})
    assert machine.saturates() == (not np.array_equal(found, a.astype(int) @ b.astype(int)))


def test_settings_follow_from_profile_and_machine(monkeypatch):
    def settings(**metadata):
        return machine.session_settings(metadata).keys()

    for is_saturating in (True, False):
        monkeypatch.setattr(machine, "saturates", lambda value=is_saturating: value)
        assert "session.disable_quant_qdq" in settings(profile="compact", any_cpu=True)
        assert "session.disable_quant_qdq" not in settings(profile="fast", any_cpu=True)
        assert "session.x64quantprecision" not in settings(profile="fast", any_cpu=True)
        assert ("session.x64quantprecision" in settings(profile="fast", any_cpu=False)) is is_saturating
        assert machine.needs_precision({}) is False
