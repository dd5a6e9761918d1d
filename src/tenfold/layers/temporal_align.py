"""Temporal shift, and the same with the neighbours' features moved along optical flow first (TSAM, arXiv 2104.03507).

Plain: a part of a frame's channels comes from the next frame, as large a part from the frame before (TSM). Aligned:
what comes is warped to the frame by optical flow, and where that cannot be trusted the frame keeps its own features.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tenfold.errors import ShapeError
from tenfold.kernels import alignment

Mode = Literal["exact", "compat"]
"""How flow is followed: "exact" as defined, or "compat" as the authors' program does, with its deviations."""
Edge = Literal["zero", "self"]
"""What the first and last frame get in place of the neighbour that they lack: zeros, or their own features."""


class Flows(NamedTuple):
    """Optical flow between neighbouring frames, and where not to use it, as a network is given them.

    Args:
        forward: (B, T-1, 2, h, w): pixel p of frame t is seen at p + flow in frame t+1; x (right), y (down) in pixels.
        backward: (B, T-1, 2, h, w): pixel p of frame t+1 is seen at p + flow in frame t.
        invalid_forward: (B, T-1, 1, h, w): 1 = do not use `forward` there.
        invalid_backward: (B, T-1, 1, h, w): likewise.
    """

    forward: Tensor
    backward: Tensor
    invalid_forward: Tensor
    invalid_backward: Tensor


class Direction(NamedTuple):
    """Where the pixels of a map find their content in the neighbouring map, and whether to look there."""

    grid: Tensor
    """(B, T-1, H, W, 2), as `torch.nn.functional.grid_sample` takes it without aligned corners."""
    trusted: Tensor
    """bool (B, T-1, 1, H, W)."""


class Pairs(NamedTuple):
    """Both directions for the pairs of neighbouring frames, at the size of one map."""

    forward: Direction
    backward: Direction
    by_content: bool
    """Whether a place is also not trusted where all that comes from there is zero, as the authors' program has it."""


def pairs_at(flows: Flows, size: tuple[int, int], mode: Mode = "exact") -> Pairs:
    """Bring flows to the size of a map.

    Flow vectors and masks are taken from the nearest pixel, vectors are scaled with the map.

    In the mode "exact" content comes from exactly p + flow, and the flow is not trusted where its mask is 0.5 or more,
    nor where it leads out of the map or is no number. The mode "compat" does as the authors' program, so that their
    weights see what they were trained with: positions are stretched from the centre by half a pixel at the borders, and
    the flow is not trusted where its mask is 1 or more, or where everything that comes by the forward flow is zero.

    Source: TSAM, arXiv 2104.03507, released code (`tsam.md` section 3).

    Args:
        flows: of a clip.
        size: height and width of the map.
        mode: see above.
    """
    return Pairs(
        _direction(flows.forward, flows.invalid_forward, size, mode),
        _direction(flows.backward, flows.invalid_backward, size, mode),
        by_content=mode == "compat",
    )


def _direction(flow: Tensor, invalid: Tensor, size: tuple[int, int], mode: Mode) -> Direction:
    height, width = size
    batch, pairs, _, full_height, full_width = flow.shape
    with torch.no_grad():  # flows are data
        flow, invalid = (_nearest(one.flatten(0, 1), size) for one in (flow, invalid))
        columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
        rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
        across, down = flow[:, 0] * (width / full_width), flow[:, 1] * (height / full_height)
        if mode == "compat":
            # Their base grid has its corners on the outer pixels, but is sampled as if they were half a pixel outside.
            columns, rows = (
                (one * (side / max(side - 1, 1)) - 0.5) for one, side in ((columns, width), (rows, height))
            )
        x, y = columns + across, rows + down  # (B * (T-1), H, W)
        if mode == "compat":
            inside = (x > -1) & (y > -1) & (x < width) & (y < height)  # elsewhere samples are zero
            trusted = invalid[:, 0] < 1
        else:
            inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
            trusted = inside & (invalid[:, 0] < 0.5)
        # Outside, where vectors may be no numbers or beyond all integers, any place outside will do.
        x, y = (torch.where(inside, one, torch.full_like(one, -2)) for one in (x, y))
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)
        return Direction(grid.unflatten(0, (batch, pairs)), trusted[:, None].unflatten(0, (batch, pairs)))


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size, mode="nearest")


def shift(
    x: Tensor, fold: int, pairs: Pairs | None = None, *, edge: Edge = "zero", past: int = 0, future: int = 0
) -> Tensor:
    """Give each frame the first channels of the next frame, and as many channels behind them of the frame before.

    Args:
        x: features (B, T, C, H, W).
        fold: channels that come from each side, at most C / 2.
        pairs: how to align what comes, of all pairs in `x`; None shifts plainly.
        edge: see `Edge`.
        past: 1 if the first frame of `x` is there for its neighbour only, and gets no answer.
        future: 1 if the last frame is, likewise.

    Returns:
        (B, T - past - future, C, H, W).

    Source: TSM, arXiv 1811.08383; TSAM, arXiv 2104.03507 (`tsam.md` section 3).
    """
    frames = x.shape[1]
    if pairs is not None and frames > 1 and _is_native(x, pairs):
        (next_grid, next_trusted), (past_grid, past_trusted) = pairs.forward, pairs.backward
        maps = (next_grid, next_trusted, past_grid, past_trusted)
        return aligned_shift(x, *maps, fold, past, future, edge == "self")
    until = frames - future
    next_own, past_own = x[:, past:until, :fold], x[:, past:until, fold : 2 * fold]
    from_next, from_past = x[:, 1:, :fold], x[:, :-1, fold : 2 * fold]
    if pairs is not None and frames > 1:
        from_next, from_past = _aligned(x, from_next, from_past, pairs)
    from_next, from_past = from_next[:, past:], from_past[:, : until - 1]
    if not future:
        from_next = torch.cat((from_next, _edge(next_own[:, -1:], edge)), 1)
    if not past:
        from_past = torch.cat((_edge(past_own[:, :1], edge), from_past), 1)
    return torch.cat((from_next, from_past, x[:, past:until, 2 * fold :]), 2)


def _is_native(x: Tensor, pairs: Pairs) -> bool:
    """Whether one native pass does it all; compilers and exporters are shown PyTorch's operators."""
    grids = pairs.forward.grid, pairs.backward.grid
    return not (pairs.by_content or torch.compiler.is_compiling()) and alignment.serves(x, *grids)


@torch.library.custom_op("tenfold::aligned_shift", mutates_args=())
def aligned_shift(
    x: Tensor,
    next_grid: Tensor,
    next_trusted: Tensor,
    past_grid: Tensor,
    past_trusted: Tensor,
    fold: int,
    past: int,
    future: int,
    copies_edge: bool,
) -> Tensor:
    """`shift` with pairs that are trusted by their masks alone, where `alignment.serves`."""
    extent = alignment.Extent(fold, past, future, copies_edge)
    return alignment.align(x, (next_grid, past_grid), (next_trusted, past_trusted), extent)


@aligned_shift.register_fake
def _(x: Tensor, *others: Any) -> Tensor:
    *_, past, future, _ = others
    return torch.empty_like(x[:, past : x.shape[1] - future])


def _keep_flows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *maps, fold, past, future, copies_edge = inputs
    ctx.save_for_backward(*maps)
    ctx.last, ctx.extent = not x.is_contiguous(), alignment.Extent(fold, past, future, copies_edge)


@once_differentiable
def _aligned_shift_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    next_grid, next_trusted, past_grid, past_trusted = ctx.saved_tensors
    maps = (next_grid, past_grid), (next_trusted, past_trusted)
    return alignment.align_backward(gradient, ctx.last, *maps, ctx.extent), *[None] * 8


aligned_shift.register_autograd(_aligned_shift_gradient, setup_context=_keep_flows)


def _edge(own: Tensor, edge: Edge) -> Tensor:
    return own if edge == "self" else torch.zeros_like(own)


def _aligned(x: Tensor, from_next: Tensor, from_past: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    fold = from_next.shape[2]
    moved_next, moved_past = _moved(from_next, pairs.forward.grid), _moved(from_past, pairs.backward.grid)
    use_next, use_past = pairs.forward.trusted, pairs.backward.trusted
    if pairs.by_content:  # theirs looks at the forward branch for both
        comes = moved_next.sum(2, keepdim=True) != 0
        use_next, use_past = use_next & comes, use_past & comes
    return (
        torch.where(use_next, moved_next, x[:, :-1, :fold]),
        torch.where(use_past, moved_past, x[:, 1:, fold : 2 * fold]),
    )


def _moved(maps: Tensor, grid: Tensor) -> Tensor:
    sampled = F.grid_sample(maps.flatten(0, 1), grid.flatten(0, 1).to(maps.dtype), mode="bilinear", align_corners=False)
    return sampled.unflatten(0, maps.shape[:2])


class WholeClip:
    """What the layers of a network ask for their neighbours in time, when all frames of a clip are there.

    Maps are folded: (B * T, C, H, W). Layers call `shift` where they look at other frames, and `meet` where paths join
    that have looked at a different number of them; `tenfold.layers.temporal_stream.ClipStream` answers the same calls
    frame by frame.

    Args:
        frames: T.
        flows: of the clip; None shifts plainly.
        mode: see `pairs_at`.
        edge: see `Edge`.
    """

    def __init__(self, frames: int, flows: Flows | None, *, mode: Mode = "exact", edge: Edge = "zero") -> None:
        self._frames, self._flows, self._mode, self._edge = frames, flows, mode, edge
        self._pairs: dict[str, Pairs] = {}

    def shift(self, layer: nn.Module, x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
        """The map with a part 1 / divisor of its channels from the next frame and as many from the frame before.

        Args:
            layer: who asks; each layer asks once for a clip.
            x: (B * T, C, H, W).
            divisor: the part of the channels.

        Returns:
            The shifted map, and the plain map of the same frames.
        """
        clip = x.unflatten(0, (-1, self._frames))
        shifted = shift(clip, x.shape[1] // divisor, self._at((x.shape[2], x.shape[3])), edge=self._edge)
        return shifted.flatten(0, 1), x

    def meet(self, layer: nn.Module, *maps: Tensor) -> tuple[Tensor, ...]:
        """The maps of several paths, of the same frames.

        Args:
            layer: who asks.
            maps: (B * T, C, H, W) each.
        """
        return maps

    def _at(self, size: tuple[int, int]) -> Pairs | None:
        if self._flows is None or self._frames == 1:
            return None
        key = str(size)  # the symbols that stand for sizes during an export have no hash
        if key not in self._pairs:  # a network has many layers of one size
            self._pairs[key] = pairs_at(self._flows, size, self._mode)
        return self._pairs[key]


def check_flows(flows: Flows, frames: Tensor) -> None:
    """Whether flows go with frames.

    Args:
        flows: see `Flows`; of the size of the frames.
        frames: (B, T, C, H, W).

    Raises:
        ShapeError: if they do not.
    """
    batch, count, _, height, width = frames.shape
    for name, flow, channels in zip(Flows._fields, flows, (2, 2, 1, 1), strict=True):
        wanted = (batch, count - 1, channels, height, width)
        if tuple(flow.shape) != wanted:
            raise ShapeError(
                f"the flows do not fit: {name} has the shape {tuple(flow.shape)}, for frames of {tuple(frames.shape)} "
                f"it must be {wanted}, one flow between each two frames."
            )
