"""Mask R-CNN's parts from torchvision, and its inference with tensors whose sizes never depend on what is seen.

Fixed sizes are what profiling, export and a runtime need; places that nothing fills are marked as not valid.

Source: Mask R-CNN, arXiv 1703.06870; MaskTrack R-CNN's settings, arXiv 1905.04804 (compfeat.md section 3).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, box_iou, clip_boxes_to_image, roi_align
from torchvision.ops.poolers import LevelMapper

REGION_SIDE = 7
_RATIOS = (0.5, 1.0, 2.0)
_CANDIDATES = 400
_SUPPRESSION_ROUNDS = 24
_SMALLEST_PROPOSAL, _SMALLEST_DETECTION = 1e-3, 1e-2


class RealConv2d(nn.Conv2d):
    """A convolution that stays in float where a network is quantized, which is done to plain layers only."""


class RealLinear(nn.Linear):
    """A linear layer that stays in float, likewise."""


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """The detector's sizes; the defaults are MaskTrack R-CNN's.

    Args:
        channels: of every map of the pyramid.
        anchor_scale: side of an anchor over the stride of its map.
        proposals: regions that are looked at in a frame.
        region_width: of both fully connected layers.
        mask_layers: 3x3 convolutions of the mask branch.
        canonical_scale: side in pixels of a box that is read from the map of stride 16.
        regions: that training samples in a frame.
        anchors: that training samples in a frame.
        detections: most of a frame.
        score_threshold: least score of a detection, 0..1.
    """

    channels: int = 256
    anchor_scale: float = 8.0
    proposals: int = 200
    region_width: int = 1024
    mask_layers: int = 4
    canonical_scale: int = 224
    regions: int = 128
    anchors: int = 64
    detections: int = 10
    score_threshold: float = 0.05


def proposal_network(settings: DetectorSettings, strides: Sequence[int]) -> RegionProposalNetwork:
    """What proposes regions; one size of anchors for each map of the pyramid."""
    sizes = tuple((settings.anchor_scale * stride,) for stride in strides)
    counts = {"training": settings.proposals, "testing": settings.proposals}
    head = RPNHead(settings.channels, len(_RATIOS))
    head.cls_logits, head.bbox_pred = _kept_real(head.cls_logits), _kept_real(head.bbox_pred)
    return RegionProposalNetwork(
        AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=settings.anchors,
        positive_fraction=0.5,
        pre_nms_top_n=counts,
        post_nms_top_n=dict(counts),
        nms_thresh=0.7,
    )


def region_heads(settings: DetectorSettings, strides: Sequence[int], num_classes: int) -> RoIHeads:
    """Classes, boxes and masks of regions; `num_classes` without the background."""
    channels = settings.channels
    predictor = FastRCNNPredictor(settings.region_width, num_classes + 1)
    predictor.bbox_pred = _kept_real(predictor.bbox_pred)
    return RoIHeads(
        region_pool(settings, strides, REGION_SIDE),
        TwoMLPHead(channels * REGION_SIDE**2, settings.region_width),
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.regions,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=settings.score_threshold,
        nms_thresh=0.5,
        detections_per_img=settings.detections,
        mask_roi_pool=region_pool(settings, strides, 2 * REGION_SIDE),
        mask_head=MaskRCNNHeads(channels, [channels] * settings.mask_layers, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes + 1),
    )


def region_pool(settings: DetectorSettings, strides: Sequence[int], side: int) -> MultiScaleRoIAlign:
    """What reads regions from the map of their size, with two samples a bin."""
    pool = MultiScaleRoIAlign(
        [str(stride) for stride in strides], side, sampling_ratio=2, canonical_scale=settings.canonical_scale
    )
    # Else it would infer these from the first maps that it sees.
    pool.scales = [1 / stride for stride in strides]
    ends = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
    pool.map_levels = LevelMapper(*ends, canonical_scale=settings.canonical_scale)
    return pool


def region_levels(pool: MultiScaleRoIAlign, boxes: Tensor) -> Tensor:
    """The map from which each box (R, 4) is read, int64 (R,)."""
    mapper: Any = pool.map_levels
    return mapper([boxes])


def read_regions(
    pool: MultiScaleRoIAlign,
    maps: Sequence[Tensor],
    boxes: Tensor,
    owners: Tensor,
    levels: Tensor | None = None,
    *,
    static: bool = False,
) -> Tensor:
    """As the pool itself, with levels that may be chosen, and on demand with fixed sizes.

    Args:
        pool: made by `region_pool`.
        maps: finest first, each (B, C, h, w).
        boxes: x1, y1, x2, y2 in pixels, (R, 4).
        owners: the image of each box, (R,).
        levels: the map of each box; default: by its size.
        static: read every region from every map, so that no size depends on where boxes are.

    Returns:
        (R, C, side, side).
    """
    levels = region_levels(pool, boxes) if levels is None else levels
    rois = torch.cat([owners[:, None].to(boxes), boxes], 1)
    scales: Any = pool.scales
    result = maps[0].new_zeros(len(boxes), maps[0].shape[1], *pool.output_size)
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        mine = levels == level
        index = None if static else mine.nonzero()[:, 0]
        if index is None:
            read = roi_align(features, rois, pool.output_size, scale, pool.sampling_ratio)
            result = torch.where(mine[:, None, None, None], read, result)
        elif len(index):
            read = roi_align(features, rois[index], pool.output_size, scale, pool.sampling_ratio)
            result = result.index_copy(0, index, read.to(result.dtype))
    return result


class Proposals(NamedTuple):
    """The regions of one frame."""

    boxes: Tensor
    """(P, 4)."""
    valid: Tensor
    """bool (P,)."""


def propose(
    network: RegionProposalNetwork, frame: Tensor, size: tuple[int, int], maps: Sequence[Tensor], count: int
) -> Proposals:
    """The best regions of one frame.

    Args:
        network: made by `proposal_network`.
        frame: (1, C, H, W), padded.
        size: height and width without the padding.
        maps: all maps of the pyramid, finest first, each (1, C, h, w).
        count: how many at most.
    """
    objectness, deltas = network.head(list(maps))
    anchors = network.anchor_generator(ImageList(frame, [size]), list(maps))
    counts = [one[0].numel() for one in objectness]
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    boxes = network.box_coder.decode(deltas, anchors)[:, 0]  # (anchors, 4)
    scores = objectness[:, 0]
    chosen, levels, start = [], [], 0
    for level, total in enumerate(counts):
        best = scores[start : start + total].topk(min(count, total)).indices + start
        chosen.append(best)
        levels.append(torch.full_like(best, level))
        start += total
    index, level_of = torch.cat(chosen), torch.cat(levels)
    boxes, scores = clip_boxes_to_image(boxes[index], size), scores[index]
    kept = kept_by_suppression(boxes, level_of, network.nms_thresh, _is_larger(boxes, _SMALLEST_PROPOSAL))
    best = scores.sigmoid().masked_fill(~kept, -1).topk(min(count, len(scores))).indices
    valid = kept[best]
    # Those that are left over have no order, which every runtime would choose in its own way.
    return Proposals(boxes[best] * valid[:, None], valid)


class Picked(NamedTuple):
    """The detections of one frame, best first."""

    boxes: Tensor
    """(D, 4)."""
    labels: Tensor
    """From 0, int64 (D,)."""
    scores: Tensor
    """0..1, (D,)."""
    valid: Tensor
    """bool (D,)."""


def pick(
    heads: RoIHeads, class_logits: Tensor, box_deltas: Tensor, proposals: Proposals, size: tuple[int, int]
) -> Picked:
    """Detections from what the heads say of the regions; of all pairs of region and class the 400 best are considered.

    Args:
        heads: made by `region_heads`.
        class_logits: (P, 1 + classes).
        box_deltas: (P, 4 (1 + classes)).
        proposals: the regions.
        size: height and width of the frame.
    """
    boxes = heads.box_coder.decode(box_deltas, [proposals.boxes])[:, 1:]  # (P, classes, 4)
    scores = class_logits.softmax(-1)[:, 1:]
    classes = scores.shape[1]
    boxes = clip_boxes_to_image(boxes.reshape(-1, 4), size)
    usable = (scores > heads.score_thresh) & proposals.valid[:, None]
    flat = scores.masked_fill(~usable, -1).flatten()
    flat = flat.masked_fill(~_is_larger(boxes, _SMALLEST_DETECTION), -1)
    best = flat.topk(min(_CANDIDATES, len(flat)))
    boxes, labels = boxes[best.indices], best.indices % classes
    kept = kept_by_suppression(boxes, labels, heads.nms_thresh, best.values > 0)
    final = best.values.masked_fill(~kept, -1).topk(min(heads.detections_per_img, len(kept)))
    valid = final.values > 0
    index = final.indices
    return Picked(boxes[index] * valid[:, None], labels[index] * valid, final.values * valid, valid)


def kept_by_suppression(boxes: Tensor, groups: Tensor, threshold: float, valid: Tensor) -> Tensor:
    """Non-maximum suppression as a fixed number of operations: bool (N,).

    A box stays where no better one of its group that itself stays covers it. Each round of asking so settles one more
    link of every chain of boxes that suppress each other; real ones have a few links, 24 are followed.

    Source: Cluster-NMS, arXiv 2005.03572, section 3.2.

    Args:
        boxes: the better ones of each group first, (N, 4).
        groups: only boxes of one group suppress each other, (N,).
        threshold: on the overlap, 0..1.
        valid: bool (N,); others neither stay nor suppress.
    """
    covered = torch.triu((box_iou(boxes, boxes) > threshold) & (groups[:, None] == groups), diagonal=1)
    kept = valid
    for _ in range(_SUPPRESSION_ROUNDS):
        kept = valid & ~(covered & kept[:, None]).any(0)
    return kept


def predict_masks(
    heads: RoIHeads, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor, *, static: bool = False
) -> Tensor:
    """The mask of each box of one frame for its class, 0..1, (D, 28, 28)."""
    pool: Any = heads.mask_roi_pool
    regions = read_regions(pool, maps, boxes, torch.zeros_like(labels), static=static)
    logits = heads.mask_predictor(heads.mask_head(regions))
    side = logits.shape[-1]
    chosen = (labels + 1)[:, None, None, None].expand(-1, 1, side, side)
    return logits.gather(1, chosen)[:, 0].sigmoid()


def named(maps: Sequence[Tensor], strides: Sequence[int]) -> OrderedDict[str, Tensor]:
    """Maps in the form that torchvision's parts take."""
    return OrderedDict((str(stride), one) for stride, one in zip(strides, maps, strict=True))


def _kept_real(layer: nn.Module) -> nn.Module:
    """The same layer, which quantization leaves in float: where boxes are is told more finely than few bits can say."""
    if isinstance(layer, nn.Conv2d):
        real: nn.Module = RealConv2d(layer.in_channels, layer.out_channels, 1)
    else:
        assert isinstance(layer, nn.Linear)
        real = RealLinear(layer.in_features, layer.out_features)
    real.load_state_dict(layer.state_dict())
    return real


def _is_larger(boxes: Tensor, least: float) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= least).all(1)
