"""Global average pooling whose additions count as multiply-adds, as in the tables of the AtomNAS and AutoNL authors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class GlobalPool(nn.Module):
    """Average each channel over the map.

    It computes what `torch.nn.AdaptiveAvgPool2d(1)` does, which the profiler counts as 0, like most tables; this one is
    counted as one multiply-add for each number that is read.

    Source: official counter of AtomNAS (`atomnas.md` section 3).
    """

    kind_of_work = "pool"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 1, 1)."""
        return F.adaptive_avg_pool2d(x, 1)

    def declared_macs(self, x: Tensor) -> int:
        """C H W for each image of the batch (B, C, H, W)."""
        return x.numel()
