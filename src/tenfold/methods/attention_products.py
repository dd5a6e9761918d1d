"""Quantizing the products of attention, which the methods that quantize offer as the option `attention_products`.

Both operands get `a_bits`: queries, keys and values on a grid with zero, the maps of a softmax on an unsigned one.
Re-attention's maps are normalised before they meet the values, so they are signed; its mixing of heads is quantized
like a layer. Softmax and norms stay float.
"""

from __future__ import annotations

from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.reattention_insertion import expose_products
from tenfold.quant import FLOAT_BITS, LayerScheme, quantizable_products

_FEWEST_BITS = 2


def check_attention_products(wanted: bool, fewest: int | None, most: int | None) -> None:
    """Check the option against the bits of activations.

    Args:
        wanted: the option.
        fewest: the fewest bits that activations may get; None if the budget decides.
        most: the most, likewise.

    Raises:
        UsageError: if the products would stay in float, or have no grid with zero.
    """
    if not wanted or fewest is None or most is None:
        return
    if most == FLOAT_BITS:
        raise UsageError(
            "attention_products asks to quantize activations, and the activations of this training stay in float. "
            "Give a_bits of 8 or fewer, or leave attention_products out."
        )
    if fewest < _FEWEST_BITS:
        raise UsageError(
            f"attention_products needs activations of at least {_FEWEST_BITS} bits, as queries, keys and values have "
            f"both signs and a zero; got {fewest}. Give more bits, or leave attention_products out."
        )


def open_attention(network: nn.Module) -> None:
    """See that the products of a network's attention are modules; in place, the answers stay.

    Raises:
        UsageError: if there is none, or one whose products cannot be reached.
    """
    try:
        expose_products(network)
    except UsageError as error:
        raise UsageError(f"attention_products cannot be quantized: {error} Or leave attention_products out.") from error


def product_schemes(network: nn.Module, a_bits: int, calibrated: bool) -> dict[str, LayerScheme]:
    """How each product is quantized, by name; of an attention that is open."""
    return {
        name: LayerScheme(
            w_bits=a_bits,
            a_bits=a_bits,
            scheme="symmetric",
            a_scheme="symmetric" if product.is_signed else "original",
            two_sided=product.is_signed,
            calibrated=calibrated,
        )
        for name, product in quantizable_products(network).items()
    }
