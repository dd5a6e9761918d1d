"""Layers that hold several choices at once, one inside the other, for a search by gradient.

A super-kernel 5x5 holds 3x3 in its centre, an expansion by 6 holds one by 3 in its first half, a residual block may be
left out, and a LightNL block holds all smaller ratios and coarser sampling, and may be left out. All are opened by
`Choice`s. After a search has dropped these (see `Choice`), the layers compute just what was chosen, and `plain` gives
the same as ordinary layers.

Source: AutoNL (arXiv 2004.01961) and Single-Path NAS (arXiv 1904.02877), `autonl.md` sections 4.3 and 4.4. Differences:
gates stand where they can be heard. A gate that multiplies a kernel in front of a batch norm changes nothing that the
loss could feel, as the norm undoes its scale; so whole blocks and LightNL are gated behind their last norm, and hidden
channels behind theirs. All norms are means or root mean squares, and so of the same size in layers of any width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.layers.gates import Choice

Openness: TypeAlias = Mapping[str, Any]
"""How open each choice of a layer is, by its name there: 0 to 1, tensors (0-d) or numbers."""


class Searchable(nn.Module):
    """A layer with undecided parts.

    Attributes:
        options: its choices by name, nested ones in order.
    """

    options: nn.ModuleDict

    @property
    def choices(self) -> dict[str, Choice]:
        """The choices that are not decided yet."""
        return {
            name: choice
            for name, choice in self.options.items()
            if isinstance(choice, Choice) and not choice.is_open_for_good
        }

    def openness(self) -> dict[str, Tensor]:
        """How open each undecided choice is now (0-d), differentiable in the thresholds and the weights."""
        raise NotImplementedError

    def macs(self, height: int, width: int, opened: Openness) -> Any:
        """Multiply-adds for one image of that size at the input, without searchable layers inside."""
        raise NotImplementedError

    @property
    def candidates(self) -> dict[str, list[float]]:
        """What its settings may be, each list in the order in which its choices open, from the cheapest."""
        raise NotImplementedError

    def chosen(self, opened: Openness) -> dict[str, float]:
        """Which of the `candidates` a decision (of booleans) takes; a choice that is not named is open."""
        raise NotImplementedError

    def plain(self) -> nn.Module:
        """The same as an ordinary layer, with the same parameters; everything must be decided."""
        raise NotImplementedError

    def _open(self, name: str, norm: Tensor | None) -> Tensor | None:
        """How open a choice is: None for certainly, as for one that never was."""
        if name not in self.options:
            return None
        choice = self.options[name]
        assert isinstance(choice, Choice)
        return None if choice.is_open_for_good else choice(norm)

    def _check_decided(self) -> None:
        if self.choices:
            raise UsageError(
                f"a {type(self).__name__} still has to choose about {', '.join(self.choices)}; only what is decided "
                "can become a plain layer. Let the search finish."
            )


def make_plain(network: nn.Module) -> nn.Module:
    """Replace every searchable layer of a network, in place, by the ordinary layer that it has become.

    Raises:
        UsageError: if one is not decided yet.
    """
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, Searchable)]
    for name, layer in reversed(layers):  # what is inside comes before what is around
        if not name:
            return layer.plain()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.plain())
    return network


def sampled(size: int, stride: int) -> int:
    """How many of `size` places every `stride`-th is, from the first."""
    return -(-size // stride)
