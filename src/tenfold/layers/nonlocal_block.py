"""The conventional non-local block, to compare LightNL with, and what it costs step by step on the way there.

Source: "Non-local Neural Networks" (arXiv 1711.07971); `autonl.md` section 3 for the costs.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.atomic import BN_EPSILON, BN_MOMENTUM
from tenfold.layers.lightnl import light_non_local_macs

Pairwise: TypeAlias = Literal["dot", "softmax"]
ProductOrder: TypeAlias = Literal["affinity", "channel", "auto"]


class NonLocalBlock(nn.Module):
    """x + BN(W_z y), where y is the mean over all places of g, weighed by how theta and phi agree.

    Args:
        channels: of the input and the output.
        inner: channels of the three transforms; None: as many as `channels` (the paper of LightNL counts it so; the
            original halves them).
        pairwise: "dot" divides the agreement by the number of places, "softmax" normalises it (embedded Gaussian).
        order: of multiplication; "channel" and "auto" (the cheaper one) only without softmax, which needs all pairs.
        pool: side of a max pooling in front of phi and g; 1 is none.
    """

    def __init__(
        self,
        channels: int,
        inner: int | None = None,
        *,
        pairwise: Pairwise = "dot",
        order: ProductOrder = "affinity",
        pool: int = 1,
    ) -> None:
        super().__init__()
        if pairwise not in get_args(Pairwise):
            raise UnknownNameError("pairwise function of a non-local block", pairwise, get_args(Pairwise))
        if order not in get_args(ProductOrder):
            raise UnknownNameError("order of multiplication", order, get_args(ProductOrder))
        if pairwise == "softmax" and order != "affinity":
            raise UsageError(
                f'order="{order}" cannot be had with softmax, which needs every pair of places before it can '
                'normalise. Take order="affinity", or pairwise="dot".'
            )
        inner = channels if inner is None else inner
        self.pairwise, self.order, self.inner = pairwise, order, inner
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(channels, inner, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels, BN_EPSILON, BN_MOMENTUM)
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        sampled = self.pool(x)
        theta, phi = self.theta(x).flatten(2), self.phi(sampled).flatten(2)  # (B, K, HW), (B, K, R)
        g = self.g(sampled).flatten(2)  # (B, K, R)
        if self.pairwise == "softmax":
            affinity = F.softmax(theta.transpose(1, 2) @ phi, dim=-1)  # (B, HW, R)
            y = g @ affinity.transpose(1, 2)
        else:
            phi = phi / phi.shape[2]
            if self._is_channel_first(theta.shape[2], phi.shape[2]):
                y = (phi @ g.transpose(1, 2)).transpose(1, 2) @ theta
            else:
                y = g @ (theta.transpose(1, 2) @ phi).transpose(1, 2)
        return torch.add(x, self.bn(self.out(y.unflatten(2, x.shape[2:]))))

    def _is_channel_first(self, places: int, sampled: int) -> bool:
        if self.order == "auto":
            return (places + sampled) * self.inner <= 2 * places * sampled
        return self.order == "channel"


def non_local_macs(channels: int, height: int, width: int) -> dict[str, float]:
    """Multiply-adds of a non-local block for one image, from the conventional one to LightNL, change by change.

    The last has ratio 1/4 and stride 2 on maps higher than 14, the paper's hand-set choice. Its factor against the
    first is some 400 over all bottlenecks of MobileNetV2 at 224x224, where the highest maps dominate; at a single place
    it is anything from 10 to 1800.

    Source: `autonl.md` section 3.
    """
    places = height * width
    transform = channels**2 * places
    naive, cheaper = 2 * places**2 * channels, min(2 * places**2 * channels, 2 * places * channels**2)
    return {
        "conventional": 4 * transform + naive,
        "cheaper order": 4 * transform + cheaper,
        "one transform shared": 3 * transform + cheaper,
        "two transforms": 2 * transform + cheaper,
        "output transform only": transform + cheaper,
        "depthwise output": 9 * channels * places + cheaper,
        "LightNL": light_non_local_macs(channels, height, width, 0.25, 2 if height > 14 else 1),
    }
