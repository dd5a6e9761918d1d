"""The settings that one batch runs in when several methods have a say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from torch import Tensor, nn

from tenfold.methods import Method, Pass


def combined_passes(methods: Sequence[Method], network: nn.Module) -> list[Pass]:
    """Every combination of the methods' passes; weights multiply, settings are entered in the order of the methods.

    A method without settings of its own has one neutral pass, and so changes nothing for the others.
    """
    return [_combine(choice) for choice in product(*(method.passes(network) for method in methods))]


def combined_settings(methods: Sequence[Method], network: nn.Module) -> list[Pass]:
    """As `combined_passes`, of all settings that the network will have."""
    return [_combine(choice) for choice in product(*(method.settings(network) for method in methods))]


def _combine(choice: Sequence[Pass]) -> Pass:
    if len(choice) == 1:
        return choice[0]
    weight = 1.0
    for one in choice:
        weight *= one.weight

    def enter() -> None:
        for one in choice:
            one.enter()

    def adjust(outputs: Tensor, loss: Tensor) -> Tensor:
        for one in choice:
            if one.adjust is not None:
                loss = one.adjust(outputs, loss)
        return loss

    name = " ".join(one.name for one in choice if one.name)
    return Pass(weight=weight, enter=enter, name=name, adjust=adjust)


def summed_penalty(methods: Sequence[Method], network: nn.Module) -> Tensor | None:
    """The methods' penalties added up (0-d), or None if none has one."""
    terms = [term for method in methods if (term := method.penalty(network)) is not None]
    return sum(terms[1:], start=terms[0]) if terms else None
