"""The cells that one layer knows, their fitness, and which of them are tried next.

Source: AutoSpace (arXiv 2103.11833), `autospace.md` sections 1 and 6.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenfold.layers.cell_gene import Gene
from tenfold.search.cell_space import CellSpace

# A space of a few genes may have no child that is new; then fewer are tried.
_ATTEMPTS = 50


@dataclass
class Member:
    """A cell of a population."""

    gene: Gene
    fitness: float = 0.0
    """How much better than the reference cells it did; 0 for one that was never tried."""
    trials: int = 0
    """Rounds in which it was part of the network."""
    born: int = 0
    """Round in which it came."""


@dataclass
class Population:
    """Tournament selection, local mutation and crossover among the cells of a layer.

    Args:
        space: where genes come from.
        capacity: members that are kept.
        references: cells that are part of every trial and never members.
    """

    space: CellSpace
    capacity: int
    references: Sequence[Gene]
    members: list[Member] = field(default_factory=list)

    def fill(self, rng: random.Random) -> None:
        """Draw members at random until it is full, or the space is empty."""
        missing = min(self.capacity, self.space.size - len(self.references)) - len(self.members)
        while missing > 0:
            gene = self.space.draw(rng)
            if self.find(gene) is None and gene not in self.references:
                self.members.append(Member(gene))
                missing -= 1

    def find(self, gene: Gene) -> Member | None:
        """The member with a gene."""
        return next((member for member in self.members if member.gene == gene), None)

    def select(
        self, count: int, rng: random.Random, *, tournament: int, mutation: float, crossover: float, generation: int
    ) -> list[Gene]:
        """Choose the cells to try next; children join the population with what is expected of them.

        A child of a mutation starts with its parent's fitness, one of two parents with their mean.

        Args:
            count: how many, all different.
            rng: draws.
            tournament: members that compete for each place.
            mutation: probability that the winner is changed in one place.
            crossover: probability that the winner is first crossed with that of another tournament.
            generation: number of the round.
        """
        chosen: list[Gene] = []
        for _ in range(count):
            for _attempt in range(_ATTEMPTS):
                winner = self._winner(rng, tournament)
                gene, fitness = winner.gene, winner.fitness
                if rng.random() < crossover:
                    other = self._winner(rng, tournament)
                    gene, fitness = self.space.crossover(gene, other.gene, rng), (fitness + other.fitness) / 2
                if rng.random() < mutation:
                    gene = self.space.mutate(gene, rng)
                if gene in chosen or gene in self.references:
                    continue
                chosen.append(gene)
                if self.find(gene) is None:
                    self.members.append(Member(gene, fitness, born=generation))
                break
        self.cull(chosen)
        return chosen

    def _winner(self, rng: random.Random, tournament: int) -> Member:
        entrants = rng.sample(self.members, min(tournament, len(self.members)))
        return max(entrants, key=lambda member: member.fitness)

    def learn(self, scores: Mapping[Gene | None, float], memory: float) -> None:
        """Learn from a round in which cells were tried beside the reference cells.

        Scores of different rounds are comparable only by what the reference cells had in each; and with one of its own
        width for every cell, none wins for being wide, or for being cheap.

        Args:
            scores: of all that were tried; None, a block that is left out, is no cell.
            memory: see `score`.
        """
        levels = {gene.dim: scores[gene] for gene in self.references}
        mean = sum(scores.values()) / len(scores)
        for gene, score in scores.items():
            if gene is not None:
                self.score(gene, score - levels.get(gene.dim, mean), memory)

    def score(self, gene: Gene, score: float, memory: float) -> None:
        """Learn from a trial: fitness moves by the share `memory` towards its score over the references' mean."""
        member = self.find(gene)
        if member is None:
            return
        # What was only inherited is a guess, and counts less than the first look.
        share = memory if member.trials else max(memory, 0.5)
        member.fitness += share * (score - member.fitness)
        member.trials += 1

    def cull(self, spared: Sequence[Gene] = ()) -> None:
        """Drop the least fit, of equals the older ones, until no more than `capacity` are left."""
        while len(self.members) > self.capacity:
            mortal = [member for member in self.members if member.gene not in spared]
            if not mortal:
                return
            self.members.remove(min(mortal, key=lambda member: (member.fitness, member.born)))

    def best(self, count: int) -> list[Member]:
        """The fittest of those that were tried, the fittest first."""
        tried = [member for member in self.members if member.trials]
        return sorted(tried, key=lambda member: -member.fitness)[:count]

    def state(self) -> list[list[Any]]:
        """The members, as JSON values."""
        return [[str(one.gene), one.fitness, one.trials, one.born] for one in self.members]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """The inverse of `state`."""
        self.members = [Member(Gene.parse(gene), float(f), int(t), int(b)) for gene, f, t, b in state]


def table_of(populations: Sequence[Population], kept: int) -> list[Mapping[str, Any]]:
    """The learned space with what is known of its cells, by layer, as JSON values."""
    return [
        {
            "evolved": [
                {"gene": str(member.gene), "fitness": member.fitness, "trials": member.trials, "born": member.born}
                for member in one.best(kept)
            ],
        }
        for one in populations
    ]
