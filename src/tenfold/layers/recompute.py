"""Training with less memory: what costs little to compute is computed again instead of kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 32
"""A pointwise convolution of so few costs about as much as a pass over its output: both wait for memory."""


def norm_act_conv(
    norm: nn.Module, activation: nn.Module, conv: nn.Module, x: Tensor, *, expand: nn.Module | None = None
) -> Tensor:
    """`conv(activation(norm(x)))`, keeping x for the backward pass but not what lies between, (B, C, H, W) to the same.

    Between two convolutions autograd keeps two maps, the input of the batch norm and the input of the second
    convolution. The second is the first, scaled, shifted and rectified: one cheap pass over memory. Forward values are
    the same to the bit, gradients within rounding.

    Anything but a plain batch norm in training, ReLU and convolution is computed as always: in evaluation, with
    quantized twins, synchronised norms, hooks, or when a compiler looks on.

    Args:
        norm: a batch norm.
        activation: a ReLU.
        conv: a convolution without bias.
        x: the input.
        expand: comes before the norm. A pointwise convolution of at most `FEW_CHANNELS` input channels is computed
            again, too, and only its small input is kept.
    """
    is_plain = _is_plain(norm, activation, conv)
    if expand is not None and not (is_plain and _is_cheap(expand)):
        x, expand = expand(x), None
    if not is_plain:
        return conv(activation(norm(x)))
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(conv, nn.Conv2d)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    statistics = (norm.running_mean, norm.running_var, norm.momentum, norm.eps)
    geometry = (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups)
    if expand is not None and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    pointwise = None if expand is None else expand.weight
    return _NormReluConv.apply(x, norm.weight, norm.bias, conv.weight, pointwise, statistics, geometry)


def _is_cheap(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.in_channels <= FEW_CHANNELS
        and (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)
        and conv.bias is None
        and not _has_hooks(conv)
    )


def _is_plain(norm: nn.Module, activation: nn.Module, conv: nn.Module) -> bool:
    if not (torch.is_grad_enabled() and norm.training) or torch.compiler.is_compiling():
        return False
    if type(norm) is not nn.BatchNorm2d or type(activation) is not nn.ReLU or type(conv) is not nn.Conv2d:
        return False
    if not norm.affine or not norm.track_running_stats or norm.momentum is None:
        return False
    if conv.bias is not None or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    return not any(map(_has_hooks, (norm, activation, conv)))


def _has_hooks(layer: nn.Module) -> bool:
    return any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks))


_POINTWISE = ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)


class _NormReluConv(torch.autograd.Function):
    """Batch norm with the statistics of the batch, ReLU, convolution without bias; a pointwise convolution before."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        pointwise: Tensor | None,
        statistics: Any,
        geometry: Any,
    ) -> Tensor:
        running_mean, running_var, momentum, ctx.epsilon = statistics
        ctx.geometry = geometry
        with torch.autocast(x.device.type, enabled=False):  # what autocast has chosen for x, everything follows
            y, mean, inverse_std = torch.native_batch_norm(
                _expanded(x, pointwise), scale, shift, running_mean, running_var, True, momentum, ctx.epsilon
            )
            ctx.save_for_backward(x, scale, shift, weight, pointwise, mean, inverse_std)
            return torch.ops.aten.convolution(y.relu_(), weight.to(x.dtype), None, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight, pointwise, mean, inverse_std = ctx.saved_tensors
        needs_x, needs_scale, needs_shift, needs_weight, needs_pointwise, *_ = ctx.needs_input_grad
        aten = torch.ops.aten
        variance = inverse_std.pow(-2) - ctx.epsilon
        expanded = _expanded(x, pointwise)
        y = torch.native_batch_norm(expanded, scale, shift, mean, variance, False, 0.0, ctx.epsilon)[0].relu_()
        for_y, for_weight, _ = aten.convolution_backward(
            gradient, y, weight.to(x.dtype), None, *ctx.geometry, [True, needs_weight, False]
        )
        for_norm = aten.threshold_backward(for_y, y, 0)
        wanted = [needs_x or needs_pointwise, needs_scale, needs_shift]
        for_x, for_scale, for_shift = aten.native_batch_norm_backward(
            for_norm, expanded, scale, None, None, mean, inverse_std, True, ctx.epsilon, wanted
        )
        for_pointwise = None
        if pointwise is not None:
            for_x, for_pointwise, _ = aten.convolution_backward(
                for_x, x, pointwise.to(x.dtype), None, *_POINTWISE, [needs_x, needs_pointwise, False]
            )
        return for_x, for_scale, for_shift, for_weight, for_pointwise, None, None


def _expanded(x: Tensor, pointwise: Tensor | None) -> Tensor:
    if pointwise is None:
        return x
    expanded: Tensor = torch.ops.aten.convolution(x, pointwise.to(x.dtype), None, *_POINTWISE)
    return expanded
