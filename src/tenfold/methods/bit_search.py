"""The search for bit-widths under a limit on BitOPs, bytes, or both: cost, penalty, rounding, repair.

Source: FracBits (arXiv 2007.02017), `fracbits.md` sections 2.4 to 2.6. The last step, `repair`, is ours: the official
procedure may end a percent above its target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.errors import BudgetError
from tenfold.methods.learned_bits import mean_bits
from tenfold.quant import FractionalBits

_TRIALS = 10
_BAND = 0.01
"""The official bisection stops when the rounded cost is within so much of the target, on either side."""


@dataclass(frozen=True, kw_only=True)
class SearchedLayer:
    """What one layer costs as a function of its bits.

    Attributes:
        name: of the layer.
        macs: multiply-adds for one image.
        weights: number of weights.
        groups: of a convolution.
        w: bits of the weights: learned, or a fixed number.
        a: bits of the input: learned, or a fixed number.
        gates: learned kernel bits of the layers that each input channel comes through; a kernel of 0 bits saves its
            channel here too.
    """

    name: str
    macs: int
    weights: int
    groups: int
    w: FractionalBits | int
    a: FractionalBits | int
    gates: tuple[FractionalBits, ...] = ()


Values = Mapping[FractionalBits, Tensor]
"""Numbers to compute a cost with, by policy."""


class BitSearch:
    """Learned bits of a network (at one position of its switch), and what they may cost.

    Args:
        layers: all quantized layers.
        other_bitops: BitOPs of everything else.
        other_bytes: bytes of everything else: biases, layers that are not quantized.
        spare_bytes: what whole numbers of bits leave free, because a byte begun in a file counts whole.
        bitops: most BitOPs, or None.
        bytes: most bytes, or None.
        checked: whether the limits must be within reach now.

    Raises:
        BudgetError: if `checked`, and even the fewest bits cost more; the message says how much the smallest costs.

    Attributes:
        kept: channels, by the policy of their kernels, that stay although their kernel may have 0 bits; bool, (C,).
    """

    def __init__(
        self,
        layers: Sequence[SearchedLayer],
        *,
        other_bitops: float = 0.0,
        other_bytes: float = 0.0,
        spare_bytes: float = 0.0,
        bitops: float | None = None,
        bytes: float | None = None,
        checked: bool = True,
    ) -> None:
        self.layers = tuple(layers)
        self.kept: dict[FractionalBits, Tensor] = {}
        self._others = {"bitops": other_bitops, "bytes": other_bytes}
        limits = {"bitops": bitops, "bytes": bytes}
        self.limits = {quantity: float(limit) for quantity, limit in limits.items() if limit is not None}
        self._spare = {"bitops": 0.0, "bytes": spare_bytes}
        self.policies = [
            policy for layer in self.layers for policy in (layer.w, layer.a) if isinstance(policy, FractionalBits)
        ]
        smallest = self.costs({policy: policy.rounded(-1e3) for policy in self.policies})
        excess = [
            f"{quantity}: asked for {limit:,.0f}, smallest {float(smallest[quantity]):,.0f}"
            for quantity, limit in self.limits.items()
            if float(smallest[quantity]) > limit
        ]
        if excess and checked:
            raise BudgetError(
                f"no choice of bits keeps the budget. With the fewest bits that the range allows, {'; '.join(excess)}. "
                "Raise the budget, allow fewer bits, or take a smaller network."
            )

    def costs(self, values: Values | None = None) -> dict[str, Tensor]:
        """BitOPs and bytes for one image, 0-d, differentiable.

        Args:
            values: bits by policy; None takes those in use.
        """
        bitops, size = torch.zeros(()), torch.zeros(())
        for layer in self.layers:
            costs = self.layer_costs(layer, values)
            bitops, size = bitops + costs["bitops"], size + costs["bytes"]
        return {"bitops": bitops + self._others["bitops"], "bytes": size + self._others["bytes"]}

    def layer_costs(self, layer: SearchedLayer, values: Values | None = None) -> dict[str, Tensor]:
        """As `costs`, of one layer."""
        w, a = (_value(policy, values) for policy in (layer.w, layer.a))
        gate = self._gate(layer, values)
        w_groups = w.view(layer.groups, -1).mean(1) if w.dim() else w
        inputs = a * gate
        a_groups = inputs.view(layer.groups, -1).mean(1) if inputs.dim() else inputs
        gate_groups = gate.view(layer.groups, -1).mean(1) if gate.dim() else gate
        return {
            "bitops": layer.macs * (w_groups * a_groups).mean(),
            "bytes": layer.weights / 8 * (w_groups * gate_groups).mean(),
        }

    def _gate(self, layer: SearchedLayer, values: Values | None) -> Tensor:
        """How much of each input channel is there: 1, or the fraction of a bit that its kernel has left."""
        gate = torch.ones(())
        for policy in layer.gates:
            present = _value(policy, values).clamp(max=1)
            kept = self.kept.get(policy)
            gate = gate * (present if kept is None else torch.where(kept.to(present.device), 1, present))
        return gate

    def mean_bits(self) -> tuple[float, float]:
        """The bits of the average weight, and those of the input of the average multiply-add, as they are now."""
        weights = [(mean_bits(layer.w), layer.weights) for layer in self.layers]
        inputs = [(mean_bits(layer.a), layer.macs) for layer in self.layers]
        return _weighted_mean(weights), _weighted_mean(inputs)

    def share(self, values: Values | None = None) -> float:
        """The largest share of a limit that the cost takes: at most 1 if all limits are kept."""
        return max(self._shares(values).values())

    def _shares(self, values: Values | None = None) -> dict[str, float]:
        """What the cost takes of each limit."""
        costs = self.costs(values)
        return {
            quantity: float(costs[quantity].detach()) / (limit - self._spare[quantity])
            for quantity, limit in self.limits.items()
        }

    def penalty(self, kappa: float, relative: bool) -> Tensor:
        """The term of the loss: kappa |C - C_target|, in units of 1e9 BitOPs and 1e6 bytes, or of the target (0-d)."""
        costs = self.costs()
        units = self.limits if relative else {"bitops": 1e9, "bytes": 1e6}
        terms = [(costs[quantity] - limit).abs() / units[quantity] for quantity, limit in self.limits.items()]
        return kappa * torch.stack(terms).sum()

    def uniform_start(self) -> float:
        """The real bit-width at which all layers together cost what they may."""
        return self._affordable(dict.fromkeys(self.policies, 0.0))

    def shifted_start(self, shifts: Mapping[FractionalBits, float]) -> dict[FractionalBits, Tensor]:
        """Real bits that together cost what they may and differ by these shifts, as far as their ranges allow."""
        return self._shifted(self._affordable(shifts), shifts)

    def _affordable(self, shifts: Mapping[FractionalBits, float]) -> float:
        """The highest level at which bits of that level plus their shifts keep the limits, by bisection."""
        low = min(policy.low for policy in self.policies) - max(shifts.values())
        high = max(policy.high for policy in self.policies) - min(shifts.values())
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.share(self._shifted(middle, shifts)) <= 1 else (low, middle)
        return low

    def _shifted(self, level: float, shifts: Mapping[FractionalBits, float]) -> dict[FractionalBits, Tensor]:
        return {
            p: torch.full_like(p.value, level + shifts[p]).clamp(max(p.low, p.minimum), p.high) for p in self.policies
        }

    def slopes(self, values: Values) -> dict[str, dict[FractionalBits, Tensor]]:
        """For each limited quantity what one more bit costs, as a share of the limit, of the shape of each value.

        Args:
            values: bits by policy.
        """
        with torch.enable_grad():
            leaves = {policy: bits.clone().requires_grad_() for policy, bits in values.items()}
            costs = self.costs(leaves)
            slopes = {}
            for quantity, limit in self.limits.items():
                gradients = torch.autograd.grad(
                    costs[quantity] / limit,
                    list(leaves.values()),
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,  # bits of inputs cost no bytes
                )
                slopes[quantity] = dict(zip(values, gradients, strict=True))
        return slopes

    def rounded(self, strict: bool = True) -> tuple[dict[FractionalBits, Tensor], float]:
        """The whole numbers that the search ends with, and the offset of the bisection.

        Args:
            strict: keep the limits for certain, and use up what they leave.
        """
        offset, _ = find_offset(lambda shift: self.share({p: p.rounded(shift) for p in self.policies}))
        chosen = {policy: policy.rounded(offset) for policy in self.policies}
        if strict:
            self.repair(chosen, fill=True)
        return chosen, offset

    def repair(self, chosen: dict[FractionalBits, Tensor], *, fill: bool) -> None:
        """Bring whole numbers of bits within the limits for certain, in place.

        Args:
            chosen: bits by policy.
            fill: whether to raise bits, too, where the limits leave room.
        """
        # Raising several bits of a layer at once may go a little too far, so bits are lowered once more.
        for direction in (-1, 1, -1) if fill else (-1,):
            self._repair(chosen, direction)

    @torch.no_grad()
    def _repair(self, chosen: dict[FractionalBits, Tensor], direction: int) -> None:
        """Lower bits until every limit is kept (-1), or raise them while every limit is kept (+1), in place.

        Greedy, by the estimated loss for each unit of cost. The loss of b bits is estimated by the power of their
        quantization error, 4^-b, weighed by the tensor's part in its layer; against what was learned where bits fall.
        Bits fall for the limits that are exceeded only: inputs are not lowered to save bytes.
        """
        while True:
            room = {quantity: (1 - share) * direction for quantity, share in self._shares(chosen).items()}
            if direction < 0:
                room = {quantity: excess for quantity, excess in room.items() if excess > 0}
            if not room or (direction > 0 and min(room.values()) < 0):
                return
            moves = self._moves(chosen, direction, room)
            if direction > 0:
                moves = [move for move in moves if all(move.costs[one] <= left for one, left in room.items())]
            if not moves:
                return
            spent = dict.fromkeys(room, 0.0)
            for position, move in enumerate(moves):
                # A move changes what the others in its layer cost: so only half of the way before looking again.
                if position and any(spent[one] + move.costs[one] > left / 2 for one, left in room.items()):
                    break
                chosen[move.policy].view(-1)[move.index] += direction
                for quantity in room:
                    spent[quantity] += move.costs[quantity]

    def _moves(self, chosen: Values, direction: int, counted: Iterable[str]) -> list[_Move]:
        """Every step of a bit that costs something of the quantities counted, the best first."""
        moves = []
        slopes = self.slopes(chosen)
        for policy, bits in chosen.items():
            costs = {quantity: slopes[quantity][policy] for quantity in counted}
            total = torch.stack(list(costs.values())).sum(0)
            least = max(policy.low, policy.minimum)
            learned = policy.value.detach().clamp(least, policy.high)
            reached = bits + direction
            fits = (reached >= least) & (reached <= policy.high) & (total > 0)
            before = torch.maximum(learned, reached) if direction < 0 else bits
            loss = (torch.exp2(-2 * reached) - torch.exp2(-2 * before)) / bits.numel()
            scores = (loss / total.clamp_min(1e-30)).reshape(-1).tolist()
            singles = zip(*(cost.reshape(-1).tolist() for cost in costs.values()), strict=True)
            for index, (fit, single) in enumerate(zip(fits.reshape(-1).tolist(), singles, strict=True)):
                if fit:
                    moves.append(_Move(scores[index], dict(zip(costs, single, strict=True)), policy, index))
        return sorted(moves, key=lambda move: move.score)


@dataclass(frozen=True)
class _Move:
    """One bit more, or less.

    Attributes:
        score: estimated loss for each unit of cost.
        costs: share of the limit, by quantity.
        policy: whose bits.
        index: of the number in the policy.
    """

    score: float
    costs: Mapping[str, float]
    policy: FractionalBits
    index: int


def find_offset(share_at: Callable[[float], float]) -> tuple[float, list[tuple[float, float]]]:
    """The official bisection for an offset, in (-1, 0], at which the rounded bits cost what they may.

    Args:
        share_at: offset -> cost of the rounded bits, as a share of the target.

    Returns:
        The offset, and the (offset, share) tried.

    Source: `fracbits.md` section 2.6. Bits are only ever shifted down; if they cost too little, they stay.
    """
    lower, higher, offset = -1.0, 0.0, 0.0
    history = [(offset, share_at(offset))]
    for _ in range(_TRIALS):
        share = history[-1][1]
        if share > 1 + _BAND:
            higher = offset
        elif share < 1 - _BAND:
            lower = offset
        else:
            break
        offset = (higher + lower) / 2
        history.append((offset, share_at(offset)))
    return offset, history


def _weighted_mean(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def _value(policy: FractionalBits | int, values: Values | None) -> Tensor:
    if isinstance(policy, int):
        return torch.tensor(float(policy))
    if values is None:
        bits = policy.value.detach() if policy.frozen is not None else policy.learned
    else:
        bits = values[policy]
    return bits if bits.device.type == "mps" else bits.double()  # BitOPs need more digits than float32 has
