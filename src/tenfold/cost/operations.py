"""How many multiply-adds each operator of PyTorch makes: a table of rules, and a list of operators that make none.

One MAC is one multiply-add of two values. Counted are matrix products, convolutions (zeros of the padding included, as
in every published table), attention, and interpolation at sampled places. By the same convention the elementwise
arithmetic of norms, activations, scaling, softmax, pooling and reductions counts nothing.

An operator that is neither in the table nor known to be free has no cost that could be trusted, and counting stops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.cost.free_operations import is_free
from tenfold.errors import CountError, UsageError


class Call:
    """One call of an operator: its arguments by the names of its schema, defaults included, and its output."""

    def __init__(
        self, operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any], output: Any
    ) -> None:
        schema = operator._schema
        self.name: str = schema.name
        self.arguments: dict[str, Any] = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        self.arguments.update(zip((a.name for a in schema.arguments), args, strict=False))
        self.arguments.update(kwargs)
        self._output = output

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def output(self) -> Tensor:
        """The output, or the first one of several."""
        return self._output if isinstance(self._output, Tensor) else self._output[0]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """How to count one kind of work of an operator.

    Attributes:
        kind: what the row in the table is called.
        macs: gives the multiply-adds of a call.
        operands: names of the arguments that are multiplied with each other; the one that comes from parameters alone,
            if any, is the weight, and decides with which bits the work is done.
    """

    kind: str
    macs: Callable[[Call], int]
    operands: tuple[str, ...]


def register_operation(
    name: str, *, macs: Callable[[Call], int] | int, kind: str = "custom", operands: Iterable[str] = ()
) -> None:
    """Teach the profiler an operator.

    Args:
        name: "namespace::operator", without the overload; it also holds for the in-place form.
        macs: gives the multiply-adds of a call, or 0 for an operator that makes none.
        kind: what rows with this work are called in the table.
        operands: names of the arguments that are multiplied with each other.

    Raises:
        UsageError: if the name has another form, has a rule already, or `macs` is a number other than 0.

    Example:
        >>> register_operation("doc::outer", macs=lambda call: call.output.numel(), operands=("x", "y"))
    """
    if not re.fullmatch(r"\w+::\w+", name):
        raise UsageError(f"operator {name!r}: the name has the form namespace::operator, such as aten::mm.")
    if name in _OPERATIONS:
        raise UsageError(f"operator {name!r} has a rule already; a second one would change published counts.")
    if not callable(macs):
        if macs != 0:
            raise UsageError(f"operator {name!r}: macs={macs!r} is neither 0 nor a function of the call.")
        _OPERATIONS[name] = ()
    else:
        _OPERATIONS[name] = (Operation(kind=kind, macs=macs, operands=tuple(operands)),)


def find_operations(operator: torch._ops.OpOverload) -> tuple[Operation, ...] | None:
    """The kinds of work an operator does: () for none, and None if the operator is unknown."""
    name = operator._schema.name
    for key in (name, name.removesuffix("_")):  # relu_ is relu in place
        if key in _OPERATIONS:
            return _OPERATIONS[key]
    return () if is_free(operator) else None


# Rules. Each takes a call and gives the exact number of multiply-adds.


def _convolution(data: str, weight: str) -> Operation:
    def macs(call: Call) -> int:
        if call.arguments.get("transposed", False):
            # Each input value meets every output channel of its group at every place of the kernel.
            return call[data].numel() * math.prod(call[weight].shape[1:])
        # Not weight.shape[1:]: a prepacked weight may carry its groups in a dimension of its own.
        channels = call.output.shape[-len(call["stride"]) - 1]
        return call.output.numel() * (call[weight].numel() // channels)

    return Operation(kind="conv", macs=macs, operands=(data, weight))


def _matrix_product(left: str, right: str) -> Operation:
    """`left` (..., N, K) times `right` (..., K, M), where N or M may be missing: each left value meets M others."""

    def macs(call: Call) -> int:
        columns = call[right].shape[-1] if call[right].ndim > 1 else 1
        return call[left].numel() * columns

    return Operation(kind="linear", macs=macs, operands=(left, right))


def _linear(left: str, right: str) -> Operation:
    return Operation(
        kind="linear", macs=lambda call: call.output.numel() * call[left].shape[-1], operands=(left, right)
    )


def _attention(call: Call) -> int:
    """The products q k^T and attention times v; a causal mask does not halve them, as not every kernel skips."""
    query, key, value = call["query"], call["key"], call["value"]
    scores = query.numel() // query.shape[-1] * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1])


def _deformable_convolution(call: Call) -> int:
    return call.output.numel() * math.prod(call["weight"].shape[1:])


def _deformable_sampling(call: Call) -> int:
    """Every input channel is sampled bilinearly (4 multiply-adds) for every place of the kernel and of the output."""
    batch, channels = call["input"].shape[:2]
    return 4 * batch * channels * math.prod(call["weight"].shape[2:]) * math.prod(call.output.shape[2:])


def _per_output(multiply_adds: int) -> tuple[Operation, ...]:
    return (Operation(kind="interpolate", macs=lambda call: multiply_adds * call.output.numel(), operands=()),)


def _antialiased(support: int) -> tuple[Operation, ...]:
    """Interpolation whose filter widens with the reduction: rows first, then columns, each tap one multiply-add.

    Source: ATen/native/cpu/UpSampleKernel.cpp, `_compute_indices_min_size_weights_aa`.

    Args:
        support: radius of the filter in input samples when nothing shrinks: 1 linear, 2 cubic, 3 Lanczos.
    """

    def taps(size_in: int, size_out: int, factor: float | None, align_corners: bool) -> int:
        if align_corners:
            scale = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
        else:
            scale = 1 / factor if factor else size_in / size_out
        radius = support * max(scale, 1.0)
        total = 0
        for position in range(size_out):
            center = scale * (position + 0.5)
            first, last = max(int(center - radius + 0.5), 0), min(int(center + radius + 0.5), size_in)
            total += max(last - first, 1)
        return total

    def macs(call: Call) -> int:
        *outer, height_in, width_in = call["self"].shape
        height_out, width_out = call.output.shape[-2:]
        align_corners = call["align_corners"]
        across = height_in * taps(width_in, width_out, call["scales_w"], align_corners)
        down = width_out * taps(height_in, height_out, call["scales_h"], align_corners)
        return math.prod(outer) * (across + down)

    return (Operation(kind="interpolate", macs=macs, operands=()),)


def _grid_sampling(linear: int, cubic: int) -> tuple[Operation, ...]:
    def macs(call: Call) -> int:
        # interpolation_mode: 0 linear, 1 nearest, 2 cubic
        return call.output.numel() * (linear, 0, cubic)[call["interpolation_mode"]]

    return (Operation(kind="interpolate", macs=macs, operands=()),)


def _affine_grid(call: Call) -> int:
    """Each coordinate of the grid is a row of theta times a homogeneous point."""
    return call.output.numel() * call["theta"].shape[-1]


def _roi_align(call: Call) -> int:
    samples = call["sampling_ratio"]
    if samples <= 0:
        raise CountError(
            f"cannot count torchvision::roi_align with sampling_ratio={samples}: the samples taken "
            "then depend on the size of each box. Give the module a sampling_ratio of at least 1."
        )
    return 4 * samples**2 * call.output.numel()


def _recurrent_layer(call: Call) -> int:
    """One layer and direction: every step multiplies its input and its state by all gates."""
    steps = call["input"].numel() // call["input"].shape[-1]
    return steps * (call["weight0"].numel() + call["weight1"].numel())


_OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "aten::mm": (_matrix_product("self", "mat2"),),
    "aten::_int_mm": (_matrix_product("self", "mat2"),),
    "aten::addmm": (_matrix_product("mat1", "mat2"),),
    "aten::_addmm_activation": (_matrix_product("mat1", "mat2"),),
    "aten::bmm": (_matrix_product("self", "mat2"),),
    "aten::baddbmm": (_matrix_product("batch1", "batch2"),),
    "aten::addbmm": (_matrix_product("batch1", "batch2"),),
    "aten::mv": (_matrix_product("self", "vec"),),
    "aten::addmv": (_matrix_product("mat", "vec"),),
    "aten::dot": (_matrix_product("self", "tensor"),),
    "aten::vdot": (_matrix_product("self", "other"),),
    "aten::linear": (_linear("input", "weight"),),
    "aten::mkldnn_linear": (_linear("self", "weight"),),
    "mkldnn::_linear_pointwise": (_linear("X", "W"),),
    "aten::mkldnn_rnn_layer": (
        Operation(kind="recurrent", macs=_recurrent_layer, operands=("input", "weight0", "weight1")),
    ),
    "torchvision::deform_conv2d": (
        Operation(kind="deform_conv", macs=_deformable_convolution, operands=("input", "weight")),
        Operation(kind="interpolate", macs=_deformable_sampling, operands=()),
    ),
    "torchvision::roi_align": (Operation(kind="interpolate", macs=_roi_align, operands=()),),
    "aten::upsample_linear1d": _per_output(2),
    "aten::upsample_bilinear2d": _per_output(4),
    "aten::upsample_trilinear3d": _per_output(8),
    "aten::upsample_bicubic2d": _per_output(16),
    "aten::_upsample_bilinear2d_aa": _antialiased(support=1),
    "aten::_upsample_bicubic2d_aa": _antialiased(support=2),
    "aten::_upsample_lanczos2d_aa": _antialiased(support=3),
    "aten::grid_sampler_2d": _grid_sampling(linear=4, cubic=16),
    "aten::grid_sampler_3d": _grid_sampling(linear=8, cubic=0),  # 3d has no cubic mode
    "aten::cudnn_grid_sampler": _per_output(4),
    "aten::affine_grid_generator": (Operation(kind="matmul", macs=_affine_grid, operands=("theta",)),),
}
for _name, _data, _weight in (
    ("aten::convolution", "input", "weight"),
    ("aten::_convolution", "input", "weight"),
    ("aten::convolution_overrideable", "input", "weight"),
    ("aten::mkldnn_convolution", "self", "weight"),
    ("aten::cudnn_convolution", "self", "weight"),
    ("aten::miopen_convolution", "self", "weight"),
    ("mkldnn::_convolution_pointwise", "X", "W"),
):
    _OPERATIONS[_name] = (_convolution(_data, _weight),)
for _name in (
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_scaled_dot_product_attention_math_for_mps",
):
    _OPERATIONS[_name] = (Operation(kind="attention", macs=_attention, operands=("query", "key", "value")),)
