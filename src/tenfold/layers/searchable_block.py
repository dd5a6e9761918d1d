"""An inverted residual whose kernel size, expansion and presence are searched; see `searchable.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.layers.atomic import Activation, FusedAtomicBlock
from tenfold.layers.gates import Choice
from tenfold.layers.searchable import Openness, Searchable, sampled

_SMALL = 1e-12
"""Keeps the slope of a root mean square finite where all weights are zero."""


class SuperKernel(nn.Conv2d):
    """A depthwise convolution 5x5 of which the centre 3x3 can be taken alone.

    Args:
        channels: of the input and the output.
        stride: of the convolution.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 5, stride, padding=2, groups=channels, bias=False)

    def centre(self) -> Tensor:
        """The kernels 3x3: (C, 1, 3, 3)."""
        return self.weight[:, :, 1:-1, 1:-1]

    def ring(self) -> Tensor:
        """What is around the centre: (C, 1, 5, 5) with zeros there."""
        return self.weight - F.pad(self.centre(), (1, 1, 1, 1))

    def forward(self, x: Tensor, ring: Tensor | float = 1.0) -> Tensor:
        """(B, C, H, W) to (B, C, H / stride, W / stride).

        Args:
            x: the input.
            ring: how much of the ring is there; the numbers 0 and 1 are exact and cost no more than they must.
        """
        if isinstance(ring, float) and ring == 0:
            return F.conv2d(x, self.centre(), None, self.stride, 1, groups=self.groups)
        weight = self.weight if isinstance(ring, float) else self.weight - (1 - ring) * self.ring()
        return F.conv2d(x, weight, None, self.stride, self.padding, groups=self.groups)


class SearchableBlock(FusedAtomicBlock, Searchable):
    """An inverted residual that may have either kernel size, fewer hidden channels, or vanish where it keeps the shape.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        hidden: channels in the middle at the larger expansion.
        narrow: channels in the middle at the smaller one.
        stride: of the depthwise convolution.
        activation: everywhere in the block.
        squeezed: as of `FusedAtomicBlock`.
        attention: as of `FusedAtomicBlock`, such as `SearchableNonLocal`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int,
        narrow: int,
        *,
        stride: int = 1,
        activation: Activation = "swish",
        squeezed: int = 0,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            {5: hidden},
            stride=stride,
            activation=activation,
            squeezed=squeezed,
            attention=attention,
        )
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.activation, self.squeezed, self.narrow = activation, squeezed, narrow
        self.filter.conv = SuperKernel(hidden, stride)
        self.options = nn.ModuleDict({"kernel": Choice()})
        if narrow < hidden:
            self.options["wide"] = Choice()
        if self.is_residual:
            self.options["keep"] = Choice()

    @property
    def filter(self) -> Any:
        """The depthwise convolution with its norm and activation."""
        return self.depthwise["k5"]

    @property
    def hidden(self) -> int:
        """Channels in the middle that are still possible."""
        return int(self.filter.conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        norms: dict[str, Tensor] = self._norms() if self.choices else {}
        y = self.expand(x)
        ring: Tensor | float = 0.0
        if "kernel" in self.options:
            opened = self._open("kernel", norms.get("kernel"))
            ring = 1.0 if opened is None else opened
        y = self.filter.act(self.filter.bn(self.filter.conv(y, ring)))
        wide = self._open("wide", norms.get("wide"))
        if wide is not None:
            y = torch.cat([y[:, : self.narrow], y[:, self.narrow :] * wide.to(y.dtype)], 1)
        y = self.attention(self.project(self.squeeze_excite(y)))
        if not self.is_residual:
            return y
        kept = self._open("keep", norms.get("keep"))
        return x + (y if kept is None else y * kept.to(y.dtype))

    def _norms(self) -> dict[str, Tensor]:
        """Root mean squares of the ring, of the second half of the kernels, and of the first (0-d each)."""
        conv: SuperKernel = self.filter.conv
        norms, kernel = {}, conv.centre()
        if "kernel" in self.options:
            choice: Any = self.options["kernel"]
            norms["kernel"] = (conv.ring().square().sum() / (16 * self.hidden) + _SMALL).sqrt()
            kernel = conv.weight - (1 - choice.relaxed(norms["kernel"])) * conv.ring()
        norms["keep"] = _root_mean_square(kernel[: self.narrow])
        if self.hidden > self.narrow:
            norms["wide"] = _root_mean_square(kernel[self.narrow :])
        return norms

    def openness(self) -> dict[str, Tensor]:
        """As of `Searchable`."""
        norms = self._norms()
        return {name: choice.relaxed(norms[name]) for name, choice in self.choices.items()}

    def macs(self, height: int, width: int, opened: Openness) -> Any:
        """As of `Searchable`; exact at every combination of choices, as all layers are linear in hidden channels."""
        places = sampled(height, self.stride) * sampled(width, self.stride)
        area = 9 + 16 * opened.get("kernel", 1)
        hidden = self.narrow + (self.hidden - self.narrow) * opened.get("wide", 1)
        squeeze = places + 2 * self.squeezed if self.squeezed else 0  # its pool, and two layers
        each = self.in_channels * height * width + area * places + self.out_channels * places + squeeze
        return opened.get("keep", 1) * hidden * each

    @property
    def candidates(self) -> dict[str, list[float]]:
        """As of `Searchable`: kernel sizes, and hidden channels over input channels."""
        widths = sorted({min(self.narrow, self.hidden), self.hidden})
        return {"kernel": [3, 5], "expansion": [width / self.in_channels for width in widths]}

    def chosen(self, opened: Openness) -> dict[str, float]:
        """As of `Searchable`."""
        candidates = self.candidates
        kernel = candidates["kernel"][bool(opened.get("kernel", True))]
        return {"kernel": kernel, "expansion": candidates["expansion"][-1 if opened.get("wide", True) else 0]}

    def removed_channels(self) -> list[int]:
        """The hidden channels that go when the larger expansion is not taken."""
        return list(range(self.narrow, self.hidden))

    def plain(self) -> FusedAtomicBlock:
        """As of `Searchable`."""
        self._check_decided()
        kernel = 5 if "kernel" in self.options else 3
        block = FusedAtomicBlock(
            self.in_channels,
            self.out_channels,
            {kernel: self.hidden},
            stride=self.stride,
            activation=self.activation,
            squeezed=self.squeezed,
            attention=self.attention,
        )
        block.expand, block.project, block.squeeze_excite = self.expand, self.project, self.squeeze_excite
        filter_: Any = block.depthwise[f"k{kernel}"]
        weight = self.filter.conv.weight if kernel == 5 else self.filter.conv.centre()
        filter_.conv.weight = nn.Parameter(weight.detach().clone())
        filter_.bn = self.filter.bn
        return block.train(self.training)


def _root_mean_square(weight: Tensor) -> Tensor:
    return (weight.square().mean() + _SMALL).sqrt()
