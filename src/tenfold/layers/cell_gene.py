"""The gene of an AutoSpace cell: which operation stands on each edge of its graph, how wide it is, how inputs meet.

A cell has four nodes: 0 is the input, 3 the output, and an edge leads from each to each later one. The edges 01, 12 and
23 are the *chain*; the others go around nodes of it.

Source: AutoSpace (arXiv 2103.11833), the authors' two configuration files, `autospace.md` section 2. The paper's
authors published no code: what codes 3 and `mix` 1 and `dim` 0 mean is our reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenfold.errors import UsageError

EDGES = ("01", "02", "12", "03", "13", "23")
"""From which node to which, in the order in which a gene lists them."""
CHAIN = ("01", "12", "23")
"""The edges that are always there."""
NODES = 4

NONE, IDENTITY, POOL = 1, 2, 3
KERNELS: Mapping[int, int] = {5: 3, 7: 5, 9: 7}
"""Code of an edge -> side of its depthwise kernel."""
CODES = (NONE, IDENTITY, POOL, *KERNELS)
EXPANSIONS = (1, 3, 6)
"""Hidden channels over the block's input channels, by `dim`; at 1 nothing is expanded."""


@dataclass(frozen=True)
class Gene:
    """What one cell is.

    Args:
        edges: code of each edge, in the order of `EDGES`: 1 none, 2 identity, 3 average pooling, 5, 7, 9 a depthwise
            convolution with a kernel of 3, 5, 7. The chain has no 1.
        dim: index into `EXPANSIONS`.
        mix: for node 2 and node 3, 0 to add up what arrives, 1 to scale the chain's part by a gate made of the others.

    Raises:
        UsageError: if a value is not allowed.

    Example:
        >>> gene = Gene.parse("512112/2/00")
        >>> gene.edges, gene.expansion, str(gene)
        ((5, 1, 2, 1, 1, 2), 6, '512112/2/00')
    """

    edges: tuple[int, int, int, int, int, int]
    dim: int
    mix: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        problems = []
        if len(self.edges) != len(EDGES):
            problems.append(f"it has {len(self.edges)} edges; a cell has {len(EDGES)}: {', '.join(EDGES)}")
        for edge, code in zip(EDGES, self.edges, strict=False):
            allowed = [one for one in CODES if one != NONE or edge not in CHAIN]
            if type(code) is not int or code not in allowed:
                problems.append(f"edge {edge} has code {code!r}; allowed are {', '.join(map(str, allowed))}")
        if type(self.dim) is not int or not 0 <= self.dim < len(EXPANSIONS):
            problems.append(f"dim is {self.dim!r}; allowed are 0, 1, 2 (expansion by 1, 3, 6)")
        if len(self.mix) != 2 or any(type(bit) is not int or bit not in (0, 1) for bit in self.mix):
            problems.append(f"mix is {self.mix!r}; allowed are two bits, for node 2 and node 3")
        if problems:
            raise UsageError(f"this is no gene of a cell: {'; '.join(problems)}. Write it like 512112/2/00.")

    @classmethod
    def parse(cls, text: str) -> Gene:
        """Read the short form: codes of the edges 01 02 12 03 13 23, dim, and the two bits of mix.

        Raises:
            UsageError: if it has another form, or a value is not allowed.
        """
        found = re.fullmatch(r"(\d{6})/(\d)/(\d)(\d)", text.strip()) if isinstance(text, str) else None
        if found is None:
            raise UsageError(
                f"{text!r} is no gene of a cell: it is six codes, dim and two bits, such as 512112/2/00 (edges 01 02 "
                "12 03 13 23; expansion 1, 3 or 6 as 0, 1 or 2; how node 2 and node 3 combine)."
            )
        edges, dim, *mix = found.groups()
        return cls(tuple(map(int, edges)), int(dim), tuple(map(int, mix)))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{''.join(map(str, self.edges))}/{self.dim}/{''.join(map(str, self.mix))}"

    @property
    def expansion(self) -> int:
        """Hidden channels over the block's input channels."""
        return EXPANSIONS[self.dim]

    def code(self, edge: str) -> int:
        """What stands on an edge, such as "02"."""
        return self.edges[EDGES.index(edge)]

    def with_codes(self, **codes: int) -> Gene:
        """The same gene with other codes, by edge as `e01`, `e13`."""
        return replace(self, edges=tuple(codes.get(f"e{edge}", self.code(edge)) for edge in EDGES))  # type: ignore[arg-type]

    def inputs(self, node: int) -> list[tuple[str, int]]:
        """The edges that arrive at a node with their codes, those around the chain first, the chain's last."""
        return [(edge, self.code(edge)) for edge in EDGES if int(edge[1]) == node and self.code(edge) != NONE]

    def receptive_field(self) -> int:
        """Pixels of the input, along a side, that one pixel of the output depends on, at stride 1; gates aside."""
        fields = [1]
        for node in range(1, NODES):
            fields.append(max(fields[int(edge[0])] + _reach(code) for edge, code in self.inputs(node)))
        return fields[-1]

    def weights(self, in_channels: int) -> int:
        """Weights of the convolutions on the edges, without batch norms."""
        return sum(KERNELS[code] ** 2 for code in self.edges if code in KERNELS) * in_channels * self.expansion

    def merged(self) -> list[Gene]:
        """The same gene with two or three 3x3 kernels of the chain merged into one of 5x5 or 7x7, where it has them.

        Source: `autospace.md` section 2.2: every cell of the published network is a cell of the published space, as it
        is or merged so. Three are merged where nothing else arrives between them.
        """
        merged = []
        if self.code("01") == self.code("12") == 5:
            merged.append(self.with_codes(e01=7, e12=IDENTITY))
            if self.code("23") == 5 and self.code("02") == self.code("13") == NONE:
                merged.append(self.with_codes(e01=9, e12=IDENTITY, e23=IDENTITY))
        return merged

    def to_table(self) -> list[list[int | list[int]]]:
        """The authors' `build_graph`: a 4x4 table whose entry [r][c] is the code of the edge from c to r.

        Two places above the diagonal hold `dim` ([0][3]) and `mix` ([1][3]).
        """
        table: list[list[int | list[int]]] = [[0] * NODES for _ in range(NODES)]
        for edge, code in zip(EDGES, self.edges, strict=True):
            table[int(edge[1])][int(edge[0])] = code
        table[0][3], table[1][3] = self.dim, list(self.mix)
        return table

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Gene:
        """Read a cell as the authors' configuration files write it.

        Args:
            config: has `build_graph`, see `to_table`; what else it says of the gene (`num_nodes`, `dim_conv_idx`,
                `feature_mix_mode_idx`, `expand_ratio`) must agree with that.

        Raises:
            UsageError: if something is missing, or does not agree.
        """
        table = config.get("build_graph")
        if not (
            isinstance(table, Sequence)
            and len(table) == NODES
            and all(isinstance(row, Sequence) and len(row) == NODES for row in table)
        ):
            raise UsageError(f"a cell's build_graph must be a table of {NODES} rows of {NODES}, not {table!r}.")
        mix = table[1][3]
        gene = cls(
            tuple(table[int(edge[1])][int(edge[0])] for edge in EDGES),
            table[0][3],
            tuple(mix) if isinstance(mix, Sequence) else (mix,),
        )
        expected = {
            "num_nodes": NODES,
            "dim_conv_idx": gene.dim,
            "feature_mix_mode_idx": list(gene.mix),
            "expand_ratio": gene.expansion,
        }
        for key, value in expected.items():
            got = config.get(key, value)
            if (list(got) if isinstance(got, Sequence) else got) != value:
                raise UsageError(f"cell {gene}: {key} is {got!r}, but its build_graph says {value!r}. Correct either.")
        return gene


def _reach(code: int) -> int:
    return 2 if code == POOL else KERNELS.get(code, 1) - 1


REFERENCE_CELLS = tuple(map(Gene.parse, ("515115/2/00", "515112/2/00", "512112/2/00")))
"""The three chains that belong to every layer of the published space: receptive fields 7, 5 and 3."""
