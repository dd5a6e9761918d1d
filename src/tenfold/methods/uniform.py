"""The same bits for every layer but the first and the last: what QAT and SAT share."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from torch import nn

from tenfold.batches import Inputs, first_rows
from tenfold.cost import Budget, Profile, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.methods.attention_products import open_attention, product_schemes
from tenfold.products import HeadMixing
from tenfold.quant import (
    FLOAT_BITS,
    SCHEMES,
    ActivationQuantizer,
    LayerFacts,
    LayerScheme,
    QuantLinear,
    QuantProduct,
    layers_left_in_float,
    quantize,
    quantized_layers,
    quantized_parts,
    start_levels,
    survey,
)
from tenfold.quant.schemes import Scheme, check_bits

_LOG = logging.getLogger("tenfold")
_FEW = 3

DEFAULT_BITS = 4
EDGE_BITS = 8
"""The first and the last layer have at least so many weight bits, and the image has exactly so many."""
_CANDIDATES = range(8, 1, -1)

SchemeChoice = Literal["auto"] | Scheme


def part_names(only: str | Sequence[str]) -> tuple[str, ...]:
    """The option `only` as names; one may be given as it is."""
    return (only,) if isinstance(only, str) else tuple(only)


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
    attention_products: bool
    only: Sequence[str]


def quantize_uniformly(
    network: nn.Module,
    budget: Budget | None,
    example: Inputs,
    method: UniformMethod,
    own: Callable[[LayerFacts, Mapping[str, LayerFacts]], Mapping[str, Any]],
) -> nn.Module:
    """Quantize every convolution and linear layer, first and last with 8-bit weights, the others alike.

    The first layer sees the image, which has 8 bits already: only its weights are quantized. A layer whose weights are
    all zero keeps their scale, whatever the method does with it elsewhere: there is nothing to normalize, and the first
    step would bring a branch that shall change nothing at first to its full size.

    Source: `sat.md` section 2.4.

    Args:
        network: a float network; its layers are replaced in place.
        budget: decides the bits where the method has none: the largest from 8 down to 2 that keep it.
        example: a batch of real inputs, such as images (B, C, H, W).
        method: the shared options.
        own: (facts of a layer, facts of all) -> further fields of the layer's `LayerScheme`.

    Raises:
        BudgetError: if no uniform bits keep the budget; the message says the smallest cost that can be reached.
        UsageError: if the network is quantized already, or has nothing to quantize.
        UnknownNameError: if `only` names a part that has nothing to quantize.
    """
    facts = survey_for(network, example, method.attention_products, method.only)
    w_bits, a_bits = method.w_bits, method.a_bits
    if w_bits is None or a_bits is None:
        w_bits = a_bits = _largest_bits(network, budget, example, facts, method)

    def scheme(fact: LayerFacts) -> LayerScheme:
        layer_w_bits, layer_a_bits = layer_bits(fact, w_bits, a_bits)
        two_sided = fact.signed_input if method.two_sided is None else method.two_sided
        found = LayerScheme(
            w_bits=layer_w_bits,
            a_bits=layer_a_bits,
            scheme=_resolve_scheme(method.scheme, layer_w_bits),
            a_scheme=_input_scheme(method.a_scheme, two_sided and fact.is_linear, layer_a_bits),
            two_sided=two_sided,
            calibrated=method.calibrated,
            pixels=fact.is_first,
            **own(fact, facts),
        )
        return replace(found, clamp=False, rescale="none") if fact.is_zero else found

    schemes = {name: scheme(fact) for name, fact in facts.items()}
    if method.attention_products:
        schemes |= within(product_schemes(network, a_bits, method.calibrated), method.only)
    mixings = [name for name, module in network.named_modules() if isinstance(module, HeadMixing) and name in facts]
    network = quantize(network, schemes)
    start_levels(network, example, _started_from_data(network, mixings))
    return network


def survey_for(
    network: nn.Module, example: Inputs, attention_products: bool, only: Sequence[str] = ()
) -> dict[str, LayerFacts]:
    """The facts of each layer to quantize; see `attention_products` for what that option does to the network.

    Raises:
        UsageError: if the network is quantized already, or has nothing to quantize.
        UnknownNameError: if `only` names a part that has nothing to quantize.
    """
    if any(quantized_layers(network)):
        raise UsageError("the network is quantized already; use one method that sets bits, on a float network.")
    if attention_products:
        open_attention(network)
    facts = survey(network, example, head_mixing=attention_products)
    for part in only:
        if not within(facts, [part]):
            raise UnknownNameError("part with layers to quantize", part, dict.fromkeys(_parts(facts)))
    if left := list(within(dict.fromkeys(layers_left_in_float(network)), only)):
        _LOG.warning(
            "%d of the layers stay in float, as they are not plain convolutions or linear layers: %s%s.",
            len(left),
            ", ".join(left[:_FEW]),
            ", …" if len(left) > _FEW else "",
        )
    return within(facts, only)


def within(named: Mapping[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """What lies in certain parts of a network, by name; everything if no part is named."""
    inside = tuple(f"{part}." for part in only)
    return {name: one for name, one in named.items() if not only or name in only or name.startswith(inside)}


def _parts(names: Iterable[str]) -> Iterator[str]:
    """The outermost modules that hold what has these names, and what these hold."""
    for depth in (1, 2):
        for name in names:
            yield ".".join(name.split(".")[:depth])


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


def _started_from_data(network: nn.Module, mixings: Collection[str]) -> list[ActivationQuantizer]:
    """The quantizers that read tokens and maps, not what batch norm and ReLU give."""
    found: list[ActivationQuantizer] = []
    for name, part in quantized_parts(network):
        if isinstance(part, QuantProduct):
            found += [part.left_quantizer, part.right_quantizer]
        elif part.input_quantizer is not None:
            reads_tokens = isinstance(part, QuantLinear) and part.layer.two_sided
            found += [part.input_quantizer] if reads_tokens or name in mixings else []
    return found


def uniform_cost(
    network: nn.Module,
    example: Inputs,
    facts: Mapping[str, LayerFacts],
    w_bits: int,
    a_bits: int,
    attention_products: bool = False,
    only: Sequence[str] = (),
) -> Profile:
    """What a float network would cost with the same bits everywhere, but for the first and the last layer."""
    if attention_products:  # they say their own bits
        schemes = within(product_schemes(network, a_bits, calibrated=True), only)
        network = quantize(copy.deepcopy(network), schemes)

    def bits_of(name: str, *_: Any) -> tuple[int, int]:
        return layer_bits(facts[name], w_bits, a_bits) if name in facts else (FLOAT_BITS, FLOAT_BITS)

    return profile(network, first_rows(example, 1), bits=bits_of)


def layer_bits(fact: LayerFacts, w_bits: int, a_bits: int) -> tuple[int, int]:
    """Bits of a layer in a network of so many bits: the first and the last one have weights of at least 8."""
    return max(w_bits, EDGE_BITS) if fact.is_edge else w_bits, EDGE_BITS if fact.is_first else a_bits


def _largest_bits(
    network: nn.Module,
    budget: Budget | None,
    example: Inputs,
    facts: Mapping[str, LayerFacts],
    method: UniformMethod,
) -> int:
    if budget is None or (budget.bitops is None and budget.bytes is None):
        return DEFAULT_BITS  # no bit-width changes what the budget limits

    for bits in _CANDIDATES:
        cost = uniform_cost(network, example, facts, bits, bits, method.attention_products, method.only)
        excess = budget.excess(cost)
        if not excess:
            return bits
    smallest = min(_CANDIDATES)
    reached = "; ".join(f"{name}: asked for {asked:,}, smallest {got:,}" for name, (asked, got) in excess.items())
    raise BudgetError(
        f"no uniform bit-width keeps the budget {budget}. At {smallest} bits, the fewest, {reached}. "
        "Raise the budget, or take a smaller network (for instance with a width below 1)."
    )
