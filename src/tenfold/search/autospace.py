"""AutoSpace: evolve the cells that each layer may choose from, then search a network among them.

Source: "AutoSpace: Neural Architecture Search with Less Human Interference" (arXiv 2103.11833), as `autospace.md`
sections 1, 5 and 6 tell it; no code was published. Known of the paper: populations by layer, tournaments and local
mutation, a weighted sum of the chosen cells whose scores are trained with the weights (the "differentiable fitness
score"), reference cells, a term for the cost. Ours: crossover, shared weights, scores relative to the references',
a price on cost in the place of a penalty, and an exact choice within the budget.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.cost import Budget, format_amount
from tenfold.errors import CheckpointError, UsageError
from tenfold.layers.cell_gene import REFERENCE_CELLS, Gene
from tenfold.methods import Method
from tenfold.quant import measure_norms
from tenfold.search.cell_costs import KINDS, CellCosts
from tenfold.search.cell_space import CellSpace
from tenfold.search.population import Population, table_of
from tenfold.search.supernet import Candidate, MixedBlock, mixed_blocks, plain_network

_LEAST_STEPS = 4
_BLOCKS_PER_LAYER = 2  # as in the published space
HAND_MADE = tuple(
    Gene.parse(f"{code}12112/{dim}/00") for dim in (1, 2) for code in (5, 7, 9)
)  # fmt: skip
"""The space that people drew: inverted residuals with kernels of 3, 5, 7 and expansions of 3, 6 (ProxylessNAS)."""
PLAIN = tuple(Gene.parse(f"512112/{dim}/00") for dim in (0, 1, 2))
"""The reference architecture of the evolution: the ordinary inverted residual with a 3x3 kernel, in every width."""
# Scores are trained as in DARTS and ProxylessNAS.
_SCORE_BETAS = (0.5, 0.999)


@dataclass(kw_only=True)
class AutoSpace(Method):
    """Evolve a space of cells and choose a network in it, in one training of a supernet (see `cell_supernet`).

    For the first part of the steps, each layer tries reference cells and some of its population side by side. A round
    ends with their fitness moved towards their scores, and new cells are chosen. Then each block chooses among the
    published reference cells, the hand-made ones, the layer's best and what merging makes of them, and to be left out.
    At the end the choice with the highest scores that keeps the budget is taken.

    The cost of a cell is no part of its score, which the loss alone trains. Instead each cell pays a toll, its cost at
    the price at which the expected cost of the network is the limit: dear cells take part less often. Fitness is the
    score above that of the reference cell of the same width, and so a comparison at about equal cost.

    Raises:
        UsageError: if an option is out of range.
    """

    name: ClassVar[str] = "autospace"

    rounds: int = 12
    """Rounds of evolution; 0 searches in the hand-made space."""
    evolution_share: float = 0.5
    """Part of the steps that the evolution takes."""
    evolved: int = 4
    """Cells of its population that a layer tries in a round."""
    kept: int = 4
    """Evolved cells that a layer's learned space keeps; the published one has 6."""
    population: int = 24
    """Cells that a layer knows of."""
    tournament: int = 4
    """Members that compete for each place."""
    mutation: float = 0.7
    """Probability that a winner is changed in one place."""
    crossover: float = 0.15
    """Probability that a winner is crossed with another; the paper has none."""
    memory: float = 0.5
    """How far fitness moves towards the score of a round."""
    references: bool = True
    """Whether the reference cells take part in the evolution."""
    space: tuple[tuple[str, ...], ...] = ()
    """Genes of each layer, of a space that is known already; nothing is evolved then."""
    paths: int | None = None
    """Candidates of a block that take part in a step, drawn by their probabilities; None for all, as in the paper. Few
    take less time and memory for a step, and many more steps."""
    warmup_share: float = 0.3
    """Part of every round, and of the choice of a network, in which scores stand still: they tell how good cells are,
    and not how fast they learn, once weights are warm."""
    score_lr: float = 0.02
    """Learning rate of the scores (Adam)."""
    temperature: float = 1.0
    """Of the softmax over scores."""
    calibration_batches: int = 8
    """Training batches that batch norms are measured on before an evaluation."""
    _found: dict[str, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.space = tuple(tuple(layer) for layer in self.space)
        whole = {"rounds": 0, "evolved": 1, "kept": 1, "population": 2, "tournament": 1, "calibration_batches": 1}
        problems = [
            f"{name} is {got!r}; allowed is a whole number from {least}"
            for name, least in whole.items()
            if type(got := getattr(self, name)) is not int or got < least
        ]
        problems += [
            f"{name} is {got!r}; allowed is 0 to 1"
            for name in ("evolution_share", "mutation", "crossover", "memory", "warmup_share")
            if not 0 <= (got := getattr(self, name)) <= 1
        ]
        problems += [
            f"{name} is {got!r}; allowed is a number above 0"
            for name in ("score_lr", "temperature")
            if not _is_above_zero(got := getattr(self, name))
        ]
        if self.paths is not None and (type(self.paths) is not int or self.paths < 2):
            problems.append(f"paths is {self.paths!r}; allowed is a whole number from 2, or none for all")
        if not problems and self.population <= self.evolved:
            problems.append(f"population is {self.population}; it must be above evolved = {self.evolved}")
        if problems:
            raise UsageError(f"AutoSpace cannot search so: {'; '.join(problems)}.")
        self._cells = CellSpace()
        self._layers = [[self._read(gene, at) for gene in layer] for at, layer in enumerate(self.space)]

    @staticmethod
    def _read(text: str, layer: int) -> Gene:
        try:
            return Gene.parse(text)
        except UsageError as error:
            raise UsageError(f"layer {layer} of the space: {error}") from error

    @property
    def capacity(self) -> int:
        """Most candidates that a block has at once: what the supernet must be built with."""
        given = max((len(layer) for layer in self._layers), default=self.kept)
        trial = self.evolved + len(PLAIN)
        # Each cell of the learned space and its two merged forms, the reference and the hand-made ones, and none.
        return max(trial, 3 * given + 3 * len(REFERENCE_CELLS) + len(HAND_MADE) + 1)

    @property
    def evolves(self) -> bool:
        """Whether there is an evolution before the choice of a network."""
        return self.rounds > 0 and self.evolution_share > 0 and not self._layers

    # ---------------------------------------------------------------------------------------------- attach

    def attach(self, network: nn.Module, budget: Budget | None, example: Tensor) -> nn.Module:
        """Set the blocks up for the first round.

        Raises:
            UsageError: if the network is no supernet of cells, its space does not fit, or the budget has other limits
                than multiply-adds and parameters.
            BudgetError: if no choice keeps the budget.
        """
        blocks = mixed_blocks(network)
        if not blocks:
            raise UsageError("AutoSpace searches in a supernet of cells only. Build one with cell_supernet.")
        layers = -(-len(blocks) // _BLOCKS_PER_LAYER)
        if self._layers and len(self._layers) != layers:
            raise UsageError(
                f"the space has {len(self._layers)} layers, but this skeleton needs {layers}, one for each "
                f"{_BLOCKS_PER_LAYER} blocks. Choose the skeleton that it was found in, or another space."
            )
        limits = {} if budget is None else budget.to_dict()
        if foreign := limits.keys() - set(KINDS):
            raise UsageError(
                f"AutoSpace keeps limits on macs and params, not on {', '.join(sorted(foreign))}. Leave them out, and "
                "give them to the training of the found network (such as fracbits with bitops)."
            )
        for block in blocks.values():
            block.temperature = self.temperature
        self._network = network
        # Drawn from torch's generator, which `fit` has just seeded, and so the same when a run goes on.
        self._seed = int(torch.randint(2**31, ()))
        self._step = self._round = 0
        self._phase = "evolution" if self.evolves else "choice"
        self._trainable = False
        self._trajectory: list[dict[str, Any]] = []
        rng = self._rng("population")
        references = PLAIN if self.references else ()
        self._populations = [Population(self._cells, self.population, references) for _ in range(layers)]
        self._learned: list[list[Gene]] = [list(layer) for layer in self._layers] or [[] for _ in range(layers)]
        if self.evolves:
            for one in self._populations:
                one.fill(rng)
        self._arrange_choice([network])  # the widest offer, to know what can be reached
        kept = {kind: float(limits[kind]) for kind in KINDS if kind in limits}
        self._costs = CellCosts(network, kept, example)
        self._costs.check_reachable(list(blocks.values()))
        if self.evolves:
            self._arrange_round([network])
        self._set_tolls([network])
        self._new_optimizer()
        return network

    def _rng(self, purpose: str) -> random.Random:
        """A generator for one purpose; nothing of it needs saving, since a round has a number."""
        return random.Random(f"{self._seed}/{purpose}")

    @property
    def _arrangement(self) -> tuple[str, int]:
        """Blocks have the same candidates as long as this is the same."""
        return self._phase, self._round

    def _blocks(self, network: nn.Module | None = None) -> list[MixedBlock]:
        return list(mixed_blocks(self._network if network is None else network).values())

    # ---------------------------------------------------------------------------------------------- arrange

    def _arrange_round(self, networks: Sequence[nn.Module]) -> None:
        """Let every layer try its reference cells and those that selection gives for this round."""
        for at, population in enumerate(self._populations):
            chosen = population.select(
                self.evolved,
                self._rng(f"round {self._round} layer {at}"),
                tournament=self.tournament,
                mutation=self.mutation,
                crossover=self.crossover,
                generation=self._round,
            )
            candidates = [*population.references, *chosen]
            found = [population.find(gene) for gene in candidates]
            scores = [0.0 if member is None else member.fitness for member in found]
            for network in networks:
                for block in self._blocks(network)[_BLOCKS_PER_LAYER * at : _BLOCKS_PER_LAYER * (at + 1)]:
                    block.arrange(candidates, scores)

    def _always(self) -> list[Gene]:
        """What every block may be, whatever evolved: the hand-made space, and beside an evolved one the references."""
        if not (self.evolves or self._layers):
            return list(HAND_MADE)
        return list(dict.fromkeys([*HAND_MADE, *(one for gene in REFERENCE_CELLS for one in (gene, *gene.merged()))]))

    def _arrange_choice(self, networks: Sequence[nn.Module]) -> None:
        """Offer every block the whole space of its layer."""
        for at, learned in enumerate(self._learned):
            cells: list[Candidate] = [*self._always()]
            cells += [one for gene in learned for one in (gene, *gene.merged())]
            for network in networks:
                for block in self._blocks(network)[_BLOCKS_PER_LAYER * at : _BLOCKS_PER_LAYER * (at + 1)]:
                    offered = list(dict.fromkeys([*cells, *([None] if block.is_residual else [])]))
                    block.arrange(offered, [0.0] * len(offered))

    def _new_optimizer(self) -> None:
        scores = [block.scores for block in self._blocks()]
        self._optimizer = torch.optim.Adam(scores, lr=self.score_lr, betas=_SCORE_BETAS)

    # ---------------------------------------------------------------------------------------------- train

    @contextmanager
    def _drawn(self, network: nn.Module) -> Iterator[None]:
        """Draw the candidates that take part in the batch, the same in every process."""
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._step) % 2**63)
        for block in self._blocks(network):
            block.draw(self.paths, generator)
        yield

    def batch(self, network: nn.Module) -> AbstractContextManager[None]:
        """Each batch trains some candidates of each block."""
        return self._drawn(network)

    def _set_tolls(self, networks: Sequence[nn.Module]) -> None:
        """Let every candidate pay for its cost at the price at which the expected cost keeps the limits."""
        if not self._costs.limits:
            return
        tolls = self._costs.tolls(self._blocks(), self._arrangement, self.temperature)
        for network in networks:
            for block, one in zip(self._blocks(network), tolls, strict=True):
                block.set_tolls(one)

    def step_end(self, run: Any) -> None:
        """Train the scores; at the end of a round, learn from it and choose the next cells."""
        self._step = run.step
        if self._trainable:
            self._optimizer.step()
        networks = [run.network, *([] if run.average is None else [run.average.module])]
        evolution = self._evolution_steps(run.total_steps)
        if self._phase == "evolution":
            first, last = (evolution * (self._round + one) // self.rounds for one in (0, 1))
            if run.step >= last:
                self._end_round(networks)
                first = last
                last = evolution * (self._round + 1) // self.rounds if self._phase == "evolution" else run.total_steps
        else:
            first, last = evolution, run.total_steps
        self._trainable = run.step >= first + self.warmup_share * (last - first)
        self._set_tolls(networks)

    def _evolution_steps(self, total: int) -> int:
        if not self.evolves:
            return 0
        steps = round(total * self.evolution_share)
        if steps < _LEAST_STEPS * self.rounds or steps >= total:
            raise UsageError(
                f"{steps} of {total} steps for {self.rounds} rounds of evolution are too few: a round takes at least "
                f"{_LEAST_STEPS}, and the choice of a network needs some, too. Train for more epochs, with a smaller "
                "batch_size, or evolve for fewer rounds."
            )
        return steps

    def _end_round(self, networks: Sequence[nn.Module]) -> None:
        blocks = self._blocks()
        for at, population in enumerate(self._populations):
            group = blocks[_BLOCKS_PER_LAYER * at : _BLOCKS_PER_LAYER * (at + 1)]
            candidates = group[0].candidates
            learned = torch.stack([block.scores.detach()[: len(candidates)] for block in group]).mean(0).tolist()
            population.learn(dict(zip(candidates, learned, strict=True)), self.memory)
        self._record()
        self._round += 1
        if self._round < self.rounds:
            self._arrange_round(networks)
        else:
            self._phase = "choice"
            self._learned = [[member.gene for member in one.best(self.kept)] for one in self._populations]
            self._arrange_choice(networks)
        self._new_optimizer()

    def _record(self) -> None:
        expected = self._costs.expected(self._blocks(), self._arrangement)
        best = [one.best(self.kept) for one in self._populations]
        fitness = [member.fitness for members in best for member in members]
        self._trajectory.append(
            {
                "step": self._step,
                "round": self._round + 1,
                **{kind: float(amount) for kind, amount in zip(KINDS, expected, strict=True)},
                "fitness": float(np.mean(fitness)) if fitness else 0.0,
                "best": max(fitness, default=0.0),
            }
        )

    def prepare_evaluation(self, network: nn.Module, batches: Iterator[Tensor]) -> None:
        """Measure the batch norms of the likeliest network, which is what is judged."""
        measure_norms(network, islice(batches, self.calibration_batches))

    def status(self) -> dict[str, str]:
        """The phase, how far above the reference cells the best cells are, and the expected cost against the limit."""
        expected = self._costs.expected(self._blocks(), self._arrangement)
        shown = {
            "phase": "choice of a network" if self._phase == "choice" else f"round {self._round + 1}/{self.rounds}"
        }
        if self._trajectory:
            shown["fitness"] = f"{self._trajectory[-1]['fitness']:+.2f}"
        limits = self._costs.limits
        for kind in limits or ("macs",):
            target = f"/{format_amount(limits[kind])}" if kind in limits else ""
            shown[kind] = format_amount(int(expected[KINDS.index(kind)])) + target
        return shown

    # ---------------------------------------------------------------------------------------------- finish

    def finish(self, network: nn.Module, batches: Iterator[Tensor]) -> nn.Module:
        """The likeliest network that keeps the budget, with the weights of the supernet.

        Raises:
            BudgetError: if none does.
        """
        blocks = self._blocks(network)
        indices, (macs, params) = self._costs.choose(blocks)
        with torch.no_grad():
            shares = [block.probabilities().tolist() for block in blocks]
        chosen = [block.candidates[index] for block, index in zip(blocks, indices, strict=True)]
        self._found = {
            "genes": ["skip" if one is None else str(one) for one in chosen],
            "probabilities": [one[index] for one, index in zip(shares, indices, strict=True)],
            "offered": [len(one) for one in shares],
            "macs": int(macs),
            "params": int(params),
        }
        plain = plain_network(network, chosen).to(next(network.parameters()).device)
        measure_norms(plain, islice(batches, self.calibration_batches))
        return plain

    def report(self, network: nn.Module) -> dict[str, Any]:
        """The learned space, the network chosen in it, and the way there."""
        architecture: Any = getattr(network, "architecture", None)
        given = [{"evolved": [{"gene": str(gene)} for gene in layer]} for layer in self._layers]
        return {
            "limits": self._costs.limits,
            "space": given or (table_of(self._populations, self.kept) if self.evolves else []),
            "always": [str(gene) for gene in self._always()],
            "trajectory": self._trajectory,
            "chosen": self._found,
            "architecture": None if architecture is None else architecture.to_dict(),
        }

    # ---------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Where the search is; which cells the blocks try belongs to the network."""
        return {
            "step": self._step,
            "round": self._round,
            "phase": self._phase,
            "trainable": self._trainable,
            "populations": [one.state() for one in self._populations],
            "learned": [[str(gene) for gene in layer] for layer in self._learned],
            "trajectory": self._trajectory,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            CheckpointError: if the state is none of this search.
        """
        try:
            populations, learned = list(state["populations"]), list(state["learned"])
            if len(populations) != len(self._populations) or len(learned) != len(self._learned):
                raise ValueError(f"it has {len(populations)} layers, the network {len(self._populations)}")
            for one, members in zip(self._populations, populations, strict=True):
                one.load(members)
            self._learned = [[Gene.parse(gene) for gene in layer] for layer in learned]
            self._step, self._round = int(state["step"]), int(state["round"])
            self._phase, self._trainable = str(state["phase"]), bool(state["trainable"])
            self._trajectory = [dict(row) for row in state["trajectory"]]
            self._optimizer.load_state_dict(dict(state["optimizer"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the state of the search is damaged: {error}. Start again in another folder."
            ) from error


def _is_above_zero(value: object) -> bool:
    """Whether a value is a number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
