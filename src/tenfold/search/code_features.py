"""What a predictor may want to know of a multi-resolution code beside its 27 numbers: sizes that multiply, and costs.

Trees split on one number at a time and smooth kernels measure distances, but what a branch is worth grows with
products: how many units it has in all, how many multiply-adds. Stated as logarithms, such products are sums. All of it
is differentiable, so that gradients reach the code through it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from tenfold.models.multires_code import benchmark_gmacs, code_cost, split_code


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
