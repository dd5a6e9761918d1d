"""Watching the values that the profile `fast` must round although the network does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tenfold.errors import require
from tenfold.export.capture import INPUT
from tenfold.export.compact import write_compact
from tenfold.export.graph import Builder, Network, bypass

_IMAGES_AT_ONCE = 8


def observe_ranges(network: Network, images: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """Run the network, with its own quantizers at work, and report the range of each observed value.

    Args:
        network: after `place`; left as it was.
        images: calibration inputs, (B, C, H, W).

    Returns:
        Smallest and largest value by the name of the observation.
    """
    watched = network.clone()
    names = _watch(watched)
    if not names:
        return {}
    write_compact(watched)
    session = reference_session(watched.model)
    ranges: dict[str, tuple[float, float]] = {}
    outputs = [f"{name}_{end}" for name in names for end in ("min", "max")]
    for batch in batches(images):
        found = [float(value) for value in session.run(outputs, {INPUT: batch})]
        for name, low, high in zip(names, found[::2], found[1::2], strict=True):
            old = ranges.get(name, (low, high))
            ranges[name] = min(old[0], low), max(old[1], high)
    return ranges


def _watch(network: Network) -> list[str]:
    """Turn every `Observe` node into two outputs, the smallest and the largest value."""
    builder, names = Builder(network.graph), []
    for node in [node for node in network.graph if node.op_type == "Observe"]:
        name, value = node.attributes["name"].value, node.inputs[0]
        assert value is not None
        for end, operator in (("min", "ReduceMin"), ("max", "ReduceMax")):
            reduced = builder.add(node, operator, value, keepdims=0)
            reduced.name = f"{name}_{end}"
            reduced.type = ir.TensorType(ir.DataType.FLOAT)
            reduced.shape = ir.Shape([])
            network.graph.outputs.append(reduced)
        names.append(name)
        bypass(node, value)
    return names


def reference_session(model: ir.Model) -> Any:
    """A session that computes as the network does: no integer kernels, no approximations."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    content = ir.to_proto(model).SerializeToString()
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def batches(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """A few images at a time, so that memory does not grow with their number."""
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        yield images[start : start + _IMAGES_AT_ONCE]
