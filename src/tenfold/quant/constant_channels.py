"""Kernels of zeros, and what the layers behind them see: a channel that is the same whatever the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.quant.channels import channel_layers
from tenfold.quant.layers import QuantConv2d, QuantLinear
from tenfold.quant.switching import find_switch

_TOLERANCE = 1e-5
"""Values are one constant if they differ by no more than this share: the same sum may be rounded in several ways."""


@dataclass(frozen=True)
class Seen:
    """What the weights of a layer were multiplied by.

    Attributes:
        low: the least value of each input channel, (C_in,).
        high: the largest.
    """

    low: Tensor
    high: Tensor

    def is_zero(self, channel: int) -> bool:
        """Whether all values of a channel are exactly 0."""
        return bool(self.low[channel] == 0) and bool(self.high[channel] == 0)

    def is_constant(self, channel: int) -> bool:
        """Whether a channel has one value only, up to rounding."""
        low, high = float(self.low[channel]), float(self.high[channel])
        return high - low <= _TOLERANCE * max(abs(low), abs(high))

    @property
    def constants(self) -> Tensor:
        """The value of each channel that is constant, (C_in,)."""
        return (self.low + self.high) / 2


def pruned_kernels(network: nn.Module) -> dict[str, list[int]]:
    """The kernels whose effective weights are all zero, at every bit-width that the network has, by layer.

    Example:
        >>> from tenfold.quant import LayerScheme, quantize
        >>> network = quantize(nn.Sequential(nn.Conv2d(3, 4, 1)), {"0": LayerScheme(w_bits=(4, 0, 2, 0), a_bits=8)})
        >>> pruned_kernels(network)
        {'0': [1, 3]}
    """
    layers = channel_layers(network)
    pruned: dict[str, Tensor] = {}
    for _ in each_width(network):
        for name, layer in layers.items():
            zeros = (effective_weight(layer) == 0).flatten(1).all(1)
            pruned[name] = zeros & pruned[name] if name in pruned else zeros
    return {name: zeros.nonzero().flatten().tolist() for name, zeros in pruned.items() if zeros.any()}


def observe(network: nn.Module, example: Tensor, names: Iterable[str]) -> dict[str, Seen]:
    """Run a network in the mode it is in, at each of its widths, and look at the quantized inputs of some layers.

    Constants are measured rather than derived: so they have gone through the network's own operations.

    Args:
        network: any module.
        example: a batch of its inputs.
        names: of convolution or linear layers.

    Returns:
        By the layer's name, what it saw in all runs; layers that did not run are missing.
    """
    seen: dict[str, Seen] = {}

    def look_for(name: str) -> Any:
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0]
            if isinstance(layer, QuantConv2d | QuantLinear) and layer.input_quantizer is not None:
                values = layer.input_quantizer(values)
            low, high = values.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1).aminmax(dim=1)
            before = seen.get(name, Seen(low, high))
            seen[name] = Seen(torch.minimum(low, before.low), torch.maximum(high, before.high))

        return look

    handles = [network.get_submodule(name).register_forward_pre_hook(look_for(name)) for name in names]
    try:
        for _ in each_width(network):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def effective_weight(layer: nn.Module) -> Tensor:
    """What a float or quantized layer multiplies its input with, without gradient."""
    if isinstance(layer, QuantConv2d | QuantLinear):
        return layer.effective_weight().detach()
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


def pads_with_zeros(layer: nn.Module) -> bool:
    """Whether a layer may see zeros around a map of another constant."""
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return False
    if getattr(layer, "same", False) or type(layer).__name__ == "Conv2dSame":
        return True  # how many depends on the size of the image
    return layer.padding != "valid" if isinstance(layer.padding, str) else any(layer.padding)


def each_width(network: nn.Module) -> Iterator[int]:
    """Switch a network to each of its bit-widths in turn, and back at the end; one turn if it has but one."""
    switch = find_switch(network)
    if switch is None:
        yield 0
        return
    before = switch.position
    try:
        for position in range(len(switch.widths)):
            switch.position = position
            yield position
    finally:
        switch.position = before
