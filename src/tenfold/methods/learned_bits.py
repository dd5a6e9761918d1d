"""Bits of a layer that are learned, or a fixed number where a layer keeps its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.quant import Bits, FractionalBits, QuantPart, fix_bits, quantized_parts, quantizers_of


def checked_range(name: str, given: Sequence[int]) -> tuple[int, int]:
    """The fewest and the most bits that may be learned.

    Raises:
        UsageError: if they are not two whole numbers from 0 to 8, ascending.
    """
    bounds = tuple(given)
    if len(bounds) != 2 or not all(type(one) is int for one in bounds) or not 0 <= bounds[0] <= bounds[1] <= 8:
        raise UsageError(f"{name} must be two whole numbers, the fewest and the most bits, from 0 to 8; got {given!r}.")
    return bounds[0], bounds[1]


def learned_or_fixed(policy: nn.Module | None, bits: Bits) -> FractionalBits | int:
    """The policy that learns, else the number of bits."""
    if isinstance(policy, FractionalBits):
        return policy
    assert isinstance(bits, int)
    return bits


def policies_of(layer: QuantPart) -> list[nn.Module]:
    """The bit policies of a layer or product, of the weight or the right operand first."""
    return [quantizer.policy for quantizer in quantizers_of(layer) if quantizer is not None]


def mean_bits(bits: FractionalBits | int) -> float:
    """The mean over channels, as learned so far."""
    return float(bits) if isinstance(bits, int) else float(bits.learned.detach().mean())


def bit_numbers(bits: FractionalBits | int, learned: Mapping[FractionalBits, Tensor] | None = None) -> list[float]:
    """The bits of each channel, or one number for the layer; from `learned` where that is given."""
    if isinstance(bits, int):
        return [float(bits)]
    values = bits.value.detach() if learned is None else learned[bits]
    return [round(float(one), 4) for one in values.reshape(-1)]


def fix_all(network: nn.Module) -> None:
    """Let every quantized layer and product keep the bits that it has now."""
    fix_bits(network, {name: (layer.w_bits, layer.a_bits) for name, layer in quantized_parts(network)})
