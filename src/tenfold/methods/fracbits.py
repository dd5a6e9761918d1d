"""Mixed precision by learned fractional bit-widths."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from tenfold.batches import first_rows, placed
from tenfold.cost import Budget, Profile, profile
from tenfold.errors import UnknownNameError, UsageError
from tenfold.methods.attention_products import check_attention_products
from tenfold.methods.bit_search import BitSearch, SearchedLayer
from tenfold.methods.learned_bits import bit_numbers, checked_range, fix_all, learned_or_fixed, mean_bits, policies_of
from tenfold.methods.method import Method, register
from tenfold.methods.qat import QAT
from tenfold.methods.sat import SAT
from tenfold.methods.sensitivity import sensitive_start
from tenfold.methods.uniform import part_names, survey_for, uniform_cost
from tenfold.quant import (
    FLOAT_BITS,
    Bits,
    FractionalBits,
    LayerFacts,
    QuantLayer,
    QuantPart,
    QuantProduct,
    calibrate,
    channel_paths,
    pruned_kernels,
    quantized_layers,
    quantized_parts,
    remove_channels,
    widest,
)
from tenfold.quant.schemes import Scheme, check_scheme

Base = Literal["sat", "pact", "trained"]
Grain = Literal["layer", "kernel"]
Constraint = Literal["relative", "absolute"]

OFFICIAL_SEARCH_SHARE = 121 / 150
_ABOVE_TARGET = 0.5


@register
@dataclass(kw_only=True)
class FracBits(Method):
    """Learn the bit-widths of every layer, or of every kernel, during one training, under a limit on BitOPs or bytes.

    Bits are real numbers, between whole ones the two quantizers are interpolated; a term of the loss draws the cost to
    the limit. After the search they are rounded, brought within the limit for certain, and frozen; training goes on.

    Source: FracBits (arXiv 2007.02017), `fracbits.md`.
    """

    name: ClassVar[str] = "fracbits"

    base: Base = "sat"
    """"sat": scale adjustment and CG-PACT; "pact": DoReFa and PACT; "trained": weights keep their scale, one maximum
    per channel (for a start from trained float weights)."""
    calibrated: bool | None = None
    """CG-PACT's gradient for the clipping levels instead of PACT's; None: PACT's for the base "pact" only. The released
    configurations of that base have CG-PACT's."""
    like: int | None = None
    """Take the BitOPs (the bytes, if `weight_only`) of the uniform network at so many bits as the budget, instead of
    one on BitOPs or bytes."""
    weight_only: bool = False
    """Leave activations in float; then the budget must limit bytes."""
    w_range: tuple[int, int] = (2, 8)
    """Fewest and most bits of weights; with `weight_bits="kernel"` and 0, kernels are pruned."""
    a_range: tuple[int, int] = (2, 8)
    """Fewest and most bits of activations; under a budget of bytes alone, which they do not count in, all have the
    most."""
    weight_bits: Grain = "layer"
    """Bits of weights for each "layer", or for each "kernel" (output channel)."""
    kernels_together: bool = False
    """Whether bits of kernels also move with those of their layer, by the sum of all gradients. Alone, as in the paper,
    the bits of one kernel feel little of the loss, and in a short training they stay where they were."""
    start: float | Literal["sensitivity"] | None = None
    """Bits to start from; None: those at which all layers together keep the budget, plus a half. "sensitivity", for a
    network that is trained already: more for layers whose bits its answers need more, all together at the budget."""
    kappa: float = 5.0
    """Weight of the cost in the loss."""
    bits_rate: float = 1.0
    """Learning rate of the bits over that of the weights: 1 in the paper, whose trainings take 187,000 steps; in a
    short one bits need more to get anywhere."""
    constraint: Constraint = "relative"
    """What kappa weighs: the distance from the budget as a share of it, or in 1e9 BitOPs and 1e6 bytes (the paper)."""
    warmup_epochs: float = 0.0
    """Epochs before the cost enters the loss."""
    search_share: float = OFFICIAL_SEARCH_SHARE
    """Part of the training after which bits are rounded and frozen."""
    strict: bool = True
    """After rounding, lower bits until the budget is kept, and raise them where it leaves room."""
    upper_is_next: bool = False
    """At a whole number, look at the next one above, so that bits there feel the loss (not in the paper's code)."""
    project: bool = True
    """Bring bits that left their range back after each step; outside of it they would feel nothing any more."""
    scheme: Scheme = "original"
    """Grid of the weights; the released configurations use "original"."""
    two_sided: bool | None = None
    """Whether inputs may be negative; None: decided per layer from the data."""

    attention_products: bool = False
    """Whether the products of attention are quantized, too: queries with keys, maps with values."""
    only: Sequence[str] = ()
    """Quantize these parts of the network only, such as "backbone": modules by name, with all inside; none: all."""

    _step: int = field(default=0, init=False, repr=False)
    _steps_per_epoch: int = field(default=1, init=False, repr=False)
    _offset: float | None = field(default=None, init=False, repr=False)
    _trajectory: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, got, allowed in (
            ("base of fracbits", self.base, Base),
            ("grain of the weights' bits", self.weight_bits, Grain),
            ("constraint", self.constraint, Constraint),
        ):
            if got not in get_args(allowed):
                raise UnknownNameError(what, got, get_args(allowed))
        self.w_range, self.a_range = checked_range("w_range", self.w_range), checked_range("a_range", self.a_range)
        if self.w_range[0] == 0 and self.weight_bits != "kernel":
            raise UsageError('w_range begins at 0, which prunes kernels: this needs weight_bits="kernel".')
        if self.kernels_together and self.weight_bits != "kernel":
            raise UsageError('kernels_together is for kernels that have bits of their own: weight_bits="kernel".')
        if self.a_range[0] == 0:
            raise UsageError("a_range must begin at 1 or more: an input of 0 bits would leave a layer nothing to see.")
        check_scheme(self.scheme, self.w_range[0])
        check_attention_products(
            self.attention_products, self.a_range[0], FLOAT_BITS if self.weight_only else self.a_range[1]
        )
        self.only = part_names(self.only)
        if not 0 < self.search_share <= 1:
            raise UsageError(f"search_share must be above 0 and at most 1; got {self.search_share}.")
        if not self.bits_rate > 0:
            raise UsageError(f"bits_rate must be above 0; got {self.bits_rate}.")
        self._check_start()
        if not self.warmup_epochs >= 0:
            raise UsageError(f"warmup_epochs must be 0 or more; got {self.warmup_epochs}.")
        if not self.kappa >= 0:
            raise UsageError(f"kappa must be 0 or more; got {self.kappa}.")
        if self.like is not None and not 1 <= self.like <= 8:
            raise UsageError(f"like must be a whole number, 1 to 8 (bits of a uniform network); got {self.like!r}.")

    def _check_start(self) -> None:
        if self.start is None or self.start == "sensitivity":
            return
        ends = sorted((*self.w_range, *self.a_range))
        if not isinstance(self.start, int | float) or not ends[0] <= self.start <= ends[-1]:
            raise UsageError(
                f'start must be a number of bits within w_range or a_range, {ends[0]} to {ends[-1]}, or "sensitivity"; '
                f"got {self.start!r}."
            )

    def attach(self, network: nn.Module, budget: Budget | None, example: Any) -> nn.Module:
        """Quantize all layers, with learned bits in all but the first, and the weights of the last.

        Raises:
            BudgetError: if the budget is out of reach with the fewest bits that the range allows.
            UsageError: if there is neither a budget on bits nor `like`, or both; or the network is quantized already.
        """
        facts = survey_for(network, example, self.attention_products, self.only)
        a_bits = FLOAT_BITS if self.weight_only else self.a_range[1]
        limits = self._limits(network, budget, example, facts)
        network = self._base(a_bits).attach(network, None, example)
        self._find_parts(network)
        self._example = first_rows(example, 2)
        self._paths = channel_paths(network, self._example) if self.w_range[0] == 0 else {}
        self._kept_limits = limits
        for name, layer in self._layers.items():
            self._learn(layer, facts[name])
        for product in self._products.values() if self._learns_inputs else ():
            for quantizer in (product.left_quantizer, product.right_quantizer):
                quantizer.policy = self._policy(self.a_range, 0)
        network.to(next(network.parameters()).device)
        self._search = self._search_for(network, checked=not hasattr(network, "shrinks_to"))
        self._start(network, example)
        self._learned = {policy: policy.value.detach().clone() for policy in self._search.policies}
        return network

    @property
    def _learns_inputs(self) -> bool:
        """Whether bits of inputs have a price; where they have none, all inputs keep the most that they may have."""
        return not self.weight_only and "bitops" in self._kept_limits

    @torch.no_grad()
    def _start(self, network: nn.Module, example: Any) -> None:
        if self.start == "sensitivity":
            calibrate(network, [example], norms=False)
            for policy, bits in sensitive_start(network, self._search, example).items():
                policy.value.copy_(bits)
            return
        start = self._search.uniform_start() + _ABOVE_TARGET if self.start is None else self.start
        for policy in self._search.policies:
            policy.value.fill_(min(max(start, policy.low), policy.high))

    def _find_parts(self, network: nn.Module) -> None:
        self._layers = dict(quantized_layers(network))
        self._products = {name: part for name, part in quantized_parts(network) if isinstance(part, QuantProduct)}

    def _search_for(self, network: nn.Module, *, checked: bool) -> BitSearch:
        """The costs of the layers as functions of their bits; all else is counted, whatever the bits are now."""
        counted = profile(network, first_rows(self._example, 1), bits=self._most_bits)
        layers = self._searched(counted)
        policies = [policy for layer in layers for policy in (layer.w, layer.a) if isinstance(policy, FractionalBits)]
        counted_at = {one: torch.full_like(one.value, float(one.high)) for one in policies}
        for product in self._products.values():  # which say what they have now
            for policy in policies_of(product):
                if isinstance(policy, FractionalBits):
                    counted_at[policy].fill_(widest(policy.bits))
        known = BitSearch(layers).costs(counted_at)
        # What another method will remove, bits need not save: they learn what they may have in the end.
        stays = getattr(network, "shrinks_to", 1.0) if self._offset is None else 1.0
        limits = {quantity: limit / stays for quantity, limit in self._kept_limits.items()}
        return BitSearch(
            layers,
            other_bitops=counted.bitops - float(known["bitops"]),
            other_bytes=counted.size_bytes - float(known["bytes"]),
            spare_bytes=len(self._layers),
            bitops=limits.get("bitops"),
            bytes=limits.get("bytes"),
            checked=checked,
        )

    def _most_bits(self, name: str, module: nn.Module, idx: int, count: int) -> tuple[Bits, Bits]:
        """A layer's bits with all that are learned at their most."""
        quantizers = (getattr(module, "weight_quantizer", None), getattr(module, "input_quantizer", None))
        said = (getattr(module, "w_bits", FLOAT_BITS), getattr(module, "a_bits", FLOAT_BITS))
        policies = [getattr(quantizer, "policy", None) for quantizer in quantizers]
        w, a = (p.high if isinstance(p, FractionalBits) else bits for p, bits in zip(policies, said, strict=True))
        return w, a

    def network_cut(self, network: nn.Module) -> None:
        """Count anew what the layers cost; bits of what is gone are forgotten."""
        self._find_parts(network)
        if self._paths:
            self._paths = channel_paths(network, self._example)
        self._search = self._search_for(network, checked=False)
        self._learned = {
            policy: policy.value.detach().clone()
            if self._offset is None or self._learned[policy].shape != policy.value.shape
            else self._learned[policy]
            for policy in self._search.policies
        }

    def _base(self, a_bits: int) -> Method:
        common: dict[str, Any] = {
            "w_bits": 8,
            "a_bits": a_bits,
            "scheme": self.scheme,
            "a_scheme": "auto" if self.a_range[0] > 1 else "original",
            "two_sided": self.two_sided,
            "attention_products": self.attention_products,
            "only": self.only,
            "calibrated": self.base != "pact" if self.calibrated is None else self.calibrated,
        }
        if self.base == "sat":
            return SAT(**common)
        if self.base == "pact":
            return QAT(**common)
        return QAT(**common, clamp=False, per_channel=True)

    def _learn(self, layer: QuantLayer, fact: LayerFacts) -> None:
        """Give a layer bits that are learned, where the rules for the first and the last layer leave a choice."""
        if not fact.is_edge:
            count = len(layer.weight) if self.weight_bits == "kernel" else 0
            layer.weight_quantizer.policy = self._policy(self.w_range, count)
        if layer.input_quantizer is not None and self._learns_inputs:
            layer.input_quantizer.policy = self._policy(self.a_range, 0)

    def _policy(self, allowed: tuple[int, int], count: int) -> FractionalBits:
        start = float(allowed[1])
        policy = FractionalBits(
            [start] * count if count else start,
            low=allowed[0],
            high=allowed[1],
            upper_is_next=self.upper_is_next,
            passes_at_ends=self.project,
            moves_together=self.kernels_together and count > 0,
        )
        policy.value.lr_scale = self.bits_rate  # type: ignore[attr-defined]
        return policy

    def _limits(
        self, network: nn.Module, budget: Budget | None, example: Any, facts: Mapping[str, LayerFacts]
    ) -> dict[str, float]:
        limits = {} if budget is None else {"bitops": budget.bitops, "bytes": budget.bytes}
        found = {quantity: float(limit) for quantity, limit in limits.items() if limit is not None}
        if self.like is not None and found:
            given = " and ".join(found)
            raise UsageError(
                f"like={self.like} is a budget of its own, and there is one of {given}, too. Keep one of them: leave "
                f"like (--like) out, or {given} (--budget)."
            )
        if self.like is not None:
            a_bits = FLOAT_BITS if self.weight_only else self.like
            uniform = uniform_cost(network, example, facts, self.like, a_bits, self.attention_products, self.only)
            found = {"bytes": uniform.size_bytes} if self.weight_only else {"bitops": uniform.bitops}
        if not found:
            raise UsageError(
                "fracbits needs a budget that bits can keep: bitops=…, bytes=… (--budget bitops=1.2G), or like=3 "
                "(--like uniform:3) for that of a uniform network."
            )
        if self.weight_only and "bitops" in found:
            raise UsageError("weight_only leaves activations in float, so BitOPs cannot be kept; give bytes=….")
        return found

    def _searched(self, counted: Profile) -> list[SearchedLayer]:
        """All layers with the bits that they have now, learned or fixed."""
        macs = {row.name: row.macs for row in counted.layers if row.macs}
        return [
            SearchedLayer(
                name=name,
                macs=macs[name],
                weights=layer.weight.numel(),
                groups=getattr(layer, "groups", 1),
                w=learned_or_fixed(layer.weight_quantizer.policy, layer.w_bits),
                a=learned_or_fixed(getattr(layer.input_quantizer, "policy", None), layer.a_bits),
                gates=self._gates(name),
            )
            for name, layer in self._layers.items()
        ] + [
            SearchedLayer(
                name=name,
                macs=macs[name],
                weights=0,
                groups=1,
                w=learned_or_fixed(product.right_quantizer.policy, product.w_bits),
                a=learned_or_fixed(product.left_quantizer.policy, product.a_bits),
            )
            for name, product in self._products.items()
        ]

    def _gates(self, name: str) -> tuple[FractionalBits, ...]:
        """The kernel bits that decide whether an input channel of a layer is there."""
        for path in self._paths.values():
            for route in path.routes:
                if name in route[1:]:
                    before = [self._layers[one].weight_quantizer.policy for one in route[: route.index(name)]]
                    return tuple(policy for policy in before if isinstance(policy, FractionalBits))
        return ()

    def penalty(self, network: nn.Module) -> Tensor | None:
        """The distance of the cost from the budget, while bits are learned."""
        if self._offset is not None or self._step < self.warmup_epochs * self._steps_per_epoch:
            return None
        return self._search.penalty(self.kappa, self.constraint == "relative")

    def status(self) -> dict[str, str]:
        """The mean bits, and the cost as a share of each limit."""
        weights, inputs = self._search.mean_bits()
        shown = {"weight bits": f"{weights:.2f}"} | ({} if self.weight_only else {"input bits": f"{inputs:.2f}"})
        return shown | {quantity: f"{share:.1%} of its limit" for quantity, share in self._used().items()}

    def _used(self) -> dict[str, float]:
        """What the cost takes of each limit."""
        costs = self._search.costs()
        return {quantity: float(costs[quantity].detach()) / limit for quantity, limit in self._search.limits.items()}

    def step_end(self, run: Any) -> None:
        """Keep bits in their range; at the end of the search, round and freeze them."""
        self._step, self._steps_per_epoch = run.step, run.steps_per_epoch
        if self._offset is not None:
            self._silence_all(run)
            return
        if self.project:
            for policy in self._search.policies:
                policy.project()
        if run.step % run.steps_per_epoch == 0:
            self._record()
        if run.step >= round(self.search_share * run.total_steps):
            self._freeze()
            self.resumed(run)
            if run.step < run.total_steps:
                self._silence_all(run)

    def resumed(self, run: Any) -> None:
        """Freeze the bits of the weight average where those of the network are frozen."""
        if self._offset is not None and run.average is not None:
            self._freeze_twin(run.average.module)

    def _freeze(self) -> None:
        self._learned = {policy: policy.value.detach().clone() for policy in self._search.policies}
        self._search.limits = self._kept_limits
        chosen, self._offset = self._search.rounded(self.strict)
        for policy, bits in chosen.items():
            policy.freeze(bits)
        self._record()

    def _silence_all(self, run: Any) -> None:
        self._silence(run.network)
        if run.average is not None:
            self._silence(run.average.module)

    @torch.no_grad()
    def _silence(self, network: nn.Module) -> None:
        """Hold the batch norms behind pruned kernels at zero, so that nothing keeps their channels from being removed.

        Such a channel carries a constant, the shift of its norm; what it did for later layers, their norms and biases
        learn in the rest of the training. So it is done only if there is a rest; else channels keep their constants.
        """
        for path in self._paths.values():
            policy = self._layers[path.producer].weight_quantizer.policy
            if path.norm is None or not isinstance(policy, FractionalBits) or not policy.value.dim():
                continue
            norm: Any = network.get_submodule(path.norm)
            pruned = policy.value == 0
            norm.bias[pruned] = 0
            norm.running_mean[pruned] = 0

    def _freeze_twin(self, network: nn.Module) -> None:
        """Freeze the learned bits of the weight average at the same numbers."""
        parts: dict[str, QuantPart] = {**self._layers, **self._products}
        for name, twin in quantized_parts(network):
            for policy, own in zip(policies_of(twin), policies_of(parts[name]), strict=True):
                if isinstance(policy, FractionalBits) and isinstance(own, FractionalBits):
                    policy.freeze(own.value.detach().to(policy.value.device))

    def _record(self) -> None:
        costs = self._search.costs()
        self._trajectory.append(
            {
                "step": self._step,
                **{quantity: float(costs[quantity].detach()) for quantity in ("bitops", "bytes")},
                "w_bits": {layer.name: mean_bits(layer.w) for layer in self._search.layers},
                "a_bits": {layer.name: mean_bits(layer.a) for layer in self._search.layers},
            }
        )

    def finish(self, network: nn.Module, batches: Iterator[Tensor]) -> nn.Module:
        """Fix the bits and remove the channels of kernels with 0 bits: what leaves is a plain quantized network.

        Nothing is silenced here, after the last step. A channel that cannot be removed exactly stays; what it costs is
        then saved elsewhere.
        """
        if self._offset is None:
            self._freeze()
        self._freeze_twin(network)
        if self._paths:
            trial = copy.deepcopy(network)
            self._keep_what_stays(trial)
            chosen = {policy: policy.value.clone() for policy in self._search.policies}
            if self.strict:
                self._search.repair(chosen, fill=False)
            for policy, bits in chosen.items():
                policy.freeze(bits)
            self._freeze_twin(network)
        fix_all(network)
        if self._paths:
            example = placed(self._example, next(network.parameters()).device)
            removed = remove_channels(network.eval(), example, pruned_kernels(network))
            network.cuts = [*getattr(network, "cuts", []), removed]  # type: ignore[assignment]
        return network

    def _keep_what_stays(self, trial: nn.Module) -> None:
        """Find out which pruned channels cannot be removed, and count them as there; cuts a copy."""
        fix_all(trial)
        example = placed(self._example, next(trial.parameters()).device)
        removed = remove_channels(trial.eval(), example, pruned_kernels(trial))["removed"]
        for name in self._paths:
            policy = self._layers[name].weight_quantizer.policy
            if isinstance(policy, FractionalBits) and policy.value.dim():
                kept = torch.ones_like(policy.value, dtype=torch.bool)
                kept[removed.get(name, [])] = False
                self._search.kept[policy] = kept

    def report(self, network: nn.Module) -> dict[str, Any]:
        """Learned and rounded bits of each layer, and their way there."""
        return {
            "limits": self._search.limits,
            "used": self._used(),
            "offset": self._offset,
            "layers": [
                {
                    "name": layer.name,
                    "macs": layer.macs,
                    "weights": layer.weights,
                    "w_learned": bit_numbers(layer.w, self._learned),
                    "a_learned": bit_numbers(layer.a, self._learned),
                    "w_bits": bit_numbers(layer.w),
                    "a_bits": bit_numbers(layer.a),
                    "share": {
                        quantity: float(self._search.layer_costs(layer)[quantity].detach()) / limit
                        for quantity, limit in self._search.limits.items()
                    },
                }
                for layer in self._search.layers
            ],
            "trajectory": [
                {**row, **{kind: [row[kind][one.name] for one in self._search.layers] for kind in ("w_bits", "a_bits")}}
                for row in self._trajectory
            ],
        }

    def state_dict(self) -> dict[str, Any]:
        """The phase, the frozen bits and the way there; learned bits are parameters of the network."""
        frozen = self._offset is not None
        return {
            "step": self._step,
            "steps_per_epoch": self._steps_per_epoch,
            "offset": self._offset,
            "bits": [policy.value.tolist() for policy in self._search.policies] if frozen else [],
            "learned": [value.tolist() for value in self._learned.values()] if frozen else [],
            "trajectory": self._trajectory,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`: bits that were frozen are frozen again."""
        self._step, self._steps_per_epoch = int(state["step"]), int(state["steps_per_epoch"])
        self._offset = state["offset"]
        self._trajectory = [dict(row) for row in state["trajectory"]]
        if self._offset is not None:
            for policy, bits, learned in zip(self._search.policies, state["bits"], state["learned"], strict=True):
                policy.freeze(torch.tensor(bits, device=policy.value.device))
                self._learned[policy] = torch.tensor(learned)
