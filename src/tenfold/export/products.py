"""Products of two quantized activations, as the profile `fast` writes them.

ONNX Runtime's kernel wants an unsigned left operand, OpenVINO's one without a zero point and a right operand that is
signed without one, as weights are. Both are served by taking the left zero point z, of steps s, out of the product:

    s (c - z) R = s c R - s z sum(R)        with the sum over the rows of R

Without this OpenVINO would compute with real numbers. ONNX Runtime is as fast either way.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tenfold.export.compact import add_bias
from tenfold.export.graph import Builder, Quantizer, array_of
from tenfold.export.integers import INT16_TOP


def saturates(left: Quantizer, right: Quantizer) -> bool:
    """Whether kernels without VNNI may saturate in the product of an unsigned with a signed operand."""
    return 2 * left.grid.top * (right.grid.top // 2) > INT16_TOP


def write_product(builder: Builder, node: ir.Node) -> None:
    """Take the zero point of the left operand out of a product whose right operand has none, in place.

    Args:
        builder: of the graph.
        node: MatMul of two dequantized values.
    """
    left, right = node.inputs
    assert left is not None
    assert right is not None
    codes, scale, zero_point = left.producer().inputs
    zero, step = array_of(zero_point), array_of(scale)
    assert step is not None
    if not zero or array_of(right.producer().inputs[2]):
        return
    unshifted = builder.add(node, "DequantizeLinear", codes, scale, builder.constant(np.zeros_like(zero)))
    node.replace_input_with(0, unshifted)
    sums = builder.add(node, "ReduceSum", right, builder.constant(np.array([-2])), keepdims=1)
    factor = builder.constant(np.float32(-float(zero) * float(step)))
    add_bias(builder, node, builder.add(node, "Mul", sums, factor))
