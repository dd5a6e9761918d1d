"""LightNL: a non-local block so cheap that it may stand behind every block of a mobile network.

Every place of a map looks at every other, without transforms: the features themselves are compared, by their first
channels, at every s-th place. Three matrices are multiplied in the cheaper order, and a depthwise convolution with
batch norm takes the place of the output transform.

Source: "Neural Architecture Search for Lightweight Non-Local Networks" (arXiv 2004.01961), `autonl.md` section 2.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from tenfold.errors import ShapeError, UnknownNameError, UsageError
from tenfold.layers.atomic import BN_EPSILON, BN_MOMENTUM

Order: TypeAlias = Literal["affinity", "channel"]
"""What is multiplied first: places with places (HW x R), or channels with channels (k x C)."""
OrderChoice: TypeAlias = Literal["auto", "affinity", "channel"]
Norm: TypeAlias = Literal["batch", "instance"]


def compared_channels(channels: int, ratio: float) -> int:
    """How many channels are compared: the whole part of ratio times channels.

    Raises:
        UsageError: if the ratio is not in (0, 1], or leaves no channel.

    Example:
        >>> compared_channels(10, 0.25)
        2
    """
    if not 0 < ratio <= 1:
        raise UsageError(f"ratio of a non-local block is {ratio}; allowed is above 0, and at most 1.")
    if int(ratio * channels) == 0:
        raise UsageError(
            f"a non-local block with ratio {ratio} on {channels} channels would compare none of them. "
            f"Take a ratio of at least {1 / channels:.4g}, or put it where there are more channels."
        )
    return int(ratio * channels)


def product_costs(channels: int, height: int, width: int, ratio: float, stride: int) -> dict[Order, float]:
    """Multiply-adds of the two products for one image, in each order.

    By the authors' formula, which takes the ratio as it is (not the whole number of channels) and floor(H / s) rows.

    Source: `autonl.md` section 2.

    Example:
        >>> product_costs(64, 4, 4, 0.25, 1)
        {'affinity': 20480.0, 'channel': 32768.0}
    """
    places, sampled = height * width, (height // stride) * (width // stride)
    return {
        "affinity": places * sampled * channels * (1 + ratio),
        "channel": (places + sampled) * channels**2 * ratio,
    }


def cheaper_order(channels: int, height: int, width: int, ratio: float, stride: int) -> Order:
    """The order with fewer multiply-adds; channels first where both cost the same."""
    costs = product_costs(channels, height, width, ratio, stride)
    return "affinity" if costs["affinity"] < costs["channel"] else "channel"


def light_non_local_macs(channels: int, height: int, width: int, ratio: float, stride: int) -> float:
    """Multiply-adds of a whole LightNL block for one image: the cheaper products, and the depthwise convolution.

    Example:
        >>> light_non_local_macs(24, 56, 56, 0.25, 1)
        1580544.0
    """
    products = min(product_costs(channels, height, width, ratio, stride).values())
    return products + 9 * channels * height * width


def light_non_local(x: Tensor, compared: int, stride: int = 1, *, order: Order, scale: float) -> Tensor:
    """y_c(p) = scale * sum over q of (sum over i < k of x_i(p) x_i(q)) x_c(q), with q at every s-th row and column.

    Computed in float32 at least, whatever is around, with the scale inside the first product: so sums over thousands of
    places do not overflow where `x` has half precision. Both orders give the same up to rounding.

    Args:
        x: features (B, C, H, W).
        compared: k, the number of first channels that are compared.
        stride: s.
        order: of multiplication.
        scale: the normaliser, 1 / HW in the paper.

    Returns:
        (B, C, H, W) in the number format of `x`.
    """
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    with full_precision(x):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        sampled = wide[:, :, ::stride, ::stride] if stride > 1 else wide
        g = sampled.flatten(2)  # (B, C, R)
        phi = g[:, :compared] * scale  # (B, k, R)
        theta = wide[:, :compared].flatten(2)  # (B, k, HW)
        if order == "channel":
            first = phi @ g.transpose(1, 2)  # (B, k, C)
            left, right = theta.transpose(1, 2), first
        else:
            left, right = theta.transpose(1, 2) @ phi, g.transpose(1, 2)  # (B, HW, R), (B, R, C)
        # (B, C, HW) either way; the order of the factors decides how it lies in memory.
        y = (left @ right).transpose(1, 2) if is_channels_last else right.transpose(1, 2) @ left.transpose(1, 2)
        return y.unflatten(2, x.shape[2:]).to(x.dtype)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast, if it is on, leaves the products alone."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class LightNonLocal(nn.Module):
    """A LightNL block: x + BN(DWConv3x3(y)), where y is what each place gathers from the others.

    Its batch norm starts with scale 0, so that it starts as the identity: it may be put into a trained network. The
    block is cubic in its input; do not evaluate it with batch-norm statistics that no data has set.

    Multiply-adds are declared by the authors' formula for the cheaper order, whichever order is used.

    Args:
        channels: of the input and the output. The first of them are compared: cutting channels needs care.
        ratio: part of the channels that are compared.
        stride: of the places that are gathered from.
        order: of multiplication; "auto" takes the cheaper one for the size of the map.
        legacy_scale: leave out the paper's 1 / HW as the authors' PyTorch code does (it multiplies by W / H), for
            checkpoints of that code.
        norm: "batch", or "instance" norm with running statistics as in networks that have it everywhere.
    """

    kind_of_work = "non_local"

    def __init__(
        self,
        channels: int,
        *,
        ratio: float = 0.25,
        stride: int = 1,
        order: OrderChoice = "auto",
        legacy_scale: bool = False,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if order not in get_args(OrderChoice):
            raise UnknownNameError("order of multiplication", order, get_args(OrderChoice))
        if norm not in get_args(Norm):
            raise UnknownNameError("norm of a non-local block", norm, get_args(Norm))
        if stride < 1:
            raise UsageError(f"stride of a non-local block is {stride}; allowed is 1 or more.")
        self.compared = compared_channels(channels, ratio)
        self.channels, self.ratio, self.stride = channels, ratio, stride
        self.order, self.legacy_scale = order, legacy_scale
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = (
            nn.BatchNorm2d(channels, BN_EPSILON, BN_MOMENTUM)
            if norm == "batch"
            else nn.InstanceNorm2d(channels, BN_EPSILON, BN_MOMENTUM, affine=True, track_running_stats=True)
        )
        nn.init.normal_(self.depthwise.weight, std=(2 / 9) ** 0.5)
        self.close()

    def close(self) -> None:
        """Make the block the identity: the scale and the shift of its norm become 0."""
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def extra_repr(self) -> str:
        """The settings, for print(network)."""
        legacy = ", legacy_scale=True" if self.legacy_scale else ""
        return f"{self.channels}, ratio={self.ratio}, stride={self.stride}, order={self.order}{legacy}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return x + self.bn(self.depthwise(self.gather(x)))

    def gather(self, x: Tensor) -> Tensor:
        """What each place gathers from the others: (B, C, H, W) to (B, C, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ShapeError(
                f"a non-local block of {self.channels} channels got an input of shape {tuple(x.shape)}; "
                f"needed is (B, {self.channels}, H, W)."
            )
        height, width = x.shape[2:]
        order = self.order
        if order == "auto":
            order = cheaper_order(self.channels, height, width, self.ratio, self.stride)
        scale = width / height if self.legacy_scale else 1 / (height * width)
        return light_non_local(x, self.compared, self.stride, order=order, scale=scale)

    def declared_macs(self, x: Tensor) -> int:
        """The two products for each image of the batch (B, C, H, W); the depthwise convolution is counted by itself."""
        costs = product_costs(self.channels, x.shape[2], x.shape[3], self.ratio, self.stride)
        return len(x) * round(min(costs.values()))
