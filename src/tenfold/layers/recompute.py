"""Training with less memory: what costs little to compute is computed again instead of kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def norm_act_conv(norm: nn.Module, activation: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
    """`conv(activation(norm(x)))`, keeping x for the backward pass but not what lies between, (B, C, H, W) to the same.

    Between two convolutions autograd keeps two maps, the input of the batch norm and the input of the second
    convolution. The second is the first, scaled, shifted and rectified: one cheap pass over memory. Forward values are
    the same to the bit, gradients within rounding.

    Anything but a plain batch norm in training, ReLU and convolution is computed as always: in evaluation, with
    quantized twins, synchronised norms, hooks, or when a compiler looks on.
    """
    if not _is_plain(norm, activation, conv):
        return conv(activation(norm(x)))
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(conv, nn.Conv2d)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    statistics = (norm.running_mean, norm.running_var, norm.momentum, norm.eps)
    geometry = (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups)
    return _NormReluConv.apply(x, norm.weight, norm.bias, conv.weight, statistics, geometry)


def _is_plain(norm: nn.Module, activation: nn.Module, conv: nn.Module) -> bool:
    if not (torch.is_grad_enabled() and norm.training) or torch.compiler.is_compiling():
        return False
    if type(norm) is not nn.BatchNorm2d or type(activation) is not nn.ReLU or type(conv) is not nn.Conv2d:
        return False
    if not norm.affine or not norm.track_running_stats or norm.momentum is None:
        return False
    if conv.bias is not None or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    return not any(
        hooks
        for layer in (norm, activation, conv)
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    )


class _NormReluConv(torch.autograd.Function):
    """Batch norm with the statistics of the batch, ReLU, convolution without bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, statistics: Any, geometry: Any
    ) -> Tensor:
        running_mean, running_var, momentum, ctx.epsilon = statistics
        ctx.geometry = geometry
        with torch.autocast(x.device.type, enabled=False):  # what autocast has chosen for x, everything follows
            y, mean, inverse_std = torch.native_batch_norm(
                x, scale, shift, running_mean, running_var, True, momentum, ctx.epsilon
            )
            ctx.save_for_backward(x, scale, shift, weight, mean, inverse_std)
            return torch.ops.aten.convolution(y.relu_(), weight.to(x.dtype), None, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight, mean, inverse_std = ctx.saved_tensors
        aten = torch.ops.aten
        variance = inverse_std.pow(-2) - ctx.epsilon
        y = torch.native_batch_norm(x, scale, shift, mean, variance, False, 0.0, ctx.epsilon)[0].relu_()
        for_y, for_weight, _ = aten.convolution_backward(
            gradient, y, weight.to(x.dtype), None, *ctx.geometry, [True, ctx.needs_input_grad[3], False]
        )
        for_norm = aten.threshold_backward(for_y, y, 0)
        found = aten.native_batch_norm_backward(
            for_norm, x, scale, None, None, mean, inverse_std, True, ctx.epsilon, list(ctx.needs_input_grad[:3])
        )
        return (*found, for_weight, None, None)
