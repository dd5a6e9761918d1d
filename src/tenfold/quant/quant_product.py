"""The quantized product of two activations: an attention's queries with keys, and its maps with values."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from tenfold.products import Product
from tenfold.quant.bits import FixedBits
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.quantizers import ActivationQuantizer
from tenfold.quant.schemes import Bits

INITIAL_LEVEL = 10.0
"""As of linear layers; methods start levels of products from data, since maps are small."""


class QuantProduct(Product):
    """A product whose operands are both quantized.

    Its scheme is that of a layer whose weight is the right operand: `w_bits` and `scheme` are of the right one, which
    is signed, `a_bits`, `a_scheme` and `two_sided` of the left one.

    Args:
        layer: how it is quantized.
    """

    def __init__(self, layer: LayerScheme) -> None:
        super().__init__(is_signed=layer.two_sided)
        self.left_quantizer = ActivationQuantizer(layer, INITIAL_LEVEL)
        self.right_quantizer = ActivationQuantizer(layer, INITIAL_LEVEL)
        self.use_scheme(layer)

    def use_scheme(self, layer: LayerScheme) -> None:
        """Be quantized in another way from now on; clipping levels stay."""
        self.layer = layer
        right = replace(layer, a_bits=layer.w_bits, a_scheme=layer.scheme, two_sided=True)
        for quantizer, scheme in ((self.left_quantizer, layer), (self.right_quantizer, right)):
            quantizer.layer = scheme
            quantizer.policy = FixedBits(scheme.a_bits).to(quantizer.alpha.device)

    @property
    def w_bits(self) -> Bits:
        """Bits of the right operand now."""
        return self.right_quantizer.policy.bits

    @property
    def a_bits(self) -> Bits:
        """Bits of the left operand now."""
        return self.left_quantizer.policy.bits

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(…, n, k) and (…, k, m) to (…, n, m)."""
        return super().forward(self.left_quantizer(left).to(left.dtype), self.right_quantizer(right).to(right.dtype))
