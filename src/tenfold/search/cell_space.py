"""The space of cells: which genes there are, and how new ones come from old ones.

Source: AutoSpace (arXiv 2103.11833), `autospace.md` sections 2.2 and 6. The alphabets are those that occur in the
published space; crossover is ours, the paper has local mutation only.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tenfold.layers.cell_gene import CHAIN, EDGES, NONE, Gene

_ALWAYS_NONE = "03"


@dataclass(frozen=True, kw_only=True)
class CellSpace:
    """What a gene may hold; the edge 03 is never there.

    Example:
        >>> CellSpace().size
        5184
    """

    chain: tuple[int, ...] = (2, 3, 5)
    """Codes of the edges 01, 12 and 23."""
    around: tuple[int, ...] = (1, 2, 3, 5)
    """Codes of the edges 02 and 13."""
    dims: tuple[int, ...] = (0, 1, 2)
    """Indices of expansions."""
    mixes: tuple[int, ...] = (0, 1)
    """Ways in which node 2 and node 3 may combine what arrives."""

    def codes(self, edge: str) -> tuple[int, ...]:
        """What may stand on an edge."""
        if edge == _ALWAYS_NONE:
            return (NONE,)
        return self.chain if edge in CHAIN else self.around

    @property
    def size(self) -> int:
        """Number of different genes."""
        return math.prod(len(self.codes(edge)) for edge in EDGES) * len(self.dims) * len(self.mixes) ** 2

    def __contains__(self, gene: Gene) -> bool:
        fits = all(code in self.codes(edge) for edge, code in zip(EDGES, gene.edges, strict=True))
        return fits and gene.dim in self.dims and all(bit in self.mixes for bit in gene.mix)

    def __iter__(self) -> Iterator[Gene]:
        for *codes, dim, two, three in itertools.product(
            *(self.codes(edge) for edge in EDGES), self.dims, self.mixes, self.mixes
        ):
            yield Gene(tuple(codes), dim, (two, three))  # type: ignore[arg-type]

    def draw(self, rng: random.Random) -> Gene:
        """A gene, all equally likely."""
        edges = tuple(rng.choice(self.codes(edge)) for edge in EDGES)
        return Gene(edges, rng.choice(self.dims), (rng.choice(self.mixes), rng.choice(self.mixes)))  # type: ignore[arg-type]

    def mutate(self, gene: Gene, rng: random.Random) -> Gene:
        """Change one place of a gene, an edge, the expansion or a way to combine, to another value that is allowed."""
        places: list[tuple[str, tuple[int, ...], int]] = [
            (f"e{edge}", self.codes(edge), code) for edge, code in zip(EDGES, gene.edges, strict=True)
        ]
        places += [("dim", self.dims, gene.dim), ("mix2", self.mixes, gene.mix[0]), ("mix3", self.mixes, gene.mix[1])]
        open_places = [
            (name, others) for name, allowed, now in places if (others := [one for one in allowed if one != now])
        ]
        name, others = rng.choice(open_places)
        value = rng.choice(others)
        if name == "dim":
            return replace(gene, dim=value)
        if name.startswith("mix"):
            return replace(gene, mix=(value, gene.mix[1]) if name == "mix2" else (gene.mix[0], value))
        return gene.with_codes(**{name: value})

    def crossover(self, one: Gene, other: Gene, rng: random.Random) -> Gene:
        """A child that has each place from one parent or the other."""
        edges = tuple(rng.choice(pair) for pair in zip(one.edges, other.edges, strict=True))
        mix = tuple(rng.choice(pair) for pair in zip(one.mix, other.mix, strict=True))
        return Gene(edges, rng.choice((one.dim, other.dim)), mix)  # type: ignore[arg-type]
