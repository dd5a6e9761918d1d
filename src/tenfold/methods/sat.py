"""Scale-adjusted training with gradient-calibrated PACT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from tenfold.batches import Inputs
from tenfold.cost import Budget
from tenfold.errors import UnknownNameError
from tenfold.methods.attention_products import check_attention_products
from tenfold.methods.method import Method, register
from tenfold.methods.uniform import SchemeChoice, check_options, part_names, quantize_uniformly
from tenfold.quant import LayerFacts, QuantLayer, fan_out, quantized_layers

_STEEP = 5.0
"""The papers' own networks lie below."""
_LARGEST_TANH = 0.9
"""Beyond, tanh is so flat that the largest weights would hardly move."""

RescaledLayers = Literal["auto", "linear", "all", "none"]


@register
@dataclass(kw_only=True)
class SAT(Method):
    """Train at low precision with the two rules of efficient training kept.

    Clamped weights have a variance that does not fall with the size of a layer; where no batch norm repairs that, SAT
    brings the quantized weights to variance 1 / fan-out. The clipping levels get the calibrated gradient.

    Source: "Rethinking neural network quantization" (arXiv 1912.10207), sections on scale adjustment and CG-PACT;
    `sat.md`. The official code quantizes with "original" everywhere; `scheme="original"` gives that.
    """

    name: ClassVar[str] = "sat"

    w_bits: int | None = None
    """Bits of the weights, 1 to 8 (32: float weights, clamped and scaled: SAT's first stage); None: by the budget."""
    a_bits: int | None = None
    """Bits of the activations, 1 to 8 (32: float); None: as `w_bits`."""
    scheme: SchemeChoice = "auto"
    """Grid of the weights; "auto" is "original" below 8 bits and "symmetric" at 8, so that the codes fit int8."""
    a_scheme: SchemeChoice = "auto"
    """Grid of the inputs; "auto" is the papers' "original", but "symmetric" for signed inputs of linear layers: what a
    transformer's layers read crowds around zero, which "original" has no level for."""
    rescale: RescaledLayers = "auto"
    """Layers with scale adjustment: "linear"; "all"; "auto" is "all" if a convolution is not followed by batch norm."""
    rescale_rule: Literal["constant", "stddev"] = "constant"
    """The target: variance 1 / fan-out ("constant"), or the deviation of the float weight ("stddev")."""
    two_sided: bool | None = None
    """Whether inputs may be negative; None: decided per layer from the data."""
    calibrated: bool = True
    """CG-PACT's gradient for the clipping levels (the method) instead of PACT's."""
    attention_products: bool = False
    """Whether the products of attention are quantized, too: queries with keys, maps with values."""
    only: Sequence[str] = ()
    """Quantize these parts of the network only, such as "backbone": modules by name, with all inside; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.w_bits, self.a_bits, self.scheme, self.a_scheme)
        check_attention_products(self.attention_products, self.a_bits, self.a_bits)
        self.only = part_names(self.only)
        for what, got, allowed in (
            ("choice of rescaled layers", self.rescale, get_args(RescaledLayers)),
            ("rescale rule", self.rescale_rule, ("constant", "stddev")),
        ):
            if got not in allowed:
                raise UnknownNameError(what, got, allowed)

    def attach(self, network: nn.Module, budget: Budget | None, example: Inputs) -> nn.Module:
        """Quantize all layers; see `quantize_uniformly` for the errors."""
        network = quantize_uniformly(network, budget, example, self, self._own_fields)
        for _, layer in quantized_layers(network):
            if layer.layer.rescale == "constant":
                _bring_near_target(layer)
        return network

    def _own_fields(self, fact: LayerFacts, facts: Mapping[str, LayerFacts]) -> dict[str, str]:
        return {"rescale": self.rescale_rule if self._is_rescaled(fact, facts) else "none"}

    def _is_rescaled(self, fact: LayerFacts, facts: Mapping[str, LayerFacts]) -> bool:
        if self.rescale == "auto":
            all_normalized = all(other.feeds_batch_norm for other in facts.values() if not other.is_linear)
            return fact.is_linear or not all_normalized
        return self.rescale == "all" or (self.rescale == "linear" and fact.is_linear)


@torch.no_grad()
def _bring_near_target(layer: QuantLayer) -> None:
    """Enlarge weights far below the deviation that scale adjustment gives them; what the layer computes stays.

    Their gradients are multiplied by the ratio of the two, so their steps are larger by its square than those of other
    layers: with a thousand classes, for which networks start their last layer, ten times; with ten, a thousand times,
    and the training diverges.
    """
    weight = layer.weight
    deviation, target = float(weight.float().std()), fan_out(weight) ** -0.5
    if 0 < deviation < target / _STEEP:
        tanh = weight.float().tanh()
        # Quantizers see tanh over its largest magnitude, which a common factor leaves as it is.
        weight.copy_((tanh * min(target / deviation, _LARGEST_TANH / float(tanh.abs().max()))).atanh())
