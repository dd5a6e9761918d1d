"""A search for the places and settings of LightNL blocks, and for kernel sizes and expansions, by gradient."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.cost import Budget, format_amount, profile
from tenfold.errors import BudgetError, UsageError
from tenfold.layers.gates import Gate
from tenfold.layers.insertion import insert_behind, take_out
from tenfold.layers.lightnl import LightNonLocal
from tenfold.layers.searchable import Searchable, make_plain
from tenfold.layers.searchable_lightnl import RATIOS, STRIDES, SearchableNonLocal
from tenfold.methods.block_ends import BlockEnd, find_block_ends
from tenfold.methods.choices import ChoiceSearch, find_sites
from tenfold.methods.method import Method, register
from tenfold.quant import cut_channels, measure_norms

OFFICIAL_WARMUP = 5 / 8
OFFICIAL_KEEP = 0.6
_UNOPPOSED = 1 / 2
"""Share of the time under the cost after which a mean choice would close if the task did nothing to keep it."""
_SLOPE = 0.25
"""Of the relaxed indicator near the threshold."""


@register
@dataclass(kw_only=True)
class AutoNL(Method):
    """Find out where LightNL blocks are worth their cost, with how many channels and at which sampling stride.

    In a network with searchable layers (`autonl_supernet`) kernel sizes, expansions and the presence of blocks are
    searched too. Into any other convolutional network a LightNL block is put behind every block first. Each choice is
    a comparison of a norm with a threshold; the loss gets a term for the cost, differentiable through the relaxed
    comparisons. At the end of the search the network becomes what was found, and trains on.

    With a budget the cost is drawn towards it, and it is kept for certain: choices with the least margin are closed.

    Source: AutoNL (arXiv 2004.01961), `autonl.md` section 4. The search was never released; what the paper leaves open,
    and the budget, is ours.
    """

    name: ClassVar[str] = "autonl"

    cost_weight: float | None = None
    """Weight of the logarithm of the cost in the loss, the paper's lambda; None, with a budget: so that a mean choice
    which the task does not need closes within half of the time that is left after the warm-up."""
    search_share: float = 0.5
    """Part of the training after which the network becomes what was found; 1 only searches, for a network that is then
    trained from scratch as in the paper."""
    warmup_share: float = OFFICIAL_WARMUP
    """Part of the search without cost, with gates that are dropped by lot."""
    gate_keep: float = OFFICIAL_KEEP
    """Probability that a gate is kept open in the warm-up; 1 drops none."""
    places: tuple[str, ...] = ()
    """Layers behind which blocks are put, names or patterns such as "layer?.*.bn2"; empty: behind every block. Only for
    networks without searchable layers."""
    ratios: tuple[float, ...] = RATIOS
    """Parts of the channels that an inserted block may compare."""
    strides: tuple[int, ...] = STRIDES
    """Sampling strides that an inserted block may have."""
    calibration_batches: int = 10
    """Training batches that set the batch norms before each evaluation (`autonl.md` section 5)."""

    _step: int = field(default=0, init=False, repr=False)
    _strength: float = field(default=0.0, init=False, repr=False)
    _found: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _trajectory: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)
    _inserted: dict[str, BlockEnd] = field(default_factory=dict, init=False, repr=False)
    _drops: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("warmup_share", "search_share", "gate_keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} of autonl must be 0 to 1; got {getattr(self, name)}.")
        if self.search_share == 0 or self.gate_keep == 0:
            raise UsageError("search_share and gate_keep of autonl must be above 0: without any, nothing is searched.")
        if self.cost_weight is not None and not self.cost_weight >= 0:
            raise UsageError(f"cost_weight of autonl must be 0 or more; got {self.cost_weight}.")
        self.places, self.ratios, self.strides = tuple(self.places), tuple(self.ratios), tuple(self.strides)
        if not self.ratios or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise UsageError(f"ratios of autonl must be some numbers above 0, and at most 1; got {self.ratios}.")
        if not self.strides or not all(type(stride) is int and stride >= 1 for stride in self.strides):
            raise UsageError(f"strides of autonl must be some whole numbers from 1; got {self.strides}.")

    def attach(self, network: nn.Module, budget: Budget | None, example: Tensor) -> nn.Module:
        """Insert LightNL blocks where the network has nothing to search, and find out what each choice costs.

        Raises:
            BudgetError: if the budget is out of reach with every choice closed.
            UsageError: if there is neither a budget on multiply-adds nor a weight of the cost, or no place for a block.
        """
        self._limit = None if budget is None else budget.macs
        if self._limit is None and self.cost_weight is None:
            raise UsageError(
                "autonl needs a budget of multiply-adds, such as --budget macs=250M, or the weight of the cost, such "
                "as --set methods.0.cost_weight=0.1."
            )
        self._example = example[:2]
        if not any(isinstance(module, Searchable) for module in network.modules()):
            self._insert(network, example)
        elif self.places:
            raise UsageError(
                f"{type(network).__name__} has searchable layers already, so places={list(self.places)} would have no "
                "effect. Leave it out, or take a network without."
            )
        network.to(example.device)
        self._search = self._searched(network)
        whole = self._search.macs_by_site({})
        self._all_sites: list[dict[str, Any]] = [
            {
                "name": site.name,
                "height": site.height,
                "width": site.width,
                "candidates": site.layer.candidates,
                "macs": {"before": int(whole[site.name])},
            }
            for site in self._search.sites
        ]
        smallest = self._search.smallest()
        # What another method will remove, this search need not.
        if self._limit is not None and smallest > self._limit and not hasattr(network, "shrinks_to"):
            raise BudgetError(
                f"no choice keeps macs={self._limit:,.6g}: with everything closed macs is {smallest:,}. "
                "Raise the budget, or take a smaller network."
            )
        self._first_macs = int(self._search.macs({}))
        self._network = network
        self._drop_gates(network, self.warmup_share > 0)
        if not hasattr(network, "shrinks_to"):
            network.shrinks_to = 1.0  # type: ignore[assignment]
        return network

    def _insert(self, network: nn.Module, example: Tensor) -> None:
        least = 1 / max(self.ratios)
        for end in self._chosen_places(network, example):
            if end.channels >= least:
                block = SearchableNonLocal(end.channels, self.ratios, self.strides, starts_closed=True)
                self._inserted[insert_behind(network, end.name, block)] = end
        if not self._inserted:
            raise UsageError(
                f"{type(network).__name__} has no place for LightNL blocks: none of its batch norms ends a block "
                f"(without activation, and without such a block yet) with at least {math.ceil(least)} channels. Name "
                "layers in places=(...)."
            )

    def _chosen_places(self, network: nn.Module, example: Tensor) -> list[BlockEnd]:
        if not self.places:
            return find_block_ends(network, example)
        maps = _maps(network, example)
        names = [name for name in maps if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.places)]
        unmatched = [one for one in self.places if not any(fnmatch.fnmatchcase(name, one) for name in maps)]
        if unmatched:
            raise UsageError(
                f"places of autonl: {unmatched[0]!r} is no layer of this {type(network).__name__} that gives a map "
                f"(B, C, H, W). Such are {', '.join(list(maps)[:5])}, and {max(0, len(maps) - 5)} more."
            )
        return [BlockEnd(name, *maps[name]) for name in names]

    def _searched(self, network: nn.Module) -> ChoiceSearch:
        example = self._example.to(next(network.parameters()).device)
        return ChoiceSearch(find_sites(network, example), profile(network, example).macs)

    def penalty(self, network: nn.Module) -> Tensor | None:
        """Lambda log C, or with a budget lambda relu(log C - log C_target), from the relaxed choices (0-d)."""
        if self._found is not None or self._strength == 0:
            return None
        macs = self._search.macs(self._search.openness())
        excess = torch.log(macs) if self._limit is None else torch.relu(torch.log(macs / self._limit))
        return self._strength * excess

    def step_end(self, run: Any) -> None:
        """Set the strength of the cost; at the end of the search, become what was found."""
        self._step, self._network = run.step, run.network
        decides = False
        if self._found is None:
            if run.world.size > 1:  # all processes judge by the same norms; so the first one's state is everyone's
                self._search.share()
            length = self.search_share * run.total_steps
            is_warm = run.step >= self.warmup_share * length
            self._strength = self._full_strength(run) if is_warm else 0.0
            self._drop_gates(run.network, not is_warm)
            decides = run.step >= round(length)
            if decides:
                self._record()  # what the norms alone say, before the limit has its way
                self._become(run)
        if decides or run.step % run.steps_per_epoch == 0:
            self._record()

    def _full_strength(self, run: Any) -> float:
        """The lambda at which a mean choice closes in `_UNOPPOSED` of the time, if only the cost moves its threshold.

        SGD with momentum m moves it by lr g / (1 - m) a step; RMSprop the same, over the root of its epsilon; AdamW by
        lr, whatever g.
        """
        if self.cost_weight is not None:
            return self.cost_weight
        config = run.config
        if config.optimizer == "adamw":
            return 1.0
        steps = max(1.0, _UNOPPOSED * (1 - self.warmup_share) * self.search_share * run.total_steps)
        gain = 1 / (1 - config.momentum)
        if config.optimizer == "rmsprop_tf":
            gain /= math.sqrt(config.epsilon or 1e-3)
        savings = self._search.savings({})
        share = sum(savings.values()) / max(1, len(savings)) / self._first_macs
        return self._typical_margin / max(1e-12, _SLOPE * share * config.peak_lr() * steps * gain)

    @property
    def _typical_margin(self) -> float:
        margins = sorted(self._search.margins().values())
        return max(0.1, margins[len(margins) // 2]) if margins else 0.0

    def _drop_gates(self, network: nn.Module, drops: bool) -> None:
        """Let gates be dropped by lot, or not."""
        self._drops = drops
        for module in network.modules():
            if isinstance(module, Gate):
                module.keep = self.gate_keep if drops else 1.0

    def _become(self, run: Any) -> None:
        """Remove what was not chosen, in the network, its average and the optimiser."""
        search = self._search
        run.cut(self._decide())
        for network in (run.network, *([] if run.average is None else [run.average.module])):
            search.settle(network)

    def _decide(self) -> dict[str, Any]:
        """Settle all choices; returns what to remove."""
        margins, thresholds = self._search.margins(), self._search.thresholds()
        opened = self._search.decide(self._limit)
        cut = self._search.description(opened)
        self._found = {
            "cut": cut,
            "macs": int(self._search.macs(opened)),
            "site_macs": {name: int(macs) for name, macs in self._search.macs_by_site(opened).items()},
            "chosen": self._search.chosen(opened),
            "choices": {
                name: {"open": is_open, "margin": margins[name], "threshold": thresholds[name]}
                for name, is_open in opened.items()
            },
        }
        self._strength = 0.0
        return cut

    def network_cut(self, network: nn.Module) -> None:
        """Count anew what the choices that are left cost."""
        self._network = network
        self._search = self._searched(network)

    def prepare_evaluation(self, network: nn.Module, batches: Iterator[Tensor]) -> None:
        """Set the batch norms: old statistics do not fit averaged weights, and make cubic blocks overflow."""
        if self.calibration_batches:
            measure_norms(network, islice(batches, self.calibration_batches))

    def status(self) -> dict[str, str]:
        """How many choices are open, and the cost against the budget."""
        macs, opened, total = self._current()
        target = "" if self._limit is None else f"/{format_amount(self._limit)}"
        return {"open": f"{opened} of {total}", "macs": format_amount(macs) + target}

    def _current(self) -> tuple[int, int, int]:
        """Multiply-adds, open choices, all choices."""
        if self._found is not None:
            choices = self._found["choices"].values()
            return self._found["macs"], sum(one["open"] for one in choices), len(choices)
        opened = self._search.decide()
        return int(self._search.macs(opened)), sum(opened.values()), len(opened)

    def _record(self) -> None:
        macs, opened, _ = self._current()
        margins = {} if self._found is not None else self._search.margins()
        self._trajectory.append(
            {"step": self._step, "macs": macs, "open": opened, "margins": {k: round(v, 5) for k, v in margins.items()}}
        )

    def finish(self, network: nn.Module, batches: Iterator[Tensor]) -> nn.Module:
        """Leave a network of ordinary layers, which describes itself by what was found."""
        if self._found is None:
            self._search = self._searched(network)
            cut_channels(network, self._decide())
            self._search.settle(network)
        network = make_plain(network)
        self.prepare_evaluation(network, batches)
        vars(network).pop("shrinks_to", None)
        self._describe(network)
        return network

    def _describe(self, network: nn.Module) -> None:
        """Let the network say what it is now; what this search removed is then no cut of it any more."""
        found: Any = network
        assert self._found is not None
        found.cuts = [cut for cut in getattr(network, "cuts", []) if cut != self._found["cut"]]
        if self._inserted:
            places = []
            for name, end in self._inserted.items():
                block = network.get_submodule(name)
                if isinstance(block, LightNonLocal):
                    places.append((end.name, end.channels, block.ratio, block.stride))
                else:
                    take_out(network, name)
            architecture = getattr(network, "architecture", None)
            if architecture is not None and hasattr(architecture, "with_lightnl"):
                found.architecture = architecture.with_lightnl(places)
        elif hasattr(network, "found_architecture"):
            found.architecture, found.cuts = found.found_architecture(), []

    def report(self, network: nn.Module) -> dict[str, Any]:
        """What was chosen where, among what, with margins and thresholds, and the way there."""
        architecture = getattr(network, "architecture", None)
        found: dict[str, Any] = {"macs": None, "site_macs": {}, "chosen": {}, "choices": {}, **(self._found or {})}
        return {
            "limit": self._limit,
            "macs": {"before": self._first_macs, "after": found["macs"]},
            "sites": [
                {
                    **site,
                    "macs": {**site["macs"], "after": found["site_macs"].get(site["name"])},
                    "chosen": found["chosen"].get(site["name"]),
                    "choices": {
                        full.partition(":")[2]: one
                        for full, one in found["choices"].items()
                        if full.startswith(f"{site['name']}:")
                    },
                }
                for site in self._all_sites
            ],
            "trajectory": self._trajectory,
            "architecture": None if architecture is None else architecture.to_dict(),
        }

    def state_dict(self) -> dict[str, Any]:
        """How far the search is and what it found; thresholds and margins belong to the network, cuts to the run."""
        return {
            "step": self._step,
            "strength": self._strength,
            "drops": self._drops,
            "found": self._found,
            "trajectory": self._trajectory,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._step, self._strength = int(state["step"]), float(state["strength"])
        self._found = state["found"]
        self._trajectory = [dict(row) for row in state["trajectory"]]
        self._drop_gates(self._network, bool(state["drops"]))


def _maps(network: nn.Module, example: Tensor) -> dict[str, tuple[int, int, int]]:
    """Channels, height and width of the maps that the modules of a network give, by name, in the order of execution."""
    found: dict[str, tuple[int, int, int]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                found[name] = (output.shape[1], output.shape[2], output.shape[3])

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()(example[:1])
    finally:
        for one in hooks:
            one.remove()
        for module, training in modes.items():
            module.training = training
    return found
