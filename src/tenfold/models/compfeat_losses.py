"""What CompFeat learns from: the losses of Mask R-CNN, of identities, and of where known objects are now.

Source: compfeat.md sections 3, 5 and 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

from tenfold.layers.matching import CorrelationHead, identity_loss, map_loss
from tenfold.models.mask_rcnn import named, read_regions

if TYPE_CHECKING:
    from tenfold.models.compfeat_network import CompFeat

LOSSES = ("proposal_class", "proposal_box", "class", "box", "mask", "identity", "map")
"""The order in which losses stand."""


class Truth(NamedTuple):
    """What there is to learn in B items; M places for the identities of each."""

    boxes: Tensor
    """In the current frame, in pixels, (B, M, 4)."""
    labels: Tensor
    """Class from 0, int64 (B, M)."""
    masks: Tensor
    """In the current frame, uint8 or bool (B, M, H, W)."""
    here: Tensor
    """Whether it is in the current frame, bool (B, M)."""
    reference_boxes: Tensor
    """(B, M, 4)."""
    there: Tensor
    """Whether it is in the reference frame, bool (B, M)."""
    filled: Tensor
    """Which support frames may be looked at, bool (B, S)."""


def losses(network: CompFeat, frames: Tensor, truth: Truth) -> Tensor:
    """The losses of a batch, (7,), in the order of LOSSES; their sum is what to minimise.

    Proposals and anchors are sampled with torch's global random state, as torchvision does.

    Args:
        network: in either mode.
        frames: current, reference and S support frames, 0..1, (B, 2 + S, C, H, W).
        truth: of them.
    """
    batch, count = frames.shape[:2]
    size = (frames.shape[-2], frames.shape[-1])
    pair = [one.unflatten(0, (batch, 2)) for one in _maps(network, frames[:, :2])]  # (B, 2, C, h, w)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not network.settings.detached_supports):
        around = _maps(network, frames[:, 2:])
        supports = network._pyramid(around)[:-1] if network._keeps else []
    around, supports = ([one.unflatten(0, (batch, count - 2)) for one in maps] for maps in (around, supports))
    current = [one[:, 0] for one in pair]
    inside = network._inside(current, size)
    at = [network.strides.index(stride) for stride in network.settings.frames]
    refined = network._refined(current, [around[place] for place in at], truth.filled, inside)
    maps = network._pyramid([torch.cat([one, plain[:, 1]]) for one, plain in zip(refined, pair, strict=True)])
    whole, reference = [one[:batch] for one in maps], [one[batch:] for one in maps[:-1]]

    targets = [
        {
            "boxes": truth.boxes[item][here],
            "labels": truth.labels[item][here] + 1,
            "masks": truth.masks[item][here],
            "identity": here.nonzero()[:, 0],
        }
        for item, here in enumerate(truth.here)
    ]
    strides = [*network.strides, 2 * network.strides[-1]]
    images = ImageList(network._prepared(frames[:, 0]), [size] * batch)
    heads, asked = network.heads, network.proposals
    # torchvision gives losses in training mode only, and of these modules it has no other meaning.
    was_training, asked.training = asked.training, True
    try:
        proposals, first = asked(images, named(whole, strides), targets)
    finally:
        asked.training = was_training
    proposals, matched, labels, deltas = heads.select_training_samples(proposals, targets)
    boxes = torch.cat(proposals)
    owners = torch.cat([torch.full((len(one),), item, device=boxes.device) for item, one in enumerate(proposals)])
    regions = read_regions(heads.box_roi_pool, whole[:-1], boxes, owners)
    if network.object_aggregation is not None:
        regions = network.object_aggregation(regions, boxes, owners, supports, truth.filled, inside)
    class_loss, box_loss = fastrcnn_loss(*heads.box_predictor(heads.box_head(regions)), labels, deltas)

    positive = torch.cat(labels) > 0
    mask_loss = _mask_loss(network, whole[:-1], boxes, owners, positive, targets, matched, labels)
    identity, place = _following_losses(network, regions, owners, positive, matched, whole, reference, targets, truth)
    return torch.stack(
        [first["loss_objectness"], first["loss_rpn_box_reg"], class_loss, box_loss, mask_loss, identity, place]
    )


def _maps(network: CompFeat, frames: Tensor) -> list[Tensor]:
    """The backbone's maps of frames (B, T, C, H, W), each (B T, C, h, w)."""
    maps: list[Tensor] = network.backbone(network._prepared(frames.flatten(0, 1)))
    return maps


def _mask_loss(
    network: CompFeat,
    maps: list[Tensor],
    boxes: Tensor,
    owners: Tensor,
    positive: Tensor,
    targets: list[dict[str, Tensor]],
    matched: list[Tensor],
    labels: list[Tensor],
) -> Tensor:
    heads = network.heads
    mine = [one > 0 for one in labels]
    read = read_regions(heads.mask_roi_pool, maps, boxes[positive], owners[positive])
    logits = heads.mask_predictor(heads.mask_head(read))
    sizes = [len(one) for one in labels]
    kept = [one[chosen] for one, chosen in zip(boxes.split(sizes), mine, strict=True)]
    loss: Tensor = maskrcnn_loss(
        logits,
        kept,
        [target["masks"] for target in targets],
        [target["labels"] for target in targets],
        [one[chosen] for one, chosen in zip(matched, mine, strict=True)],
    )
    return loss


def _following_losses(
    network: CompFeat,
    regions: Tensor,
    owners: Tensor,
    positive: Tensor,
    matched: list[Tensor],
    whole: list[Tensor],
    reference: list[Tensor],
    targets: list[dict[str, Tensor]],
    truth: Truth,
) -> tuple[Tensor, Tensor]:
    """Mean over the items of the losses of identities, and of maps of known objects."""
    heads, tracker = network.heads, network.tracker
    features = whole[network.strides.index(network.map_stride)]
    all_matched = torch.cat(matched)
    identities, places = [], []
    for item, there in enumerate(truth.there):
        known_boxes = truth.reference_boxes[item][there]
        owner = torch.full((len(known_boxes),), item, device=known_boxes.device)
        known = read_regions(heads.box_roi_pool, reference, known_boxes, owner)
        mine = positive & (owners == item)
        # Column of the identity among those of the reference frame, from 1; 0 for one that is not there.
        column = torch.where(there, there.cumsum(0), 0)
        chosen = targets[item]["identity"][all_matched[mine]] if mine.any() else all_matched[:0]
        identities.append(identity_loss(tracker(regions[mine], known), column[chosen]))
        if isinstance(tracker, CorrelationHead):
            places.append(
                map_loss(
                    tracker.maps(features[item], known),
                    truth.boxes[item][there],
                    truth.here[item][there],
                    network.map_stride,
                )
            )
    place = torch.stack(places).mean() if places else regions.new_zeros(())
    return torch.stack(identities).mean(), place
