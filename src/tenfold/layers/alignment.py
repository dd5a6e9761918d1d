"""Bilinear resizing to the size of another map, whose multiply-adds do not count, as in the tables of NAS-Bench-MR."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Align(nn.Module):
    """Resize a map bilinearly to the size of another; nothing happens where they agree.

    It computes what `torch.nn.functional.interpolate` does, which the profiler counts as 4 multiply-adds a value;
    this one is counted as none.

    Source: published tables of arXiv 2103.13253 (`ncp.md` section 3.1).
    """

    kind_of_work = "resize"

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H', W') of `like`."""
        size = like.shape[-2:]
        return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)

    def declared_macs(self, x: Tensor, like: Tensor) -> int:
        """None."""
        return 0
