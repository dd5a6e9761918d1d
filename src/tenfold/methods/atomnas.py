"""A network that finds its widths and kernel sizes while it trains."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from tenfold.cost import Budget
from tenfold.errors import UnknownNameError, UsageError
from tenfold.methods.atom_costs import AtomCosts
from tenfold.methods.atom_latency import measure_atoms
from tenfold.methods.atom_selection import by_block, least_important, portions
from tenfold.methods.atoms import (
    AtomGroup,
    absorb_constants,
    count_atoms,
    find_atoms,
    importance,
    removal,
    scales_of,
)
from tenfold.methods.method import Method, register
from tenfold.quant import FractionalBits
from tenfold.quant.calibration import measure_norms
from tenfold.quant.constant_channels import each_width

Weighting = Literal["cost", "equal"]
QUANTITIES = ("macs", "params", "bytes", "bitops", "latency_ms")
_OWN = ("macs", "params", "latency_ms")
"""What atoms decide where a method for bits takes care of the others."""
OFFICIAL_THRESHOLD = 1e-3
OFFICIAL_WARMUP = 25 / 350
_UNOPPOSED = 30.0
"""In so many searches an atom of mean cost would be gone if the task did nothing to keep it. The curve of the budget
removes atoms, the penalty only tips the ranking: a stronger one closes what is costly before it has proved its worth
(at 2, the first blocks of a small network on CIFAR-10 were gone, and 2 points of accuracy with them)."""
_LATENCY_MARGIN = 0.05
"""Measured times of parts do not add up to the time of the whole; the last trim aims so much lower."""


@register
@dataclass(kw_only=True)
class AtomNAS(Method):
    """Shrink a network while it trains: every hidden channel of every inverted residual stays or goes by itself.

    The scale of the batch norm behind a depthwise convolution is an atom's importance; a penalty, weighed by what the
    atom costs, draws it to zero, and atoms that arrive there are physically removed after each epoch, together with
    their part of the optimiser's state and of the weight average. What is left at the end is trained already.

    With a budget, the cost follows a curve down to it, and the network trains on after it is reached. Without one, the
    penalty alone decides how small the network gets, as in the paper.

    Source: AtomNAS (arXiv 1912.09640), `atomnas.md`. The budget is ours.
    """

    name: ClassVar[str] = "atomnas"

    penalty_weight: float | None = None
    """Weight of the penalty, the paper's lambda; None, with a budget: so that an atom of mean cost which the task does
    not need would lose a thirtieth of its scale in the search."""
    quantity: str | None = None
    """What atoms cost in the penalty: "macs", "params", "bytes", "bitops" or "latency_ms" (measured here); None: what
    the budget limits first, else "macs"."""
    weighting: Weighting | None = None
    """"cost": the penalty of an atom is proportional to what it costs (mean 1), as in the paper; "equal": the same for
    all; None: "equal" if neither the strength nor the quantity is given, else "cost". (A short training under a budget
    leaves better networks with equal penalties: priced, the first blocks fade before they have shown their worth.)"""
    threshold: float = OFFICIAL_THRESHOLD
    """An atom is dead if its scale and the average of its scale are both at most this."""
    warmup_share: float = OFFICIAL_WARMUP
    """Part of the training in which the penalty rises from 0."""
    search_share: float = 0.6
    """With a budget: part of the training after which it is kept, and the network stays as it is."""
    least_saving: float = 1 / 1500
    """Dead atoms are removed once they cost this share of the network's first cost (the paper: 1e6 of 1.5e9)."""
    multiple: int | None = None
    """With a budget: what is left of a group of atoms is a multiple of so many, during the search and after it, because
    most hardware is slow with odd numbers; None: of 8 in groups of 64 and more, in which it changes little."""
    repair: bool = True
    """Take along what removed atoms add to the statistics of batch norms, so that evaluation does not notice."""
    calibration_batches: int = 10
    """Training batches that set the batch norms before each evaluation (`atomnas.md` section 5)."""

    _step: int = field(default=0, init=False, repr=False)
    _strength: float = field(default=0.0, init=False, repr=False)
    _done: bool = field(default=False, init=False, repr=False)
    _trajectory: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)
    _vanished: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighting is not None and self.weighting not in get_args(Weighting):
            raise UnknownNameError("weighting of atoms", self.weighting, get_args(Weighting))
        if self.quantity is not None and self.quantity not in QUANTITIES:
            raise UnknownNameError("quantity that atoms cost", self.quantity, QUANTITIES)
        for name in ("warmup_share", "search_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} of atomnas must be 0 to 1; got {getattr(self, name)}.")
        if self.penalty_weight is not None and not self.penalty_weight >= 0:
            raise UsageError(f"penalty_weight of atomnas must be 0 or more; got {self.penalty_weight}.")
        if not self.threshold >= 0:
            raise UsageError(f"threshold of atomnas must be 0 or more; got {self.threshold}.")
        if self.multiple is not None and self.multiple < 1:
            raise UsageError(f"multiple of atomnas must be at least 1; got {self.multiple}.")

    def attach(self, network: nn.Module, budget: Budget | None, example: Tensor) -> nn.Module:
        """Find the atoms, and what each costs.

        Raises:
            BudgetError: if the budget is out of reach with one atom left wherever one must stay.
            UsageError: if the network has no atoms, its bits are learned already, or there is neither budget nor
                penalty.
        """
        if any(isinstance(module, FractionalBits) for module in network.modules()):
            raise UsageError(
                "name atomnas before fracbits in the list of methods: bits are learned for the atoms that are left."
            )
        self._example = example[:2]
        self._groups = find_atoms(network, example[:2])
        if not self._groups:
            raise UsageError(
                f"{type(network).__name__} has no inverted residuals (1x1 convolution, depthwise convolution with "
                "batch norm, 1x1 convolution) whose channels could be removed. Take a network that has some, such as "
                "atomnas_supernet, mobilenet_v2 or efficientnet_lite0."
            )
        limits = {} if budget is None else {q: limit for q, limit in budget.to_dict().items() if q in QUANTITIES}
        self._limits = {q: float(limit) for q, limit in limits.items() if q in _OWN} or limits
        if not self._limits and self.penalty_weight is None:
            raise UsageError(
                "atomnas needs a budget, such as --budget macs=100M, or the paper's penalty, such as "
                "--set methods.0.penalty_weight=1e-4."
            )
        self._quantity = self.quantity or next(iter(self._limits), "macs")
        self._costs = AtomCosts(network, self._groups, example)
        if "latency_ms" in (*self._limits, self._quantity):
            self._use_latencies(*measure_atoms(network, self._groups, example[:1]))
        self._weights = self._penalty_weights()
        self._network = network
        self._count(network)
        self._costs.check_reach(self._limits, self._quantity)
        self._tell_what_stays(network)
        return network

    def _tell_what_stays(self, network: nn.Module) -> None:
        """Let other methods know the share of today's cost that will be left, so that they do not save it twice."""
        excess = self._excess(self._current()) if self._limits else 0.0
        network.shrinks_to = 1 / (1 + max(0.0, excess))  # type: ignore[assignment]

    def _use_latencies(self, table: Mapping[str, float], whole: float) -> None:
        self._costs.set_latencies(table, whole)
        left = {group.producer for group in self._groups}
        self._groups = [group for group in self._costs.groups if group.producer in left]
        self._weights = self._penalty_weights()

    def _penalty_weights(self) -> dict[str, float]:
        is_automatic = self.penalty_weight is None and self.quantity is None
        weighting = self.weighting or ("equal" if is_automatic else "cost")
        return self._costs.penalty_weights(None if weighting == "equal" else self._quantity)

    def _count(self, network: nn.Module) -> None:
        """Count the atoms that are left, by their group; done once after every cut."""
        self._left = {group.producer: count_atoms(network, group) for group in self._groups}

    def penalty(self, network: nn.Module) -> Tensor | None:
        """The sum of the scales' magnitudes, each times the cost of its atom (mean 1), times lambda (0-d)."""
        if self._strength == 0:
            return None
        terms = [
            self._weights[group.producer] * scale.abs().sum()
            for group in self._groups
            for scale in scales_of(network, group)
        ]
        return self._strength * torch.stack(terms).sum()

    def step_end(self, run: Any) -> None:
        """Set the strength of the penalty; after each epoch, and at the end of the search, remove atoms."""
        self._step = run.step
        is_epoch_end = run.step % run.steps_per_epoch == 0
        is_search_end = bool(self._limits) and not self._done and run.step >= round(self.search_share * run.total_steps)
        if (is_epoch_end or is_search_end) and not self._done:
            self._remove_dead(run, is_last=run.step == run.total_steps)
            if self._limits:
                self._follow_curve(run, is_last=is_search_end)
            self._done = is_search_end
        if is_epoch_end or is_search_end:
            self._record()
        self._strength = self._next_strength(run)

    def _next_strength(self, run: Any) -> float:
        if self._done or (self._limits and self._excess(self._current()) <= 0):
            return 0.0
        full = self.penalty_strength(run) if self.penalty_weight is None else self.penalty_weight
        warmup = self.warmup_share * run.total_steps
        return full * (min(1.0, run.step / warmup) if warmup else 1.0)

    def penalty_strength(self, run: Any) -> float:
        """The lambda at which an unopposed scale falls from 1 to 0 within `_UNOPPOSED` of the search.

        The sum of the steps that an optimiser takes on a constant small gradient g: SGD with momentum m makes
        lr g / (1 - m) a step; RMSprop the same, over the root of its epsilon; AdamW makes steps of lr, whatever g.
        """
        config = run.config
        steps = _UNOPPOSED * self.search_share * run.total_steps
        reach = config.peak_lr() * max(1.0, steps)
        if config.optimizer == "adamw":
            return 1 / reach
        gain = 1 / (1 - config.momentum)
        if config.optimizer == "rmsprop_tf":
            gain /= math.sqrt(config.epsilon or 1e-3)
        return 1 / (reach * gain)

    def _current(self) -> dict[str, float]:
        """What the network costs now."""
        return self._costs.with_left(self._left)

    def _excess(self, current: Mapping[str, float]) -> float:
        """How far the cost is above the limits, as a share of them; 0 or less if they are kept."""
        return max(current[quantity] / limit - 1 for quantity, limit in self._limits.items())

    def _remove_dead(self, run: Any, *, is_last: bool) -> None:
        """Remove the atoms whose scales are small, in the network and in its average (in the end: in the average)."""
        average = None if run.average is None else run.average.module
        dead = {}
        saved = 0.0
        for group in self._groups:
            judged = run.network if average is None else average
            scores = importance(judged, group)
            small = scores <= self.threshold
            saved += int(small.sum()) * group.costs[self._quantity]
            if not is_last:
                small &= importance(run.network, group) <= self.threshold
            dead[group.producer] = self._in_portions(small, scores) if self._limits else small
        if is_last or saved >= self.least_saving * self._costs.whole[self._quantity]:
            self._remove(run, dead)

    def _in_portions(self, small: Tensor, scores: Tensor) -> Tensor:
        """The part of the small atoms that can go so that a multiple is left, (atoms,)."""
        dead = torch.zeros_like(small)
        for portion in portions(scores, self.multiple):
            dead[portion] = small[portion].all()
        return dead

    def _follow_curve(self, run: Any, *, is_last: bool) -> None:
        """Remove the least important atoms until the cost is where it should be by now; in the end, within the budget.

        The curve is cubic: much at first, little at the end (arXiv 1710.01878, equation 1).
        """
        progress = min(1.0, run.step / max(1.0, self.search_share * run.total_steps))
        way = 0.0 if is_last else (1 - progress) ** 3
        limits = {}
        for quantity, limit in self._limits.items():
            margin = 1 - _LATENCY_MARGIN if quantity == "latency_ms" else 1.0
            limits[quantity] = limit * margin + max(0.0, self._costs.whole[quantity] - limit * margin) * way
        scores = {group.producer: importance(self._network, group) for group in self._groups}
        shares = {
            group.producer: {quantity: group.costs[quantity] / limit for quantity, limit in limits.items()}
            for group in self._groups
        }
        current = self._current()
        start = {quantity: current[quantity] / limit for quantity, limit in limits.items()}
        self._remove(run, least_important(self._groups, scores, shares, start, self.multiple))

    def _remove(self, run: Any, dead: Mapping[str, Tensor]) -> None:
        """Remove atoms by masks; a branch or a block without any left is dropped, unless the shape needs it."""
        removed: dict[str, list[int]] = {}
        dropped: list[str] = []
        masks: dict[str, Tensor] = {}
        for groups in by_block(self._groups).values():
            marked = {group.producer: dead[group.producer].clone() for group in groups}
            if all(bool(mask.all()) for mask in marked.values()) and (
                not groups[0].is_residual or groups[0].branch is None
            ):
                self._spare_strongest(groups, marked)
            if all(bool(mask.all()) for mask in marked.values()):
                dropped.append(groups[0].block)
            for group in groups:
                mask = marked[group.producer]
                if bool(mask.all()) and group.branch is not None:
                    if group.block not in dropped:
                        dropped.append(group.branch)
                elif bool(mask.any()):
                    removed[group.producer] = mask.nonzero().flatten().tolist()
                masks[group.producer] = mask
        masks = {name: mask for name, mask in masks.items() if bool(mask.any())}
        if not masks:
            return
        if self.repair:
            for network in (run.network, *([] if run.average is None else [run.average.module])):
                absorb_constants(network, self._example, self._groups, masks)
        run.cut(removal(self._groups, removed, dropped))

    def _spare_strongest(self, groups: Sequence[AtomGroup], marked: Mapping[str, Tensor]) -> None:
        """Keep the strongest atom of a block that cannot do without any."""
        best = max(groups, key=lambda group: float(importance(self._network, group).max()))
        marked[best.producer][int(importance(self._network, best).argmax())] = False

    def network_cut(self, network: nn.Module) -> None:
        """Forget the groups that are gone."""
        names = {name for name, _ in network.named_modules()}
        gone = [group for group in self._groups if group.producer not in names]
        self._groups = [group for group in self._groups if group.producer in names]
        left = {group.block for group in self._groups}
        self._vanished += [block for block in dict.fromkeys(group.block for group in gone) if block not in left]
        self._count(network)
        self._tell_what_stays(network)

    def prepare_evaluation(self, network: nn.Module, batches: Iterator[Tensor]) -> None:
        """Set the batch norms: averaged statistics do not fit averaged weights, nor old ones a network that shrinks."""
        images = list(islice(batches, self.calibration_batches))
        for _ in each_width(network) if images else ():
            measure_norms(network, images)

    def status(self) -> dict[str, str]:
        """Atoms left by kernel size, and the cost against the budget."""
        from tenfold.cost.units import format_amount

        counts = Counter[int]()
        for group in self._groups:
            counts[group.kernel] += self._left[group.producer]
        current = self._current()
        shown = {f"{kernel}x{kernel}": str(counts[kernel]) for kernel in sorted({g.kernel for g in self._costs.groups})}
        for quantity in self._limits or (self._quantity,):
            target = f"/{format_amount(self._limits[quantity])}" if quantity in self._limits else ""
            shown[quantity] = format_amount(current[quantity]) + target
        return shown

    def _record(self) -> None:
        kernels = Counter[int]({group.kernel: 0 for group in self._costs.groups})
        for group in self._groups:
            kernels[group.kernel] += self._left[group.producer]
        self._trajectory.append(
            {
                "step": self._step,
                **{quantity: round(value, 3) for quantity, value in self._current().items()},
                "atoms": {str(kernel): count for kernel, count in sorted(kernels.items())},
            }
        )

    def finish(self, network: nn.Module, batches: Iterator[Tensor]) -> nn.Module:
        """Leave a plain network; one that can say so describes itself by its new numbers of atoms."""
        self.prepare_evaluation(network, batches)
        vars(network).pop("shrinks_to", None)
        if hasattr(network, "found_architecture"):
            found: Any = network
            found.architecture = found.found_architecture()
            network.cuts = []  # type: ignore[assignment]
        return network

    def report(self, network: nn.Module) -> dict[str, Any]:
        """Atoms by block and kernel size, before and after, and the way there."""
        self._count(network)  # a method after this one may have removed channels too
        architecture = getattr(network, "architecture", None)
        return {
            "quantity": self._quantity,
            "limits": self._limits,
            "cost": self._current(),
            "vanished": self._vanished,
            "blocks": [
                {
                    "name": block,
                    "residual": groups[0].is_residual,
                    "before": {str(group.kernel): self._costs.counts[group.producer] for group in groups},
                    "after": {str(group.kernel): self._left.get(group.producer, 0) for group in groups},
                    "costs": {str(group.kernel): dict(group.costs) for group in groups},
                }
                for block, groups in by_block(self._costs.groups).items()
            ],
            "trajectory": self._trajectory,
            "architecture": None if architecture is None else architecture.to_dict(),
        }

    def state_dict(self) -> dict[str, Any]:
        """How far the search is; the cuts themselves belong to the run."""
        return {
            "step": self._step,
            "strength": self._strength,
            "done": self._done,
            "trajectory": self._trajectory,
            "latencies": self._costs.latencies,
            "latency_ms": self._costs.whole.get("latency_ms"),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._step, self._strength = int(state["step"]), float(state["strength"])
        self._done = bool(state["done"])
        if state["latencies"]:  # a second measurement would give other numbers
            self._use_latencies(state["latencies"], float(state["latency_ms"]))
        self._trajectory = [dict(row) for row in state["trajectory"]]
