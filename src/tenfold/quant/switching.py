"""One network at several bit-widths: shared weights, and a switch that all its layers and norms look at.

Source: AdaBits (arXiv 1912.09666), `adabits.md` section 2.2. Weights are shared; each width may have a batch norm and a
clipping level of its own. The authors' code sets an attribute on every module and finds the private state by comparing
bits, which silently takes the first where a pair (w, a) is not in the list. Here everything looks at one `Switch`, so
switching is one assignment, reaches all, and cannot miss.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor, nn

from tenfold.errors import UnknownNameError, UsageError
from tenfold.quant.bits import BitPolicy
from tenfold.quant.fractional import FractionalBits
from tenfold.quant.quantizers import ActivationQuantizer
from tenfold.quant.schemes import Bits, check_bits
from tenfold.quant.swap import activation_quantizers, quantized_parts, quantizers_of

Width: TypeAlias = tuple[int, int]
"""Bits of weights and of activations."""
Norms: TypeAlias = Literal["private", "statistics", "shared"]
"""What of a batch norm each width has for itself: everything; the running statistics only; nothing."""


class Switch:
    """Which of its widths a network has now.

    Args:
        widths: (weight bits, activation bits) of each position.

    Attributes:
        widths: as given.
        position: index of the current one.

    Raises:
        UsageError: if there is no width, one occurs twice, or one is not allowed.
    """

    def __init__(self, widths: Sequence[Width]) -> None:
        self.widths = tuple(check_widths(widths))
        self.position = 0

    def find(self, bits: int | Width) -> int:
        """The position of a width.

        Raises:
            UsageError: if it is none, or the network does not have it; the message says which it has.
        """
        wanted = as_width(bits)
        if wanted not in self.widths:
            raise UsageError(
                f"this network has no width of {width_text(wanted)} bits; it was trained at {widths_text(self.widths)}."
            )
        return self.widths.index(wanted)


def as_width(bits: Any) -> Width:
    """A width as a pair, from what people write: one number for weights and activations, or one for each.

    Raises:
        UsageError: if it is neither.

    Example:
        >>> as_width(4), as_width([4, 8])
        ((4, 4), (4, 8))
    """
    pair = tuple(bits) if isinstance(bits, list | tuple) else (bits, bits)
    if len(pair) != 2 or not all(type(one) is int for one in pair):
        raise UsageError(
            f"a bit-width must be a whole number, or a pair of them for weights and activations, such as 4 or (4, 8); "
            f"got {bits!r}."
        )
    return pair


def check_widths(widths: Sequence[Width]) -> list[Width]:
    """The widths as pairs of integers.

    Raises:
        UsageError: if there is no width, one occurs twice, or one is not allowed.
    """
    checked = [(int(w), int(a)) for w, a in widths]
    if not checked:
        raise UsageError("a list of bit-widths needs at least one, such as 8,6,5,4.")
    for w, a in checked:
        check_bits(w, "a bit-width of weights")
        check_bits(a, "a bit-width of activations")
    twice = [width for number, width in enumerate(checked) if width in checked[:number]]
    if twice:
        raise UsageError(f"the bit-widths {widths_text(checked)} name {width_text(twice[0])} twice; keep one of them.")
    return checked


def width_text(width: Sequence[int]) -> str:
    """A width as the command line takes it: "4", or "4/8" where weights and activations differ.

    Example:
        >>> width_text((4, 4)), width_text((4, 8))
        ('4', '4/8')
    """
    return str(width[0]) if width[0] == width[1] else f"{width[0]}/{width[1]}"


def widths_text(widths: Sequence[Sequence[int]]) -> str:
    """Several widths: "8, 6, 4"."""
    return ", ".join(map(width_text, widths))


class SwitchedBits(BitPolicy):
    """One bit-width for each position of a switch.

    Args:
        switch: shared with the rest of the network.
        choices: bits at each position.
    """

    def __init__(self, switch: Switch, choices: Sequence[int]) -> None:
        super().__init__()
        self.switch = switch
        self.choices = tuple(check_bits(bits, "a bit-width") for bits in choices)

    @property
    def active(self) -> int | Tensor:
        """The bits at the current position."""
        bits = self.choices[self.switch.position]
        assert isinstance(bits, int)
        return bits

    @property
    def bits(self) -> Bits:
        """The bits at the current position."""
        return self.choices[self.switch.position]

    @property
    def whole(self) -> Bits | None:
        """The bits at the current position."""
        return self.choices[self.switch.position]

    @property
    def slot(self) -> int:
        """The current position."""
        return self.switch.position

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        return ", ".join(map(str, self.choices))


class SearchedBits(SwitchedBits):
    """Bits that are learned for each position of a switch.

    Args:
        switch: shared with the rest of the network.
        learned: of each position.
    """

    def __init__(self, switch: Switch, learned: Sequence[FractionalBits]) -> None:
        BitPolicy.__init__(self)
        self.switch = switch
        self._learned = nn.ModuleList(learned)

    @property
    def learned(self) -> list[FractionalBits]:
        """The learned bits of each position."""
        return list(self._learned)  # type: ignore[arg-type]

    @property
    def choices(self) -> tuple[int, ...]:  # type: ignore[override]
        """What the bits of each position are rounded or frozen to."""
        return tuple(int(one.rounded()) for one in self.learned)

    @property
    def active(self) -> int | Tensor:
        """The bits at the current position, learned or frozen."""
        return self.learned[self.switch.position].active

    @property
    def bits(self) -> Bits:
        """What they round to."""
        return self.learned[self.switch.position].bits

    @property
    def whole(self) -> Bits | None:
        """The frozen bits at the current position, or None while learning."""
        return self.learned[self.switch.position].whole


class SwitchableBatchNorm(nn.Module):
    """One batch norm for each position of a switch.

    Args:
        switch: shared with the rest of the network.
        norm: what each starts from.
        norms: "statistics" keeps one scale and shift for all, and gives each its running statistics.
    """

    def __init__(self, switch: Switch, norm: nn.Module, norms: Norms = "private") -> None:
        super().__init__()
        self.switch = switch
        self.choices = nn.ModuleList(copy.deepcopy(norm) for _ in switch.widths)
        if norms == "statistics":
            for choice in self.choices[1:]:
                choice.weight, choice.bias = self.choices[0].weight, self.choices[0].bias

    def forward(self, input: Tensor) -> Tensor:
        """As the batch norm of the current position."""
        output: Tensor = self.choices[self.switch.position](input)
        return output


def make_switchable(
    network: nn.Module,
    widths: Sequence[Width],
    layers: Mapping[str, Sequence[Width]],
    *,
    norms: Norms = "private",
    private_levels: bool = True,
) -> nn.Module:
    """Give a quantized network several bit-widths, in place; it starts at the first.

    Args:
        network: with quantized layers; each batch norm and clipping level becomes the start of all its twins.
        widths: (weight bits, activation bits) of each position, as users name them.
        layers: for each quantized layer or product its bits at each position; they may differ (first and last layer).
        norms: see `Norms`.
        private_levels: a clipping level for each width (S-CL) instead of one for all.

    Raises:
        UsageError: if the network has several widths already, or the lists do not fit together.
    """
    if norms not in get_args(Norms):
        raise UnknownNameError("choice of batch norms", norms, get_args(Norms))
    if find_switch(network) is not None:
        raise UsageError("the network has several bit-widths already.")
    switch = Switch(widths)
    found = dict(quantized_parts(network))
    if found.keys() != layers.keys() or any(len(bits) != len(switch.widths) for bits in layers.values()):
        raise UsageError("the bit-widths of the layers do not fit the layers of this network.")
    for name, layer in found.items():
        for quantizer, choices in zip(quantizers_of(layer), zip(*layers[name], strict=True), strict=True):
            if quantizer is not None:
                quantizer.policy = SwitchedBits(switch, choices)
            if private_levels and isinstance(quantizer, ActivationQuantizer):
                quantizer.alpha = nn.Parameter(quantizer.alpha.detach().repeat(len(switch.widths)))
    if norms != "shared":
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    setattr(parent, name, SwitchableBatchNorm(switch, child, norms))
    return network


def find_switch(network: nn.Module) -> Switch | None:
    """The switch of a network with several bit-widths, or None."""
    return next((module.switch for module in network.modules() if isinstance(module, SwitchedBits)), None)


def set_bits(network: nn.Module, bits: int | Width) -> None:
    """Switch a network to one of its bit-widths: every layer and every batch norm, at once.

    Args:
        network: trained by AdaBits.
        bits: of weights and activations, or a pair (weights, activations).

    Raises:
        UsageError: if the network does not have that width, or has only one; or if the bits are no width.

    Example:
        >>> set_bits(load("runs/adabits/artifact.safetensors"), 4)  # doctest: +SKIP
    """
    switch = find_switch(network)
    if switch is None:
        raise UsageError("this network has one bit-width only; train it with the method adabits to get several.")
    switch.position = switch.find(bits)


def available_bits(network: nn.Module) -> tuple[Width, ...]:
    """The widths that `set_bits` can choose from, in the order of training; empty for a network with one only."""
    switch = find_switch(network)
    return () if switch is None else switch.widths


def describe_switch(network: nn.Module) -> dict[str, Any] | None:
    """The widths of a network as JSON values, which `make_switchable` takes as arguments; None if it has only one."""
    switch = find_switch(network)
    if switch is None:
        return None
    positions = range(len(switch.widths))
    choices = {
        name: [
            [_choice(one, at, bits) for one, bits in zip(quantizers_of(part), (part.w_bits, part.a_bits), strict=True)]
            for at in positions
        ]
        for name, part in quantized_parts(network)
    }
    return {
        "widths": [list(width) for width in switch.widths],
        "layers": choices,
        "norms": _norms_of(network),
        "private_levels": any(quantizer.alpha.dim() for quantizer in activation_quantizers(network).values()),
    }


def _choice(quantizer: nn.Module | None, position: int, fallback: Bits) -> Bits:
    policy = getattr(quantizer, "policy", None)
    return policy.choices[position] if isinstance(policy, SwitchedBits) else fallback


def _norms_of(network: nn.Module) -> Norms:
    for module in network.modules():
        if isinstance(module, SwitchableBatchNorm):
            first, last = module.choices[0].weight, module.choices[-1].weight
            return "statistics" if first is last and len(module.choices) > 1 else "private"
    return "shared"


def restore_switch(network: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """The inverse of `describe_switch`, for data from outside.

    Raises:
        UsageError: if the description is not one, or not of this network.
    """
    try:
        widths = [(int(w), int(a)) for w, a in description["widths"]]
        layers = {str(name): [(int(w), int(a)) for w, a in bits] for name, bits in description["layers"].items()}
        norms, private_levels = description["norms"], bool(description["private_levels"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the description of the bit-widths is damaged ({type(error).__name__}: {error}).") from error
    return make_switchable(network, widths, layers, norms=norms, private_levels=private_levels)
