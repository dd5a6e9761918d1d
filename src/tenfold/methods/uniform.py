"""The same bits for every layer but the first and the last: what QAT and SAT share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from tenfold.cost import Budget, Profile, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.quant import SCHEMES, LayerFacts, LayerScheme, quantize, quantized_layers, survey
from tenfold.quant.schemes import Scheme, check_bits

DEFAULT_BITS = 4
EDGE_BITS = 8
"""The first and the last layer have at least so many weight bits, and the image has exactly so many."""
_CANDIDATES = range(8, 1, -1)

SchemeChoice = Literal["auto"] | Scheme


def check_options(w_bits: int | None, a_bits: int | None, scheme: str) -> None:
    """Check what a user may have got wrong, before anything runs.

    Raises:
        UsageError: if only one of the bit-widths is given, or a value is not allowed.
    """
    if (w_bits is None) != (a_bits is None):
        raise UsageError(
            f"w_bits is {w_bits} and a_bits is {a_bits}: give both, or neither and let the budget decide "
            f"({DEFAULT_BITS} bits without one)."
        )
    if w_bits is not None and a_bits is not None:
        check_bits(w_bits, "w_bits")
        check_bits(a_bits, "a_bits")
    if scheme != "auto" and scheme not in SCHEMES:
        raise UnknownNameError("quantization scheme", scheme, ("auto", *SCHEMES))


def resolve_scheme(choice: SchemeChoice, w_bits: int) -> Scheme:
    """The grid of a layer's weights: "auto" takes "original", except at 8 bits.

    There the codes of "original" need nine signed bits (`sat.md` section 8), those of "symmetric" fit int8 exactly, and
    the two differ by one level of 256.
    """
    if choice == "auto":
        return "symmetric" if w_bits == EDGE_BITS else "original"
    return choice


def quantize_uniformly(
    network: nn.Module,
    budget: Budget | None,
    example: Tensor,
    bits: tuple[int, int] | None,
    scheme_for: Callable[[Mapping[str, LayerFacts], str, int, int], LayerScheme],
) -> nn.Module:
    """Quantize every convolution and linear layer, first and last with 8-bit weights, the others alike.

    The first layer sees the image, which has 8 bits already: only its weights are quantized.

    Source: `sat.md` section 2.4.

    Args:
        network: a float network; its layers are replaced in place.
        budget: decides the bits where `bits` is None: the largest from 8 down to 2 that keep it.
        example: a batch of real images, (B, C, H, W).
        bits: of the weights and of the activations.
        scheme_for: (facts of all layers, name, w_bits, a_bits) -> how to quantize that layer.

    Raises:
        BudgetError: if no uniform bits keep the budget; the message says the smallest cost that can be reached.
        UsageError: if the network is quantized already, or has nothing to quantize.
    """
    if any(quantized_layers(network)):
        raise UsageError("the network is quantized already; use one method that sets bits, on a float network.")
    facts = survey(network, example)
    if bits is None:
        bits = (_largest_bits(network, budget, example, facts),) * 2
    schemes = {name: scheme_for(facts, name, *_layer_bits(fact, *bits)) for name, fact in facts.items()}
    return quantize(network, schemes)


def _layer_bits(fact: LayerFacts, w_bits: int, a_bits: int) -> tuple[int, int]:
    is_edge = fact.is_first or (fact.is_last and fact.is_linear)
    return max(w_bits, EDGE_BITS) if is_edge else w_bits, EDGE_BITS if fact.is_first else a_bits


def _largest_bits(network: nn.Module, budget: Budget | None, example: Tensor, facts: Mapping[str, LayerFacts]) -> int:
    if budget is None or (budget.bitops is None and budget.bytes is None):
        return DEFAULT_BITS  # no bit-width changes what the budget limits

    def cost(bits: int) -> Profile:
        def bits_of(name: str, *_: Any) -> tuple[int, int]:
            return _layer_bits(facts[name], bits, bits) if name in facts else (32, 32)

        return profile(network, example, bits=bits_of)

    for bits in _CANDIDATES:
        excess = budget.excess(cost(bits))
        if not excess:
            return bits
    smallest = min(_CANDIDATES)
    reached = "; ".join(f"{name}: asked for {asked:,}, smallest {got:,}" for name, (asked, got) in excess.items())
    raise BudgetError(
        f"no uniform bit-width keeps the budget {budget}. At {smallest} bits, the fewest, {reached}. "
        "Raise the budget, or take a smaller network (for instance with a width below 1)."
    )
