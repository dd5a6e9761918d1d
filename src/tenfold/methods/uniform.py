"""The same bits for every layer but the first and the last: what QAT and SAT share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tenfold.cost import Budget, Profile, profile
from tenfold.errors import BudgetError, UnknownNameError, UsageError
from tenfold.quant import (
    SCHEMES,
    LayerFacts,
    LayerScheme,
    calibrate,
    quantize,
    quantized_layers,
    survey,
)
from tenfold.quant.schemes import Scheme, check_bits

DEFAULT_BITS = 4
EDGE_BITS = 8
"""The first and the last layer have at least so many weight bits, and the image has exactly so many."""
_CANDIDATES = range(8, 1, -1)
_BITS_HELP = "give w_bits and a_bits, or leave both out and let the budget decide."


@dataclass(frozen=True, kw_only=True)
class UniformOptions:
    """What `quantize_uniformly` needs to know; the fields mean what those of QAT and SAT mean."""

    w_bits: int | None
    a_bits: int | None
    scheme: Literal["auto"] | Scheme
    per_channel: bool
    clamp: bool
    two_sided: bool | None
    calibrated: bool
    rescale: Callable[[LayerFacts, bool], Literal["none", "constant", "stddev"]]
    calibrate: bool


def check_options(w_bits: int | None, a_bits: int | None, scheme: str) -> None:
    """Check what a user may have got wrong, before anything runs.

    Raises:
        UsageError: if only one of the bit-widths is given, or a value is not allowed.
    """
    if (w_bits is None) != (a_bits is None):
        raise UsageError(f"w_bits is {w_bits} and a_bits is {a_bits}: {_BITS_HELP}")
    for bits, what in ((w_bits, "w_bits"), (a_bits, "a_bits")):
        if bits is not None:
            check_bits(bits, what)
    if scheme != "auto" and scheme not in SCHEMES:
        raise UnknownNameError("quantization scheme", scheme, ("auto", *SCHEMES))


def quantize_uniformly(
    network: nn.Module, budget: Budget | None, example: Tensor, options: UniformOptions
) -> nn.Module:
    """Quantize every convolution and linear layer of a network, first and last at 8 bits, the others alike.

    The first layer sees the image, which has 8 bits already: only its weights are quantized. Without bit-widths, the
    largest uniform ones from 8 down to 2 that keep the budget are taken, or 4 if the budget does not depend on them.

    Source: `sat.md` section 2.4.

    Raises:
        BudgetError: if the budget cannot be kept; the message says the smallest cost that can be reached.
        UsageError: if the network is quantized already, or has nothing to quantize.
    """
    if any(quantized_layers(network)):
        raise UsageError("the network is quantized already; give methods that set bits only once.")
    facts = survey(network, example)
    w_bits, a_bits = options.w_bits, options.a_bits
    if w_bits is None or a_bits is None:
        w_bits = a_bits = _largest_bits(network, budget, example, facts)
    quantize(network, schemes_for(facts, w_bits, a_bits, options))
    if options.calibrate:
        calibrate(network, [example])
    return network


def schemes_for(
    facts: Mapping[str, LayerFacts], w_bits: int, a_bits: int, options: UniformOptions
) -> dict[str, LayerScheme]:
    """The scheme of each layer at given bits."""
    all_normalized = all(fact.feeds_batch_norm for fact in facts.values() if not fact.is_linear)
    schemes = {}
    for name, fact in facts.items():
        layer_w_bits, layer_a_bits = _layer_bits(fact, w_bits, a_bits)
        schemes[name] = LayerScheme(
            w_bits=layer_w_bits,
            a_bits=layer_a_bits,
            scheme=_scheme_for(layer_w_bits, options.scheme),
            per_channel=options.per_channel,
            clamp=options.clamp,
            rescale=options.rescale(fact, all_normalized),
            two_sided=fact.signed_input if options.two_sided is None else options.two_sided,
            calibrated=options.calibrated,
            pixels=fact.is_first,
        )
    return schemes


def _layer_bits(fact: LayerFacts, w_bits: int, a_bits: int) -> tuple[int, int]:
    is_edge = fact.is_first or (fact.is_last and fact.is_linear)
    return max(w_bits, EDGE_BITS) if is_edge else w_bits, EDGE_BITS if fact.is_first else a_bits


def _scheme_for(w_bits: int, scheme: Literal["auto"] | Scheme) -> Scheme:
    # 8-bit codes of "original" need nine signed bits; "modified" fits int8 exactly (sat.md section 8).
    if scheme == "auto":
        return "modified" if w_bits == EDGE_BITS else "original"
    return scheme


def _largest_bits(
    network: nn.Module, budget: Budget | None, example: Tensor, facts: Mapping[str, LayerFacts]
) -> int:
    if budget is None:
        return DEFAULT_BITS
    costs: dict[int, Profile] = {}
    for bits in _CANDIDATES:

        def bits_of(name: str, *_: Any, bits: int = bits) -> tuple[int, int]:
            return _layer_bits(facts[name], bits, bits) if name in facts else (32, 32)

        costs[bits] = profile(network, tuple(example.shape[1:]), bits=bits_of)
        if not budget.excess(costs[bits]):
            depends = any(getattr(budget, cost) is not None for cost in ("bitops", "bytes"))
            return bits if depends else DEFAULT_BITS
    smallest = min(_CANDIDATES)
    lines = [
        f"{cost}: asked for {asked:,.0f}, smallest reachable {got:,.0f}"
        for cost, (asked, got) in budget.excess(costs[smallest]).items()
    ]
    raise BudgetError(
        f"no uniform bit-width from {max(_CANDIDATES)} to {smallest} keeps the budget {budget}. At {smallest} bits, "
        f"{'; '.join(lines)}. Raise the budget, or take a smaller network (for instance a width below 1)."
    )
