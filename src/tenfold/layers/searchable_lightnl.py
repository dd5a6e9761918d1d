"""A LightNL block whose place, ratio and stride are searched; see `searchable.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.layers.atomic import BN_EPSILON, BN_MOMENTUM
from tenfold.layers.gates import Choice
from tenfold.layers.lightnl import (
    LightNonLocal,
    cheaper_order,
    compared_channels,
    full_precision,
    light_non_local,
    product_costs,
)
from tenfold.layers.searchable import Openness, Searchable, sampled

RATIOS, STRIDES = (0.125, 0.25), (1, 2)
"""Those of the published networks."""
STARTING_SCALE = 0.1
"""Of the norm in a supernet. From 0 the convolution would learn nothing at first; from 1 a cubic block behind every
block makes an image that is a little brighter than those seen in training overflow."""
_SMALL = 1e-12


class SearchableNonLocal(Searchable):
    """A LightNL block that may have any of some ratios and strides, or be left out.

    y = sum over ratios of a_i S_i, where S_i compares the channels that ratio i adds, and a_i opens as long as the
    affinity of what was added is strong; for strides, y goes from the coarsest to the finest as long as that changes
    much. All candidates together cost what the largest costs. Until it is decided, sums are divided by the number of
    places summed over; afterwards by H W, as in `LightNonLocal`: use `settle` in between.

    Source: `autonl.md` section 4.4.

    Args:
        channels: of the input and the output.
        ratios: parts of the channels that may be compared; those that would compare none are left out.
        strides: of the places that may be gathered from.
        starts_closed: start with a norm of scale 0, for a network that is trained already.
    """

    kind_of_work = "non_local"

    def __init__(
        self,
        channels: int,
        ratios: Sequence[float] = RATIOS,
        strides: Sequence[int] = STRIDES,
        *,
        starts_closed: bool = False,
    ) -> None:
        super().__init__()
        by_count = {int(ratio * channels): ratio for ratio in sorted(ratios, reverse=True) if ratio * channels >= 1}
        if not by_count:
            compared_channels(channels, max(ratios))  # says why
        self.channels = channels
        self.ratios = tuple(sorted(by_count.values()))
        self.strides = tuple(sorted(set(strides), reverse=True))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels, BN_EPSILON, BN_MOMENTUM)
        nn.init.normal_(self.depthwise.weight, std=(2 / 9) ** 0.5)
        self.start(0.0 if starts_closed else STARTING_SCALE)
        self.options = nn.ModuleDict({"place": Choice()})
        self.options.update({f"ratio{index}": Choice(smooth=True) for index in range(1, len(self.ratios))})
        self.options.update({f"stride{stride}": Choice(smooth=True) for stride in self.strides[1:]})

    @property
    def ratio_names(self) -> list[str]:
        """The choices for each ratio above the smallest that is still possible."""
        return _present([f"ratio{index}" for index in range(1, len(self.ratios))], self.options)

    @property
    def stride_names(self) -> list[str]:
        """The choices for each stride finer than the coarsest that is still possible."""
        return _present([f"stride{stride}" for stride in self.strides[1:]], self.options)

    @property
    def ratio(self) -> float:
        """The largest ratio that is still possible."""
        return self.ratios[len(self.ratio_names)]

    @property
    def stride(self) -> int:
        """The finest stride that is still possible."""
        return self.strides[len(self.stride_names)]

    def start(self, scale: float) -> None:
        """Set the scale of the norm at all channels, and its shift to 0."""
        nn.init.constant_(self.bn.weight, scale)
        nn.init.zeros_(self.bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        branch = self.bn(self.depthwise(self._gather(x)))
        opened = self._open("place", self._norm())
        return x + (branch if opened is None else opened.to(branch.dtype) * branch)

    def _norm(self) -> Tensor:
        return self.depthwise.weight.square().mean()

    def _gather(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        compared = compared_channels(self.channels, self.ratio)
        if not any(name != "place" for name in self.choices):
            order = cheaper_order(self.channels, height, width, self.ratio, self.stride)
            places = height * width if not self.choices else sampled(height, self.stride) * sampled(width, self.stride)
            return light_non_local(x, compared, self.stride, order=order, scale=1 / places)
        with full_precision(x):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            theta = wide[:, :compared].flatten(2)  # (B, k, HW)
            kernels = []  # from coarse to fine: (B, k, C)
            for stride in self.strides[: len(self.stride_names) + 1]:
                g = wide[:, :, ::stride, ::stride].flatten(2)
                kernels.append((g[:, :compared] / g.shape[2]) @ g.transpose(1, 2))
            norms = self._measure(theta, kernels)
            mixed = self._mix_strides(kernels, norms)
            mixed = mixed * self._mix_ratios(compared, norms, mixed)
            y = (theta.transpose(1, 2) @ mixed).transpose(1, 2)  # (B, C, HW)
            return y.unflatten(2, (height, width)).to(x.dtype)

    @torch.no_grad()
    def _measure(self, theta: Tensor, kernels: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the choices of ratio and stride are judged by, as means over the batch (0-d each).

        A ratio by the affinity of the channels that it adds: |x x^T|_F / (HW sqrt(channels)), which is that of their
        Gram matrix. A stride by how much it changes the coarser one, as a share of what it gives itself.
        """
        names = [*self.ratio_names, *self.stride_names]
        if not self.training:
            return dict.fromkeys(names, theta.new_zeros(()))
        gram = theta @ theta.transpose(1, 2) / theta.shape[2]  # (B, k, k)
        norms = {}
        for name, first, last in self._slices():
            part = gram[:, first:last, first:last]
            norms[name] = part.square().sum((1, 2)).sqrt().mean() / (last - first) ** 0.5
        for name, coarse, fine in zip(self.stride_names, kernels, kernels[1:], strict=False):
            change, whole = ((gram @ one * one).sum((1, 2)).clamp_min(0).sqrt() for one in (fine - coarse, fine))
            norms[name] = (change / whole.clamp_min(_SMALL)).mean()
        return norms

    def _slices(self) -> list[tuple[str, int, int]]:
        """Name, first and last channel of what each choice of a ratio adds."""
        counts = [compared_channels(self.channels, ratio) for ratio in self.ratios]
        return [(name, counts[index], counts[index + 1]) for index, name in enumerate(self.ratio_names)]

    def _mix_strides(self, kernels: Sequence[Tensor], norms: Mapping[str, Tensor]) -> Tensor:
        mixed, opened = kernels[0], None
        for name, coarse, fine in zip(self.stride_names, kernels, kernels[1:], strict=False):
            opened = _times(opened, self._open(name, norms[name]))
            mixed = mixed + (fine - coarse if opened is None else opened * (fine - coarse))
        return mixed

    def _mix_ratios(self, compared: int, norms: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """How open each compared channel is, (k, 1)."""
        first = self._slices()[0][1] if self.ratio_names else compared
        parts, opened = [like.new_ones(first)], None
        for name, start, end in self._slices():
            opened = _times(opened, self._open(name, norms[name]))
            parts.append(like.new_ones(end - start) * (1.0 if opened is None else opened))
        return torch.cat(parts)[:, None]

    @torch.no_grad()
    def settle(self, height: int, width: int) -> None:
        """Fit the statistics of the norm to sums that are divided by H W instead of the number of places summed.

        Args:
            height: of the map.
            width: of the map.
        """
        factor = sampled(height, self.stride) * sampled(width, self.stride) / (height * width)
        for norm in self.bn.modules():  # a norm may have become several, one for each bit-width
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean *= factor
                norm.running_var *= factor**2

    def openness(self) -> dict[str, Tensor]:
        """As of `Searchable`."""
        norms = {"place": self._norm()}
        return {name: choice.relaxed(norms.get(name)) for name, choice in self.choices.items()}

    def macs(self, height: int, width: int, opened: Openness) -> Any:
        """As of `Searchable`: the cheaper products of each ratio and stride, weighed by how much it is chosen."""
        total: Any = 9 * self.channels * height * width
        for ratio, by_ratio in zip(self.ratios, _chosen(self.ratio_names, opened), strict=False):
            for stride, by_stride in zip(self.strides, _chosen(self.stride_names, opened), strict=False):
                products = round(min(product_costs(self.channels, height, width, ratio, stride).values()))
                total = total + by_ratio * by_stride * products
        return opened.get("place", 1) * total

    @property
    def candidates(self) -> dict[str, list[float]]:
        """As of `Searchable`: ratios that rise, and strides that fall."""
        return {"ratio": list(self.ratios), "stride": list(self.strides)}

    def chosen(self, opened: Openness) -> dict[str, float]:
        """As of `Searchable`."""
        ratio, stride = (
            len(list(takewhile(lambda name: opened.get(name, True), names)))
            for names in (self.ratio_names, self.stride_names)
        )
        return {"ratio": self.ratios[ratio], "stride": self.strides[stride]}

    def declared_macs(self, x: Tensor) -> int:
        """The two products at the largest ratio and the finest stride that are left."""
        costs = product_costs(self.channels, x.shape[2], x.shape[3], self.ratio, self.stride)
        return len(x) * round(min(costs.values()))

    def plain(self) -> LightNonLocal:
        """As of `Searchable`."""
        self._check_decided()
        block = LightNonLocal(self.channels, ratio=self.ratio, stride=self.stride)
        block.depthwise, block.bn = self.depthwise, self.bn
        return block.train(self.training)


def _present(names: Sequence[str], options: nn.ModuleDict) -> list[str]:
    """The first names, up to the one that was dropped: what comes behind it is out of reach."""
    return list(takewhile(lambda name: name in options, names))


def _times(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first * second


def _chosen(names: Sequence[str], opened: Openness) -> list[Any]:
    """How much each candidate of a nested choice is the one, from the smallest: a_i (1 - a_{i+1})."""
    reached: list[Any] = [1]
    for name in names:
        reached.append(reached[-1] * opened.get(name, 1))
    return [here - after for here, after in zip_longest(reached, reached[1:], fillvalue=0)]
