"""Plain quantization-aware training: DoReFa weights and PACT activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tenfold.batches import Inputs
from tenfold.cost import Budget
from tenfold.methods.attention_products import check_attention_products
from tenfold.methods.method import Method, register
from tenfold.methods.uniform import SchemeChoice, check_options, part_names, quantize_uniformly


@register
@dataclass(kw_only=True)
class QAT(Method):
    """Train with quantized weights and activations at one bit-width, without scale adjustment.

    Source: DoReFa-Net (arXiv 1606.06160) and PACT (arXiv 1805.06085), with the layer conventions of `sat.md`
    section 2.4. With `clamp=False, per_channel=True` and calibration it starts from trained float weights; with no
    epoch of training that is plain post-training quantization.
    """

    name: ClassVar[str] = "qat"

    w_bits: int | None = None
    """Bits of the weights, 1 to 8 (32: float); None: the largest that keep the budget."""
    a_bits: int | None = None
    """Bits of the activations, 1 to 8 (32: float); None: as `w_bits`."""
    scheme: SchemeChoice = "auto"
    """Grid of the weights; "auto" is "original" below 8 bits and "symmetric" at 8, so that the codes fit int8."""
    a_scheme: SchemeChoice = "auto"
    """Grid of the inputs; "auto" is the papers' "original", but "symmetric" for signed inputs of linear layers: what a
    transformer's layers read crowds around zero, which "original" has no level for."""
    per_channel: bool = False
    """One weight maximum per output channel instead of one per tensor."""
    clamp: bool = True
    """Whether tanh normalizes the weights (DoReFa); False keeps their scale, for trained float weights."""
    two_sided: bool | None = None
    """Whether inputs may be negative; None: decided per layer from the data."""
    calibrated: bool = False
    """CG-PACT's gradient for the clipping levels instead of PACT's."""
    attention_products: bool = False
    """Whether the products of attention are quantized, too: queries with keys, maps with values."""
    only: Sequence[str] = ()
    """Quantize these parts of the network only, such as "backbone": modules by name, with all inside; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.w_bits, self.a_bits, self.scheme, self.a_scheme)
        check_attention_products(self.attention_products, self.a_bits, self.a_bits)
        self.only = part_names(self.only)

    def attach(self, network: nn.Module, budget: Budget | None, example: Inputs) -> nn.Module:
        """Quantize all layers; see `quantize_uniformly` for the errors."""
        own = {"per_channel": self.per_channel, "clamp": self.clamp}
        return quantize_uniformly(network, budget, example, self, lambda _, __: own)
