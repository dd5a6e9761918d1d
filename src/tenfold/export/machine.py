"""What exporting and running must know of the processor: whether its 8-bit products saturate.

Nothing here imports torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tenfold.export.session import open_session

# An ONNX model of one node, MatMulInteger(a, [[127], [127]]), with a uint8 of shape (1, 2). A test rebuilds it.
_PROBE = (
    b'\x08\x04\x12\x00:U\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x00*\r\x08\x02\x08\x01\x10\x03B\x01bJ\x02'
    b"\x7f\x7fZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08\x01\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08"
    b"\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\n"
)


@functools.cache
def saturates() -> bool:
    """Whether this machine's 8-bit kernels lose the sum of two large products.

    x86 processors without VNNI add pairs of products in 16 bits, which saturate: 255 * 127 + 255 * 127 gives 32767.
    Found out by trying, in ONNX Runtime; OpenVINO uses the same instructions.
    """
    session = open_session(_PROBE, {}, threads=1)
    (product,) = session.run(None, {"a": np.full((1, 2), 255, np.uint8)})
    return int(product[0, 0]) != 2 * 255 * 127


def session_settings(metadata: Mapping[str, Any], *, lean: bool = False) -> dict[str, str]:
    """The settings with which ONNX Runtime computes an exported file rightly.

    Args:
        metadata: what the file says of itself; see `tenfold.export.metadata`.
        lean: for a few runs only: spare the memory (a fifth of a process with MobileNetV2) of weights as real numbers,
            and compute them from the integers at every run; let threads that wait sleep.
    """
    # Products with 4-bit weights would otherwise round the activations to 8 bits on their own (sat.md section 8).
    settings = {"session.qdq_matmulnbits_accuracy_level": "1"}
    if lean:
        settings["session.intra_op.allow_spinning"] = "0"
    if metadata.get("profile", "fast") != "fast":
        # Integer weights become real numbers when the file is loaded, not again at every run, and real weights stay
        # real: ONNX Runtime would round them on its own between two quantized activations.
        settings["session.disable_quant_qdq"] = "1"
        if lean:
            settings["optimization.disable_specified_optimizers"] = "ConstantFolding"
    elif needs_precision(metadata):
        settings["session.x64quantprecision"] = "1"
    return settings


def openvino_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with which OpenVINO computes an exported file rightly."""
    settings = {
        # Without this it computes in bfloat16 where the processor can.
        "INFERENCE_PRECISION_HINT": "f32",
        # Products with integer weights would otherwise round the activations to 8 bits on their own.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if metadata.get("profile", "fast") != "fast":
        # A file of real arithmetic stays one.
        settings["LP_TRANSFORMS_MODE"] = False
    return settings


def needs_precision(metadata: Mapping[str, Any]) -> bool:
    """Whether the plain 8-bit kernels of this machine would give wrong results for an exported file."""
    return not metadata.get("any_cpu", True) and saturates()
