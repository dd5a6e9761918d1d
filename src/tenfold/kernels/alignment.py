"""The aligned temporal shift and its gradient in one pass over memory: the native functions on tensors.

The PyTorch twin is `tenfold.layers.temporal_align.shift`, which asks `serves` first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from tenfold.kernels.blocks import each_part
from tenfold.kernels.library import native, required


class _Direction(ctypes.Structure):
    _fields_: ClassVar = [("grid", ctypes.c_void_p), ("trusted", ctypes.c_void_p)]


class Extent(NamedTuple):
    """Which channels come from other frames, and which frames have an answer; as of `shift`.

    Args:
        fold: channels that come from each side.
        past: frames at the beginning without an answer.
        future: frames at the end without an answer.
        copies_edge: whether a frame that lacks a neighbour takes its own channels, or zeros.
    """

    fold: int
    past: int
    future: int
    copies_edge: bool


def serves(x: Tensor, *grids: Tensor) -> bool:
    """Whether there is a native kernel: on the CPU, float32, maps dense with channels first or last in memory.

    Args:
        x: (B, T, C, H, W).
        grids: both grids, (B, T - 1, H, W, 2).
    """
    return (
        native() is not None
        and x.ndim == 5
        and x.numel() > 0
        and all(one.is_cpu and one.dtype == torch.float32 and one.layout == torch.strided for one in (x, *grids))
        and _is_dense(x)
    )


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.movedim(2, 4).is_contiguous()


def align(x: Tensor, grids: Sequence[Tensor], trusted: Sequence[Tensor], extent: Extent) -> Tensor:
    """The shifted maps.

    Args:
        x: (B, T, C, H, W), such that `serves`.
        grids: where frames look in the next frame, and in the one before, (B, T - 1, H, W, 2) each.
        trusted: whether to look there, bool (B, T - 1, 1, H, W) each.
        extent: see there.

    Returns:
        (B, T - past - future, C, H, W), laid out as x.
    """
    last = not x.is_contiguous()
    out = _empty(x, x.shape[1] - extent.past - extent.future, last)
    _run("align", x, out, x.shape[1], last, grids, trusted, extent)
    return out


def align_backward(
    gradient: Tensor, last: bool, grids: Sequence[Tensor], trusted: Sequence[Tensor], extent: Extent
) -> Tensor:
    """The gradient of the maps.

    Args:
        gradient: of the result of `align`, float32.
        last: whether the maps have channels last in memory.
        grids: as of `align`.
        trusted: likewise.
        extent: likewise.

    Returns:
        (B, T, C, H, W).
    """
    frames = grids[0].shape[1] + 1
    laid_out = _empty(gradient, gradient.shape[1], last)
    if gradient.stride() != laid_out.stride():
        gradient = laid_out.copy_(gradient)
    out = _empty(gradient, frames, last)
    _run("align_backward", gradient, out, frames, last, grids, trusted, extent)
    return out


def _empty(like: Tensor, frames: int, last: bool) -> Tensor:
    batch, _, channels, height, width = like.shape
    if last:
        return like.new_empty(batch, frames, height, width, channels).movedim(4, 2)
    return like.new_empty(batch, frames, channels, height, width)


def _run(
    name: str,
    source: Tensor,
    out: Tensor,
    frames: int,
    last: bool,
    grids: Sequence[Tensor],
    trusted: Sequence[Tensor],
    extent: Extent,
) -> None:
    function: Any = getattr(required(), name)
    grids, trusted = [one.contiguous() for one in grids], [one.contiguous() for one in trusted]
    pairs = zip(grids, trusted, strict=True)
    directions = (_Direction * 2)(*(_Direction(grid.data_ptr(), mask.data_ptr()) for grid, mask in pairs))
    batch, _, *sizes = out.shape
    numbers = (batch, frames, *sizes, extent.fold, extent.past, extent.future, last, extent.copies_edge)
    geometry = (ctypes.c_int64 * len(numbers))(*map(int, numbers))
    places = source.data_ptr(), out.data_ptr()

    def work(part: int, parts: int) -> None:
        function(*places, directions, geometry, part, parts)

    each_part(out.shape[0] * out.shape[1], work, numbers=out.numel())
