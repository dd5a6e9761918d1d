"""AutoSpace cells: the depthwise stage of an inverted residual as a small graph, described by a gene.

Source: AutoSpace (arXiv 2103.11833), `autospace.md` section 2.3. The authors published no code; what is not in their
files is our definition, and says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.layers.cell_gene import IDENTITY, KERNELS, NODES, POOL, Gene


def norm_conv(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, rectified: bool
) -> nn.Sequential:
    """Convolution without bias, batch norm and, if wanted, ReLU6: children `conv`, `bn` and `act`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels))
    if rectified:
        layers["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


class Pool(nn.Module):
    """Average over a square window; pixels outside the image do not count. Sizes are those of a convolution.

    Args:
        kernel: side of the window: 3, or 2 for the identity that halves the map.
        stride: 1 or 2.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / stride, W / stride), rounded up."""
        ceil_mode = self.kernel == 2
        return F.avg_pool2d(x, self.kernel, self.stride, (self.kernel - 1) // 2, ceil_mode, count_include_pad=False)


def gated(chain: Tensor, others: Tensor) -> Tensor:
    """Scale the chain's map by a gate that the other maps make: mix 1.

    Source: `autospace.md` section 2.3; the authors' files only say that it attends over channels.

    Args:
        chain: map (B, C, H, W).
        others: sum of the other maps, (B, C, H, W); the gate is the sigmoid of each channel's mean.
    """
    return chain * torch.sigmoid(F.adaptive_avg_pool2d(others, 1))


def edge_operation(code: int, channels: int, stride: int) -> nn.Module:
    """What a code stands for.

    Args:
        code: of an edge that is there.
        channels: of the map.
        stride: 2 on the edges that leave node 0 of a cell that halves the map.
    """
    if code in KERNELS:
        return norm_conv(channels, channels, KERNELS[code], stride, channels, rectified=True)
    if code == POOL:
        return Pool(3, stride)
    return Pool(2, 2) if stride == 2 else nn.Identity()


def combine(gene: Gene, node: int, arrived: list[Tensor]) -> Tensor:
    """What a node makes of the maps that arrive there, the chain's last (see `Gene.inputs`)."""
    *others, chain = arrived
    if not others:
        return chain
    total = others[0]
    for one in others[1:]:
        total = total + one
    return gated(chain, total) if node > 1 and gene.mix[node - 2] else total + chain


def run_graph(gene: Gene, x: Tensor, operate: Callable[[str, int, Tensor], Tensor]) -> Tensor:
    """Follow a gene's graph.

    Args:
        gene: of the cell.
        x: map of node 0.
        operate: gives the map behind an edge, from its name, its code and the map in front of it.

    Returns:
        The map of node 3.
    """
    maps = [x]
    for node in range(1, NODES):
        arrived = [operate(edge, code, maps[int(edge[0])]) for edge, code in gene.inputs(node)]
        maps.append(combine(gene, node, arrived))
    return maps[-1]


class Cell(nn.Module):
    """A graph of depthwise operations.

    Args:
        gene: of the cell.
        channels: of its input and output.
        stride: 1 or 2; carried by every edge that leaves node 0.
    """

    def __init__(self, gene: Gene, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.gene = gene
        for node in range(1, NODES):
            for edge, code in gene.inputs(node):
                step = stride if edge[0] == "0" else 1
                if code != IDENTITY or step > 1:
                    self.add_module(f"edge{edge}", edge_operation(code, channels, step))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, channels, H / stride, W / stride), rounded up."""
        modules = self._modules

        def operate(edge: str, _code: int, inner: Tensor) -> Tensor:
            module = modules.get(f"edge{edge}")
            return inner if module is None else module(inner)

        return run_graph(self.gene, x, operate)


class CellBlock(nn.Module):
    """An inverted residual whose depthwise stage is a cell: expand, cell, project; and the input where shapes agree.

    With the gene 512112 it is the ordinary one with a 3x3 kernel, with 712112 and 912112 that with 5x5 and 7x7. The
    input is added at stride 1 where the channels agree.

    Args:
        in_channels: of the input, a linear bottleneck.
        out_channels: of the output, another one.
        gene: of the cell; its expansion is the block's.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, gene: Gene, stride: int = 1) -> None:
        super().__init__()
        hidden = in_channels * gene.expansion
        # At expansion 1 there is no expanding convolution, as in the published network's first block.
        self.expand = norm_conv(in_channels, hidden, rectified=True) if gene.expansion > 1 else nn.Identity()
        self.cell = Cell(gene, hidden, stride)
        self.project = norm_conv(hidden, out_channels, rectified=False)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y = self.project(self.cell(self.expand(x)))
        return x + y if self.is_residual else y
