"""What a predictor may want to know of a code beside its numbers.

Of a multi-resolution code: sizes that multiply, and costs. Trees split on one number at a time and smooth kernels
measure distances, but what a branch is worth grows with products: how many units it has in all, how many multiply-adds.
Stated as logarithms, such products are sums. Of a cell: which operations take part at all; many codes differ only in
what no data passes. All of it is differentiable, so that gradients reach the code through it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from tenfold.models.multires_code import benchmark_gmacs, code_cost, split_code
from tenfold.search.code_spaces import MULTIRES, NAS_BENCH_201, CodeSpace

View = Callable[[Tensor], Tensor]
"""Turns points (N, D) into columns (N, K) that distances are measured in."""


def views_of(space: CodeSpace) -> list[View]:
    """How to look at points of a space; none where nothing is known but the points themselves."""
    if space is MULTIRES:
        return [log_code, size_features]
    return [live_operations, live_counts] if space is NAS_BENCH_201 else []


def log_code(points: Tensor) -> Tensor:
    """The base-2 logarithm of each number: a channel count doubled is as far at 16 as at 64.

    Args:
        points: (N, 27), above zero.

    Returns:
        (N, 27).
    """
    return torch.log2(points)


def size_features(points: Tensor) -> Tensor:
    """Depth, width and cost of branches, stages and resolutions, most of them as logarithms.

    Source: after the columns of ncp.md section 8, "+feat", without the code itself.

    Args:
        points: codes (N, 27), also between those of the grid.

    Returns:
        (N, 50): three columns for each of ten branches, four sums of channels, six depths, the cost in multiply-adds
        and parameters, and eight shares of the stem, the head and the finest branches.
    """
    columns = list(points.unbind(1))
    (first, second), stages, head = split_code(columns)
    found: list[Tensor] = []
    depth = [torch.zeros_like(head) for _ in stages]
    for stage in stages:
        for branch, (units, channels) in enumerate(zip(stage.units, stage.channels, strict=True)):
            blocks = stage.modules * units
            weight = torch.log2(blocks * channels**2)
            found += [blocks, weight, weight - 2 * branch]
            depth[branch] = depth[branch] + blocks
    sums = [torch.stack(list(stage.channels)).sum(0) for stage in stages]
    found += [torch.log2(one) for one in (*sums, *depth)]
    found += [torch.log2(torch.stack(depth).sum(0)), torch.log2(torch.stack([one.modules for one in stages]).sum(0))]
    found += [torch.log2(benchmark_gmacs(columns)), torch.log2(code_cost(columns).params)]
    found += [torch.log2(first * second), torch.log2(sums[-1] / head), torch.log2(sums[-1] * head)]
    found += [torch.log2(torch.stack([first, second, stages[0].channels[0]]).amin(0))]
    found += [torch.log2(torch.stack(list(stages[-1].channels)).amin(0))]
    found += [torch.log2(one.channels[0] / two.channels[0]) for one, two in pairwise(stages)]
    return torch.stack(found, 1)


def live_operations(points: Tensor) -> Tensor:
    """The operations of a cell that data passes on its way from the input to the output, 0 for all others.

    An edge counts if it is not "none", something arrives at its start, and something leads on from its end; between
    codes each "not none" is a share, and shares are multiplied along a way.

    Args:
        points: of `NAS_BENCH_201`, (N, 30).

    Returns:
        (N, 24): for each of six edges a column for each operation that is not "none".
    """
    chosen = points.unflatten(1, (len(NAS_BENCH_201.names), -1))  # (N, 6, 5)
    none = NAS_BENCH_201.options.index("none")
    to_1, to_2, between, across, from_1, from_2 = (1 - chosen[:, :, none]).unbind(1)
    in_2, out_1 = torch.maximum(to_2, to_1 * between), torch.maximum(from_1, between * from_2)
    used = [to_1 * out_1, to_2 * from_2, to_1 * between * from_2, across, to_1 * from_1, in_2 * from_2]
    real = [at for at in range(len(NAS_BENCH_201.options)) if at != none]
    return (chosen[:, :, real] * torch.stack(used, 1).unsqueeze(2)).flatten(1)


def live_counts(points: Tensor) -> Tensor:
    """How often each operation occurs among the live ones of a cell: (N, 4)."""
    return live_operations(points).unflatten(1, (len(NAS_BENCH_201.names), -1)).sum(1)
