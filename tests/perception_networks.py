"""Networks that stand in for those that users bring to judge filled video by."""

import onnx
import torchvision
from onnx import TensorProto, helper

BUILD_ALEXNET = torchvision.models.alexnet
"""As torchvision has it; tests put another in its place."""


def write_network(path, *, inputs=("windows",), shape=("B", 3, "T", "H", "W"), operator="GlobalAveragePool"):
    """The mean of each colour over a window, or another operator."""
    made = helper.make_graph(
        [helper.make_node(operator, inputs, ["features"])],
        "features",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path
