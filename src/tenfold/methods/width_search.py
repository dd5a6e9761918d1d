"""Bits learned for every layer at every width of a switchable network: mixed precision at each position.

Our own, made of two systems that exist: each width of AdaBits gets the learned bits of FracBits (`fracbits.md` section
2), under the BitOPs that the same bits everywhere cost at that width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.cost import Profile, profile
from tenfold.errors import UsageError
from tenfold.methods.bit_search import BitSearch, SearchedLayer
from tenfold.methods.learned_bits import bit_numbers, policies_of
from tenfold.quant import FractionalBits, LayerFacts, Switch, SwitchedBits, quantized_parts, quantizers_of
from tenfold.quant.switching import SearchedBits, width_text

_ABOVE_TARGET = 0.5
FEWEST_BITS, _MOST = 2, 8


class WidthSearch:
    """The learned bits of a network at all positions of its switch.

    Args:
        network: switchable; where the rules for the first and the last layer leave a choice its layers get learned
            bits, in place.
        switch: of the network.
        facts: of its layers.
        example: images to count the cost with, (B, C, H, W).
        bits_rate: learning rate of the bits over that of the weights.

    Raises:
        UsageError: if a width has more than 8 bits.
    """

    def __init__(
        self, network: nn.Module, switch: Switch, facts: Mapping[str, LayerFacts], example: Tensor, bits_rate: float
    ) -> None:
        self.frozen = False
        self.trajectory: list[dict[str, Any]] = []
        self._network = network
        self._widths = [width_text(width) for width in switch.widths]
        counted = []
        for position in range(len(switch.widths)):
            switch.position = position
            counted.append(profile(network, example))
        switch.position = 0
        bounds = [_range(one) for one in zip(*switch.widths, strict=True)]
        uniform: dict[FractionalBits, Tensor] = {}
        for name, part in quantized_parts(network):
            fact = facts.get(name)
            stays = (False, False) if fact is None else (fact.is_edge, fact.is_first)
            for quantizer, allowed, kept in zip(quantizers_of(part), bounds, stays, strict=True):
                if quantizer is not None and not kept and isinstance(quantizer.policy, SwitchedBits):
                    learned = [_learned(bits, allowed, bits_rate) for bits in quantizer.policy.choices]
                    for one, bits in zip(learned, quantizer.policy.choices, strict=True):
                        uniform[one] = torch.tensor(bits, dtype=torch.float32)
                    quantizer.policy = SearchedBits(switch, learned)
        self._searches = [_search_at(network, position, one, uniform) for position, one in enumerate(counted)]

    def penalty(self, kappa: float) -> Tensor | None:
        """How far the cost of each width is from its limit, as a share of it, times kappa; None once bits are fixed."""
        if self.frozen:
            return None
        return torch.stack([search.penalty(kappa, relative=True) for search in self._searches]).sum()

    def project(self) -> None:
        """Bring the bits back into their range."""
        for policy in self._policies():
            policy.project()

    def freeze(self) -> None:
        """Round the bits of each width so that its limit is kept for certain, and fix them."""
        for search in self._searches:
            chosen, _ = search.rounded(strict=True)
            for policy, bits in chosen.items():
                policy.freeze(bits)
        self.frozen = True

    def freeze_twin(self, twin: nn.Module) -> None:
        """Fix the bits of the weight average at the same numbers."""
        for (_, part), (_, other) in zip(quantized_parts(self._network), quantized_parts(twin), strict=True):
            for own, copied in zip(policies_of(part), policies_of(other), strict=True):
                if isinstance(own, SearchedBits) and isinstance(copied, SearchedBits):
                    for one, another in zip(own.learned, copied.learned, strict=True):
                        another.freeze(one.value.detach().to(another.value.device))

    def status(self) -> dict[str, str]:
        """The mean bits of weights at each width."""
        return {"weight bits": " ".join(f"{search.mean_bits()[0]:.2f}" for search in self._searches)}

    def record(self, step: int) -> None:
        """Note the mean bits and the cost of each width at a step, for the report."""
        means = [search.mean_bits() for search in self._searches]
        self.trajectory.append(
            {
                "step": step,
                "w_bits": [weights for weights, _ in means],
                "a_bits": [inputs for _, inputs in means],
                "used": [search.share() for search in self._searches],
            }
        )

    def report(self) -> list[dict[str, Any]]:
        """For each width its name, limit, cost, and the bits of each layer."""
        return [
            {
                "width": width,
                "limit": search.limits["bitops"],
                "used": search.share(),
                "layers": [
                    {"name": layer.name, "w_bits": bit_numbers(layer.w)[0], "a_bits": bit_numbers(layer.a)[0]}
                    for layer in search.layers
                ],
            }
            for width, search in zip(self._widths, self._searches, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The fixed bits, or None, and the way there; learned ones are parameters of the network."""
        bits = [policy.value.tolist() for policy in self._policies()] if self.frozen else None
        return {"bits": bits, "trajectory": self.trajectory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.trajectory = [dict(row) for row in state["trajectory"]]
        if state["bits"] is not None:
            for policy, bits in zip(self._policies(), state["bits"], strict=True):
                policy.freeze(torch.tensor(bits, device=policy.value.device))
            self.frozen = True

    def _policies(self) -> list[FractionalBits]:
        return [policy for search in self._searches for policy in search.policies]


def _search_at(
    network: nn.Module, position: int, counted: Profile, uniform: Mapping[FractionalBits, Tensor]
) -> BitSearch:
    """The learned bits of one width, and what they may cost: as much as the uniform ones of all."""
    macs = {row.name: row.macs for row in counted.layers}
    layers = [
        SearchedLayer(
            name=name,
            macs=macs[name],
            weights=getattr(part, "weight", torch.empty(0)).numel(),
            groups=getattr(part, "groups", 1),
            w=_choice_at(part.w_bits, w_policy, position),
            a=_choice_at(part.a_bits, a_policy, position),
        )
        for name, part in quantized_parts(network)
        for w_policy, a_policy in [[getattr(one, "policy", None) for one in quantizers_of(part)]]
    ]
    learned = float(BitSearch(layers).costs(uniform)["bitops"])
    return BitSearch(layers, other_bitops=counted.bitops - learned, bitops=counted.bitops)


def fix_widths(network: nn.Module) -> None:
    """Let every layer keep the whole numbers of bits that it has at each width."""
    for _, part in quantized_parts(network):
        for quantizer in quantizers_of(part):
            policy = getattr(quantizer, "policy", None)
            if quantizer is not None and isinstance(policy, SearchedBits):
                quantizer.policy = SwitchedBits(policy.switch, policy.choices)


def _range(bits: Sequence[int]) -> tuple[int, int]:
    if max(bits) > _MOST:
        raise UsageError(f"bits are learned from {FEWEST_BITS} to {_MOST}; leave out the width {max(bits)}.")
    return min(FEWEST_BITS, *bits), max(bits)


def _learned(bits: Any, allowed: tuple[int, int], bits_rate: float) -> FractionalBits:
    low, high = allowed
    policy = FractionalBits(min(bits + _ABOVE_TARGET, high), low=low, high=high)
    policy.value.lr_scale = bits_rate  # type: ignore[attr-defined]
    return policy


def _choice_at(bits: Any, policy: nn.Module | None, position: int) -> FractionalBits | int:
    if isinstance(policy, SearchedBits):
        return policy.learned[position]
    choice = policy.choices[position] if isinstance(policy, SwitchedBits) else bits
    assert isinstance(choice, int)
    return choice
