"""The backward pass of depthwise convolutions, in which PyTorch falls to a twentieth of what a processor can do.

Nothing is swapped in a network: within `native_depthwise` the operator that PyTorch's autograd calls for every
convolution, `aten::convolution_backward`, looks first whether there is a native kernel for the case. So it serves plain
and quantized layers, `functional.conv2d` and compiled graphs alike, and profilers, counters and exporters see what they
always see. PyTorch's own kernel is the twin, and does all other cases.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.kernels.blocks import each_part
from tenfold.kernels.library import native, required

KERNELS = (5, 7)
"""Sizes for which the native kernel is faster. With 3, PyTorch's waits for memory, too, and nothing is to be won."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LANES = 16
"""Channels in the widest vector; fewer are not shared between threads."""


def serves(gradient: Tensor, x: Tensor, weight: Tensor) -> bool:
    """Whether `depthwise_backward` takes these tensors: on the CPU, x with channels last, one square kernel a channel.

    Kernels: `KERNELS`. Dtypes: float32, and those of half its size, which are computed in float32.
    """
    return (
        native() is not None
        and x.ndim == 4
        and weight.shape[1] == 1
        and weight.shape[0] == x.shape[1]
        and weight.shape[2] == weight.shape[3]
        and weight.shape[2] in KERNELS
        and all(one.is_cpu and one.layout == torch.strided and one.numel() for one in (gradient, x, weight))
        and gradient.dtype == x.dtype == weight.dtype
        and x.dtype in _DTYPES
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def depthwise_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    wants_x: bool = True,
    wants_weight: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a depthwise convolution's input and kernels, where `serves` allows.

    The result does not depend on the number of threads.

    Args:
        gradient: of the output, (B, C, H', W').
        x: the input, (B, C, H, W).
        weight: (C, 1, K, K).
        stride: of the convolution, in both directions.
        padding: zeros on each side.
        wants_x: without it the first result is None.
        wants_weight: without it the second result is None.

    Raises:
        MemoryError: if there is none for the buffers, which take less than a megabyte a thread.
    """
    library = required()
    dtype, (channels, _, kernel, _) = x.dtype, weight.shape
    x, gradient = x.float(), gradient.float().contiguous(memory_format=torch.channels_last)
    taps = weight.detach().float().reshape(channels, kernel * kernel).t().contiguous()
    for_x = torch.empty_like(x, memory_format=torch.channels_last) if wants_x else None
    for_taps = torch.empty_like(taps) if wants_weight else None
    sizes = (x.shape[0], channels, *x.shape[2:], *gradient.shape[2:], kernel, stride, padding)
    geometry = (ctypes.c_int64 * len(sizes))(*sizes)
    places = [None if one is None else one.data_ptr() for one in (x, gradient, taps, for_x, for_taps)]

    def work(part: int, parts: int) -> None:
        if library.depthwise_backward(*places, geometry, part, parts):
            raise MemoryError("no memory for the buffers of a depthwise convolution's gradient.")

    each_part(-(-channels // _LANES), work, numbers=gradient.numel())
    for_weight = None if for_taps is None else for_taps.t().contiguous().view(weight.shape).to(dtype)
    return None if for_x is None else for_x.to(dtype), for_weight


_lock = threading.Lock()
_users = 0
_override: torch.library.Library | None = None


@contextmanager
def native_depthwise(network: nn.Module | None = None) -> Iterator[None]:
    """Within this context, gradients of depthwise convolutions come from the native kernel where it is faster.

    It holds for the whole process, and may be entered more than once, by several threads, too. Where there is no native
    library it does nothing.

    Args:
        network: nothing is done for one without such convolutions; None asks for it in any case.
    """
    if native() is None or not (network is None or any(map(_may_gain, network.modules()))):
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _may_gain(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1 and module.kernel_size[0] in KERNELS


def _enter() -> None:
    global _users, _override
    with _lock:
        _users += 1
        if _override is None:
            pytorch = torch.library.get_kernel("aten::convolution_backward", "CPU")
            _override = torch.library.Library("aten", "IMPL")
            function = partial(_convolution_backward, pytorch)
            _override.impl("convolution_backward", function, "CPU", with_keyset=True)


def _leave() -> None:
    global _users, _override
    with _lock:
        _users -= 1
        if not _users and _override is not None:
            _override._destroy()
            _override = None


def _convolution_backward(
    pytorch: Any,
    keys: Any,
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """`aten::convolution_backward`."""
    if (
        groups > 1
        and groups == weight.shape[0]
        and not transposed
        and len(set(stride)) == len(set(padding)) == 1
        and set(dilation) == {1}
        and serves(gradient, x, weight)
    ):
        for_x, for_weight = depthwise_backward(
            gradient, x, weight, stride=stride[0], padding=padding[0], wants_x=wanted[0], wants_weight=wanted[1]
        )
        return for_x, for_weight, gradient.sum((0, 2, 3)) if wanted[2] else None
    result: tuple[Tensor | None, ...] = pytorch.call_boxed(
        keys, gradient, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, wanted
    )
    return result
