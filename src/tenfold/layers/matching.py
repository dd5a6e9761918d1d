"""How alike objects of one frame are to objects that are known: two heads, by correlation and by inner products.

Source: CompFeat, arXiv 2012.03400, figure 2 (what goes in and out); MaskTrack R-CNN, arXiv 1905.04804; compfeat.md
sections 3 and 5 (our own equations for the correlation).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InnerProductHead(nn.Module):
    """MaskTrack R-CNN's: two fully connected layers on both sides, compared by inner products.

    Args:
        channels: of the features of a region.
        side: cells of a region along each side.
        width: of both layers.
    """

    def __init__(self, channels: int, side: int = 7, width: int = 1024) -> None:
        super().__init__()
        first, second = nn.Linear(channels * side * side, width), nn.Linear(width, width)
        self.layers = nn.Sequential(first, nn.ReLU(), second)
        for module in (first, second):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)

    def forward(self, found: Tensor, known: Tensor) -> Tensor:
        """Logits of being nobody that is known (column 0, always 0), or the same as each known one.

        Args:
            found: (D, C, h, w).
            known: (N, C, h, w).

        Returns:
            (D, 1 + N).
        """
        return with_new(self.layers(found.flatten(1)) @ self.layers(known.flatten(1)).T)


class CorrelationHead(nn.Module):
    """CompFeat's: a score of each pair by channel-wise correlation, and a map of where each known object is now.

    Args:
        channels: of the features of regions and maps.
        inner: channels of the embedding; default: as `channels`.
    """

    def __init__(self, channels: int, inner: int | None = None) -> None:
        super().__init__()
        inner = inner or channels
        self.embed = nn.Conv2d(channels, inner, 3, padding=1)
        self.score = nn.Sequential(nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, 1))
        self.map = nn.Sequential(nn.Conv2d(inner, inner, 1), nn.ReLU(), nn.Conv2d(inner, 1, 1))

    def forward(self, found: Tensor, known: Tensor) -> Tensor:
        """As `InnerProductHead`, by similarity of features."""
        ours, theirs = self.embed(found).flatten(2), self.embed(known).flatten(2)
        together = torch.einsum("dcp,ncp->dnc", ours, theirs) / ours.shape[2]
        return with_new(self.score(together)[..., 0])

    def maps(self, features: Tensor, known: Tensor) -> Tensor:
        """Where each known object is in a frame, by depth-wise cross-correlation.

        Args:
            features: of the frame, (C, H, W).
            known: (N, C, h, w), h and w odd.

        Returns:
            Logits (N, H, W).
        """
        if not len(known):
            return features.new_zeros(0, *features.shape[1:])
        frame = self.embed(features[None])  # (1, C', H, W)
        kernels = self.embed(known)
        count, inner, height, width = kernels.shape
        answer = F.conv2d(
            frame.expand(count, -1, -1, -1).reshape(1, count * inner, *frame.shape[2:]),
            kernels.reshape(count * inner, 1, height, width),
            padding=(height // 2, width // 2),
            groups=count * inner,
        )
        return self.map(answer.reshape(count, inner, *frame.shape[2:]) / (height * width))[:, 0]


def with_new(logits: Tensor) -> Tensor:
    """Put the column of zeros for "nobody that is known" in front: (D, N) to (D, 1 + N)."""
    return F.pad(logits, (1, 0))


def cells_inside(boxes: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Which cells of a map have their centre in a box, its border included: bool (N, H, W).

    Args:
        boxes: x1, y1, x2, y2 in pixels, (N, 4).
        height: of the map in cells.
        width: of the map in cells.
        stride: pixels of a cell along each side.
    """
    x = (torch.arange(width, device=boxes.device) + 0.5) * stride
    y = (torch.arange(height, device=boxes.device) + 0.5) * stride
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    across, down = (left <= x) & (x <= right), (top <= y) & (y <= bottom)
    return down[:, :, None] & across[:, None]


def map_scores(maps: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """How much of each known object a box holds: the mean of its map over the cells with their centre in the box.

    Args:
        maps: logits (N, H, W).
        boxes: x1, y1, x2, y2 in pixels, (D, 4); one that holds no centre gets the cell of its own centre.
        stride: pixels of a cell along each side.

    Returns:
        (D, N), 0..1.
    """
    height, width = maps.shape[-2:]
    inside = cells_inside(boxes, height, width, stride).flatten(1)  # (D, H W)
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride).long()
    column, row = centre[:, 0].clamp(0, width - 1), centre[:, 1].clamp(0, height - 1)
    own = torch.arange(height * width, device=boxes.device) == (row * width + column)[:, None]
    inside = inside | (own & ~inside.any(1, keepdim=True))
    weights = inside.to(maps.dtype)
    return weights @ maps.sigmoid().flatten(1).T / weights.sum(1, keepdim=True)


def identity_loss(logits: Tensor, identities: Tensor) -> Tensor:
    """Cross entropy of the logits (D, 1 + N) with columns (D,), averaged; 0 without any object."""
    if not len(logits):
        return logits.sum()
    return F.cross_entropy(logits.float(), identities)


def map_loss(maps: Tensor, boxes: Tensor, is_present: Tensor, stride: int) -> Tensor:
    """Cross entropy of maps with boxes: cells inside and outside count half each; mean over the known objects.

    Args:
        maps: logits (N, H, W).
        boxes: where each object is in this frame, (N, 4).
        is_present: bool (N,); the map of an absent object shall be empty.
        stride: pixels of a cell along each side.

    Returns:
        A scalar; 0 without any object.
    """
    if not len(maps):
        return maps.sum()
    height, width = maps.shape[-2:]
    target = cells_inside(boxes, height, width, stride) & is_present[:, None, None]
    each = F.binary_cross_entropy_with_logits(maps.float(), target.float(), reduction="none")
    inside, outside = target.sum((1, 2)), (~target).sum((1, 2))
    hits = (each * target).sum((1, 2)) / inside.clamp(min=1)
    misses = (each * ~target).sum((1, 2)) / outside.clamp(min=1)
    halves = torch.where((inside > 0) & (outside > 0), (hits + misses) / 2, hits + misses)
    return halves.mean()
