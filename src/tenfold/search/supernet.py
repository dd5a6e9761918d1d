"""A network whose blocks hold several cells side by side, each with a trained score.

The weights belong to the block: an expansion and a projection for each expansion ratio, and one kernel for each ratio,
edge and code. All cells of a block draw on them, whichever is tried. So a child starts with the weights of its parents,
edge by edge, cells that begin alike are computed once, and parameters never come or go while the network trains.

Source: AutoSpace (arXiv 2103.11833), figure and Eq. 3 as `autospace.md` sections 1 and 6 tell them; sharing is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.layers.cell import CellBlock, edge_operation, norm_conv, run_graph
from tenfold.layers.cell_gene import EDGES, EXPANSIONS, IDENTITY, KERNELS, NONE, POOL, Gene
from tenfold.models import Architecture, Segmenter, build, feature_maps
from tenfold.models.autospace import FIRST_GENE, SKIP, Frame, Shape, Skeleton, cell_classifier, cell_options
from tenfold.models.segmentation_heads import HEADS
from tenfold.search.cell_space import CellSpace

Candidate = Gene | None
"""A cell, or None for a block that is left out."""

_START = Gene.parse("512112/2/00")
_ROW = len(EDGES) + 3  # codes, dim, two bits
_SKIP_ROW = [0] * _ROW


class MixedBlock(nn.Module):
    """An inverted residual that is several cells at once: their outputs, weighted by a softmax of their scores.

    Cells of one width share the convolutions around them. They are mixed in front of the projection, and the groups
    behind it, where no batch norm undoes their weights: so a group costs one projection however many cells it has.
    While it trains, all candidates take part, or only those drawn (see `draw`), whose weights then sum to 1. In eval
    mode it is the best candidate alone.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 1 or 2.
        capacity: most candidates that it will ever have at once.
        space: its codes and expansions are provided for, and the kernels of 5x5 and 7x7 that merging makes of 3x3.
    """

    rows: Tensor
    count: Tensor
    tolls: Tensor
    """What each candidate has to pay for its cost, in the unit of the scores; see `set_tolls`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, capacity: int, space: CellSpace) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.is_residual = stride == 1 and in_channels == out_channels
        self.expand, self.project, self.kernels = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for dim in sorted({*space.dims, 1, 2}):  # the reference cells and the hand-made space have 1 and 2
            hidden = in_channels * EXPANSIONS[dim]
            if dim:
                self.expand[str(dim)] = norm_conv(in_channels, hidden, rectified=True)
            self.project[str(dim)] = norm_conv(hidden, out_channels, rectified=False)
            for edge in EDGES:
                codes = {code for code in space.codes(edge) if code in KERNELS} | ({5, 7, 9} if edge == "01" else set())
                if edge in ("12", "23"):
                    codes.add(5)
                for code in sorted(codes):
                    step = stride if edge[0] == "0" else 1
                    self.kernels[f"{dim}_{edge}_{code}"] = edge_operation(code, hidden, step)
        self.scores = nn.Parameter(torch.zeros(capacity))
        # Its method trains it; to the network's own optimiser it stands still.
        self.scores.lr_scale = 0.0  # type: ignore[attr-defined]
        # In the state, so that a resumed network, and a weight average, know what they are.
        self.register_buffer("rows", torch.zeros(capacity, _ROW, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("tolls", torch.zeros(capacity))
        self.temperature = 1.0
        self._drawn: list[int] | None = None
        self.arrange([_START], [0.0])

    @property
    def candidates(self) -> list[Candidate]:
        """What it is made of now."""
        rows = self.rows[: int(self.count)].tolist()
        return [None if row == _SKIP_ROW else Gene(tuple(row[:6]), row[6], tuple(row[7:])) for row in rows]

    @torch.no_grad()
    def arrange(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Let it be made of other cells.

        Args:
            candidates: at most `capacity`.
            scores: what each starts from.

        Raises:
            UsageError: if a candidate needs an operation that the block does not have, or a block that changes the
                shape shall be left out.
        """
        for one in candidates:
            self._check(one)
        rows = [_SKIP_ROW if one is None else [*one.edges, one.dim, *one.mix] for one in candidates]
        self.rows[: len(rows)] = torch.tensor(rows)
        self.count.fill_(len(rows))
        self.tolls.zero_()
        self.scores.zero_()
        self.scores[: len(rows)] = torch.tensor(scores, dtype=self.scores.dtype)
        self._drawn = None

    def _check(self, candidate: Candidate) -> None:
        if candidate is None:
            if not self.is_residual:
                raise UsageError("a block that changes the shape cannot be left out.")
            return
        for edge, code in zip(EDGES, candidate.edges, strict=True):
            name = f"{candidate.dim}_{edge}_{code}"
            if code in KERNELS and name not in self.kernels:
                raise UsageError(
                    f"cell {candidate} has code {code} on edge {edge}, which is outside of this search's space. "
                    "Allowed are its own codes, and 7 and 9 on edge 01."
                )
        if str(candidate.dim) not in self.project:
            raise UsageError(f"cell {candidate} has dim {candidate.dim}, which is outside of this search's space.")

    def draw(self, paths: int | None, generator: torch.Generator) -> None:
        """Choose the candidates that take part until the next call, likelier ones more often.

        Args:
            paths: how many; None for all.
            generator: on the CPU; the same in all processes of a group.
        """
        count = int(self.count)
        if paths is None or paths >= count:
            self._drawn = None
            return
        with torch.no_grad():
            shares = self.probabilities().float().cpu()
        self._drawn = sorted(torch.multinomial(shares + 1e-6, paths, generator=generator).tolist())

    @torch.no_grad()
    def set_tolls(self, tolls: NDArray[np.float64]) -> None:
        """Make candidates less likely for what they cost; the scores stay what they are.

        Args:
            tolls: for each candidate (count,).
        """
        self.tolls[: len(tolls)] = torch.from_numpy(tolls).to(self.tolls)

    def probabilities(self) -> Tensor:
        """Weight of each candidate (count,): softmax of score - toll, differentiable in the scores."""
        return torch.softmax((self.scores - self.tolls)[: int(self.count)] / self.temperature, 0)

    def best(self) -> Candidate:
        """The likeliest candidate."""
        return self.candidates[int(self.probabilities().argmax())]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        if not self.training:
            best = self.best()
            y = None if best is None else self._mixture([best], [None], x)
        else:
            candidates, y = self.candidates, None
            drawn = self._drawn if self._drawn is not None else list(range(len(candidates)))
            logits = (self.scores - self.tolls)[drawn] / self.temperature
            weights = torch.softmax(logits, 0)
            for dim in sorted({one.dim for index in drawn if (one := candidates[index]) is not None}):
                # One that is left out is in no group, and adds nothing to the input.
                group = [
                    place
                    for place, index in enumerate(drawn)
                    if (one := candidates[index]) is not None and one.dim == dim
                ]
                genes = [gene for place in group if (gene := candidates[drawn[place]]) is not None]
                output = weights[group].sum() * self._mixture(genes, list(torch.softmax(logits[group], 0)), x)
                y = output if y is None else y + output
        if y is None:
            return x
        return x + y if self.is_residual else y

    def _mixture(self, genes: Sequence[Gene], weights: Sequence[Tensor | None], x: Tensor) -> Tensor:
        """Cells of one width, mixed in front of the projection that they share; None is a weight of 1."""
        dim = genes[0].dim
        memory: dict[tuple[int, str, int], tuple[Tensor, Tensor]] = {}

        def operate(edge: str, code: int, inner: Tensor) -> Tensor:
            """Operations on the same map are done once; the map is kept so that no other takes its id."""
            key = (id(inner), edge, code)
            if key not in memory:
                memory[key] = (inner, self._operate(edge, code, dim, inner))
            return memory[key][1]

        hidden = self.expand[str(dim)](x) if dim else x
        mixed: Tensor | None = None
        for gene, weight in zip(genes, weights, strict=True):
            output = run_graph(gene, hidden, operate)
            output = output if weight is None else weight * output
            mixed = output if mixed is None else mixed + output
        projected: Tensor = self.project[str(dim)](mixed)
        return projected

    def _operate(self, edge: str, code: int, dim: int, x: Tensor) -> Tensor:
        if code in KERNELS:
            return self.kernels[f"{dim}_{edge}_{code}"](x)
        stride = self.stride if edge[0] == "0" else 1
        if code == IDENTITY and stride == 1:
            return x
        assert code in (IDENTITY, POOL)
        return edge_operation(code, 0, stride)(x)

    def costs(self, height: int, width: int) -> NDArray[np.int64]:
        """Multiply-adds and parameters of each candidate (count, 2), for one image; its size is that at the input."""
        return np.array([self._cost(one, height, width) for one in self.candidates], dtype=np.int64).reshape(-1, 2)

    def _cost(self, candidate: Candidate, height: int, width: int) -> tuple[int, int]:
        if candidate is None:
            return 0, 0
        area_in, area_out = height * width, -(-height // self.stride) * -(-width // self.stride)
        hidden = self.in_channels * candidate.expansion
        expand = self.in_channels * hidden if candidate.dim else 0
        project, cell = hidden * self.out_channels, candidate.weights(self.in_channels)
        kernels = sum(code in KERNELS for code in candidate.edges)
        norms = 2 * (hidden * (kernels + bool(candidate.dim)) + self.out_channels)
        return expand * area_in + (project + cell) * area_out, expand + project + cell + norms

    @torch.no_grad()
    def fill(self, block: CellBlock) -> None:
        """Give the weights of a cell to an ordinary block with the same gene."""
        gene = block.cell.gene
        parts = {"expand": self.expand[str(gene.dim)]} if gene.dim else {}
        parts["project"] = self.project[str(gene.dim)]
        for edge, code in zip(EDGES, gene.edges, strict=True):
            if code != NONE and code in KERNELS:
                parts[f"cell.edge{edge}"] = self.kernels[f"{gene.dim}_{edge}_{code}"]
        for name, part in parts.items():
            block.get_submodule(name).load_state_dict(part.state_dict())


def cell_supernet(
    skeleton: Skeleton,
    *,
    capacity: int,
    space: CellSpace,
    num_classes: int,
    in_channels: int,
    dropout: float = 0.0,
    head: str | None = None,
) -> nn.Module:
    """A network whose blocks, but for the first, are `MixedBlock`s; they start as ordinary ones with a 3x3 kernel.

    Args:
        skeleton: widths, numbers and strides of the blocks.
        capacity: see `MixedBlock`.
        space: likewise.
        num_classes: outputs.
        in_channels: of the images.
        dropout: before the classifier.
        head: name of a segmentation head, for a network that gives each pixel a class.

    Returns:
        The network, which `found_architecture` can describe once every block has its cell.
    """
    frame = Frame(skeleton.stem, skeleton.tail, skeleton.stride, dropout, 1e-5, num_classes, in_channels)

    def make(index: int, width: int, shape: Shape) -> nn.Module:
        if index == 0:
            return CellBlock(width, shape.channels, Gene.parse(FIRST_GENE), shape.stride)
        return MixedBlock(width, shape.channels, shape.stride, capacity, space)

    network = cell_classifier(skeleton.shapes(), frame, make)
    if head is None:
        return network
    backbone: Any = feature_maps(network)
    segmenter: Any = Segmenter(backbone, HEADS[head](backbone.feature_info, num_classes))
    segmenter.frame, segmenter.places, segmenter.head_name = frame, network.places, head
    return segmenter


def mixed_blocks(network: nn.Module) -> dict[str, MixedBlock]:
    """The blocks of a supernet that hold several cells, by name, in the order of execution."""
    return {name: module for name, module in network.named_modules() if isinstance(module, MixedBlock)}


def found_architecture(network: Any, chosen: Sequence[Candidate]) -> Architecture:
    """The description of a supernet in which every block has become one of its candidates.

    Args:
        network: as `cell_supernet` gives it.
        chosen: one for each mixed block.
    """
    genes = [FIRST_GENE, *(SKIP if one is None else str(one) for one in chosen)]
    options = cell_options(network.places, network.frame, genes)
    head = getattr(network, "head_name", None)
    if head is None:
        return Architecture("autospace", options)
    outer = {name: options.pop(name) for name in ("num_classes", "in_channels")}
    return Architecture("segmenter", {**outer, "network": "autospace", "options": options, "head": head})


@torch.no_grad()
def plain_network(network: nn.Module, chosen: Sequence[Candidate]) -> nn.Module:
    """The ordinary network that a choice stands for, with the supernet's weights; its batch norms must be measured."""
    plain = build(found_architecture(network, chosen))
    blocks = mixed_blocks(network)
    for (name, block), candidate in zip(blocks.items(), chosen, strict=True):
        if candidate is not None:
            cell = plain.get_submodule(name)
            assert isinstance(cell, CellBlock)
            block.fill(cell)
    inside = tuple(f"{name}." for name in blocks)
    own = plain.state_dict()
    own.update({name: tensor for name, tensor in network.state_dict().items() if not name.startswith(inside)})
    plain.load_state_dict(own)
    return plain
