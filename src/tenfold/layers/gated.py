"""Gated convolution: a second one decides, place by place, how much of the first one passes (arXiv 1806.03589)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedConv2d(nn.Module):
    """sigmoid(gate(g)) * act(feature(x)), both convolutions of one shape that keeps the size of the map.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: side of the kernels, odd.
        bias: of both convolutions.
        act: what follows the feature convolution.
        gated: False leaves the second convolution out, and everything passes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        bias: bool = True,
        act: nn.Module | None = None,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.feature = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
        self.gate = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias) if gated else None
        self.act = act or nn.Identity()

    def forward(self, x: Tensor, looked_at: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W).

        Args:
            x: the map.
            looked_at: what the gate sees, of the same shape; by default the map itself.
        """
        features: Tensor = self.act(self.feature(x))
        if self.gate is None:
            return features
        return torch.sigmoid(self.gate(x if looked_at is None else looked_at)) * features
