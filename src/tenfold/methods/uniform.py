"""The same bits for every layer but the first and the last: what QAT and SAT share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from tenfold.cost import Budget, Profile, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.quant import (
    FLOAT_BITS,
    SCHEMES,
    ActivationQuantizer,
    LayerFacts,
    LayerScheme,
    QuantLinear,
    quantize,
    quantized_layers,
    start_levels,
    survey,
)
from tenfold.quant.schemes import Scheme, check_bits

DEFAULT_BITS = 4
EDGE_BITS = 8
"""The first and the last layer have at least so many weight bits, and the image has exactly so many."""
_CANDIDATES = range(8, 1, -1)

SchemeChoice = Literal["auto"] | Scheme


def check_options(w_bits: int | None, a_bits: int | None, *schemes: str) -> None:
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
    for scheme in schemes:
        if scheme != "auto" and scheme not in SCHEMES:
            raise UnknownNameError("quantization scheme", scheme, ("auto", *SCHEMES))


class UniformMethod(Protocol):
    """The options that QAT and SAT share; their meaning is told there."""

    w_bits: int | None
    a_bits: int | None
    scheme: SchemeChoice
    a_scheme: SchemeChoice
    two_sided: bool | None
    calibrated: bool


def quantize_uniformly(
    network: nn.Module,
    budget: Budget | None,
    example: Tensor,
    method: UniformMethod,
    own: Callable[[LayerFacts, Mapping[str, LayerFacts]], Mapping[str, Any]],
) -> nn.Module:
    """Quantize every convolution and linear layer, first and last with 8-bit weights, the others alike.

    The first layer sees the image, which has 8 bits already: only its weights are quantized.

    Source: `sat.md` section 2.4.

    Args:
        network: a float network; its layers are replaced in place.
        budget: decides the bits where the method has none: the largest from 8 down to 2 that keep it.
        example: a batch of real images, (B, C, H, W).
        method: the shared options.
        own: (facts of a layer, facts of all) -> further fields of the layer's `LayerScheme`.

    Raises:
        BudgetError: if no uniform bits keep the budget; the message says the smallest cost that can be reached.
        UsageError: if the network is quantized already, or has nothing to quantize.
    """
    if any(quantized_layers(network)):
        raise UsageError("the network is quantized already; use one method that sets bits, on a float network.")
    facts = survey(network, example)
    w_bits, a_bits = method.w_bits, method.a_bits
    if w_bits is None or a_bits is None:
        w_bits = a_bits = _largest_bits(network, budget, example, facts)

    def scheme(fact: LayerFacts) -> LayerScheme:
        layer_w_bits, layer_a_bits = layer_bits(fact, w_bits, a_bits)
        two_sided = fact.signed_input if method.two_sided is None else method.two_sided
        return LayerScheme(
            w_bits=layer_w_bits,
            a_bits=layer_a_bits,
            scheme=_resolve_scheme(method.scheme, layer_w_bits),
            a_scheme=_input_scheme(method.a_scheme, two_sided and fact.is_linear, layer_a_bits),
            two_sided=two_sided,
            calibrated=method.calibrated,
            pixels=fact.is_first,
            **own(fact, facts),
        )

    network = quantize(network, {name: scheme(fact) for name, fact in facts.items()})
    start_levels(network, example, _signed_inputs_of_linear_layers(network))
    return network


def _resolve_scheme(choice: SchemeChoice, w_bits: int) -> Scheme:
    """The grid of a layer's weights: "auto" takes "original", except at 8 bits.

    There the codes of "original" need nine signed bits (`sat.md` section 8), those of "symmetric" fit int8 exactly, and
    the two differ by one level of 256.
    """
    if choice == "auto":
        return "symmetric" if w_bits == EDGE_BITS else "original"
    return choice


def _input_scheme(choice: SchemeChoice, is_signed_linear: bool, a_bits: int) -> Scheme:
    """The grid of a layer's input; see the option `a_scheme`. One bit has no grid with a zero."""
    if choice == "auto":
        return "symmetric" if is_signed_linear and a_bits > 1 else "original"
    return choice


def _signed_inputs_of_linear_layers(network: nn.Module) -> list[ActivationQuantizer]:
    """The quantizers that read tokens, not what batch norm and ReLU give."""
    return [
        layer.input_quantizer
        for _, layer in quantized_layers(network)
        if isinstance(layer, QuantLinear) and layer.layer.two_sided and layer.input_quantizer is not None
    ]


def uniform_cost(
    network: nn.Module, example: Tensor, facts: Mapping[str, LayerFacts], w_bits: int, a_bits: int
) -> Profile:
    """What a float network would cost with the same bits everywhere, but for the first and the last layer."""

    def bits_of(name: str, *_: Any) -> tuple[int, int]:
        return layer_bits(facts[name], w_bits, a_bits) if name in facts else (FLOAT_BITS, FLOAT_BITS)

    return profile(network, example, bits=bits_of)


def layer_bits(fact: LayerFacts, w_bits: int, a_bits: int) -> tuple[int, int]:
    """Bits of a layer in a network of so many bits: the first and the last one have weights of at least 8."""
    return max(w_bits, EDGE_BITS) if fact.is_edge else w_bits, EDGE_BITS if fact.is_first else a_bits


def _largest_bits(network: nn.Module, budget: Budget | None, example: Tensor, facts: Mapping[str, LayerFacts]) -> int:
    if budget is None or (budget.bitops is None and budget.bytes is None):
        return DEFAULT_BITS  # no bit-width changes what the budget limits

    for bits in _CANDIDATES:
        excess = budget.excess(uniform_cost(network, example, facts, bits, bits))
        if not excess:
            return bits
    smallest = min(_CANDIDATES)
    reached = "; ".join(f"{name}: asked for {asked:,}, smallest {got:,}" for name, (asked, got) in excess.items())
    raise BudgetError(
        f"no uniform bit-width keeps the budget {budget}. At {smallest} bits, the fewest, {reached}. "
        "Raise the budget, or take a smaller network (for instance with a width below 1)."
    )
