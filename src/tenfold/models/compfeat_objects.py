"""CompFeat's object level: the features of regions refined by other frames, and by themselves.

Source: CompFeat, arXiv 2012.03400, figure 2; compfeat.md section 4.3 (our own equations).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from tenfold.errors import UsageError
from tenfold.layers.aggregation import Attend
from tenfold.models.mask_rcnn import REGION_SIDE, DetectorSettings, read_regions, region_levels, region_pool


class ObjectAggregation(nn.Module):
    """f + T(f; frames) + P(f; f) for the features f of each region.

    Args:
        detector: sizes of the detector.
        strides: of the maps that regions are read from.
        inner: channels inside of each attention.
        scope: "dense": a region looks at the whole map of its own level in every frame; "roi:L": at the same place,
            L times as large, with 14 x 14 cells.

    Raises:
        UsageError: if the scope is none that is known.
    """

    def __init__(self, detector: DetectorSettings, strides: Sequence[int], inner: int, scope: str) -> None:
        super().__init__()
        self.enlargement = read_object_scope(scope)
        self.temporal = Attend(detector.channels, inner, pool="auto")
        self.spatial = Attend(detector.channels, inner)
        self.pool = region_pool(detector, strides, REGION_SIDE)
        self.surroundings: MultiScaleRoIAlign = region_pool(detector, strides, 2 * REGION_SIDE)

    def forward(
        self,
        regions: Tensor,
        boxes: Tensor,
        owners: Tensor,
        frames: Sequence[Tensor],
        filled: Tensor,
        inside: Sequence[Tensor],
        *,
        static: bool = False,
    ) -> Tensor:
        """Refine regions.

        Args:
            regions: features, (R, C, 7, 7).
            boxes: in pixels, (R, 4).
            owners: the item of each region, (R,).
            frames: plain pyramid of the other frames, for each map (B, N, C, h, w).
            filled: which frames are there, bool (B, N).
            inside: for each map the cells that are no padding, bool (h, w).
            static: leave no size to where the boxes are; for one item only.

        Returns:
            (R, C, 7, 7).
        """
        levels = region_levels(self.pool, boxes)
        if self.enlargement is None:
            found = self._in_maps(regions, levels, owners, frames, filled, inside, static)
        else:
            found = self._around(regions, boxes, levels, owners, frames, filled, self.enlargement, static)
        return regions + found + self.spatial(regions, regions[:, None])

    def _in_maps(
        self,
        regions: Tensor,
        levels: Tensor,
        owners: Tensor,
        frames: Sequence[Tensor],
        filled: Tensor,
        inside: Sequence[Tensor],
        static: bool,
    ) -> Tensor:
        found = torch.zeros_like(regions)
        for level, maps in enumerate(frames):
            valid = filled[:, :, None, None] & inside[level]
            for item in range(len(maps)):
                keys, usable = maps[item : item + 1], valid[item : item + 1]
                mine = (levels == level) & (owners == item)
                if static:
                    found = torch.where(mine[:, None, None, None], self._asked(regions, keys, usable), found)
                elif len(index := mine.nonzero()[:, 0]):
                    found = found.index_copy(0, index, self._asked(regions[index], keys, usable).to(found.dtype))
        return found

    def _asked(self, regions: Tensor, keys: Tensor, usable: Tensor) -> Tensor:
        """Regions that share their keys are one tall map of queries: keys and values are then made once."""
        count, channels, height, width = regions.shape
        tall = regions.transpose(0, 1).reshape(1, channels, count * height, width)
        found = self.temporal(tall, keys, usable)
        return found.reshape(channels, count, height, width).transpose(0, 1)

    def _around(
        self,
        regions: Tensor,
        boxes: Tensor,
        levels: Tensor,
        owners: Tensor,
        frames: Sequence[Tensor],
        filled: Tensor,
        enlargement: float,
        static: bool,
    ) -> Tensor:
        count = filled.shape[1]
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * enlargement
        larger = torch.cat([centre - half, centre + half], 1).repeat_interleave(count, 0)  # (R N, 4)
        images = (owners[:, None] * count + torch.arange(count, device=boxes.device)).flatten()
        maps = [one.flatten(0, 1) for one in frames]
        levels = levels.repeat_interleave(count, 0)
        patches = read_regions(self.surroundings, maps, larger, images, levels, static=static)
        patches = patches.unflatten(0, (-1, count))  # (R, N, C, 14, 14)
        usable = filled[owners][:, :, None, None].expand(-1, -1, *patches.shape[-2:])
        return self.temporal(regions, patches, usable)


def read_object_scope(scope: str) -> float | None:
    """By how much a region is enlarged; None for whole maps.

    Raises:
        UsageError: if the scope is none that is known.

    Example:
        >>> read_object_scope("roi:2"), read_object_scope("dense")
        (2.0, None)
    """
    if scope == "dense":
        return None
    if (found := re.fullmatch(r"roi:(\d{1,2}(?:\.\d{1,3})?)", scope)) and float(found[1]) >= 1:
        return float(found[1])
    raise UsageError(
        f'objects is {scope!r}; allowed are "dense", "roi:L" with a factor from 1 such as "roi:2", "none".'
    )
