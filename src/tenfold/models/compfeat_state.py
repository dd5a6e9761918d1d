"""What CompFeat remembers of a video, and what it finds in a frame: tuples of tensors whose sizes never change."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tenfold.models.tracking import MatchingRule, Memory, assign, remember


class VideoState(NamedTuple):
    """What is known of a video before its next frame; made by `CompFeat.start`, one for each video."""

    stages: tuple[Tensor, ...]
    """Maps of the backbone of the last N kept frames, newest first, for each stage that is aggregated: (N, C, h, w)."""
    pyramid: tuple[Tensor, ...]
    """Plain pyramids of the same frames, for each map: (N, C, h, w); empty where objects are not aggregated."""
    filled: Tensor
    """Which of them are there, bool (N,)."""
    memory: Memory
    """Who is known."""


class Detections(NamedTuple):
    """What is found in a frame; D places, best first."""

    boxes: Tensor
    """x1, y1, x2, y2 in pixels of the frame, (D, 4)."""
    labels: Tensor
    """Class from 0, int64 (D,)."""
    scores: Tensor
    """0..1, (D,)."""
    masks: Tensor
    """The part of each box that is the object, 0..1, (D, 28, 28); `paste` brings them into the frame."""
    ids: Tensor
    """Identity, int64 (D,); -1 for one that has none."""
    valid: Tensor
    """Which places hold a detection, bool (D,)."""

    def paste(self, height: int, width: int) -> Tensor:
        """The masks in a frame: bool (D, H, W), all False where nothing is valid."""
        return paste_masks(self.masks, self.boxes, height, width) & self.valid[:, None, None]


class Look(NamedTuple):
    """What the network sees in a frame before identities are given: fixed sizes, nothing but tensors."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor
    valid: Tensor
    """As in `Detections`."""
    templates: Tensor
    """Plain features of each detection, which the memory keeps, (D, C, 7, 7)."""
    fit: Tensor
    """How well each detection fits nobody (column 0) and each known one, (D, 1 + M); minus infinity where a place of
    the memory is free."""
    stages: tuple[Tensor, ...]
    pyramid: tuple[Tensor, ...]
    """Maps of this frame, (1, C, h, w), for `VideoState`."""


def conclude(
    seen: Look, state: VideoState, rule: MatchingRule, support_stride: int = 1
) -> tuple[Detections, VideoState]:
    """Give identities to what a frame shows, and bring the state to the next frame.

    Args:
        seen: in the frame, its fit for the places of `state.memory.known` in their order.
        state: before the frame; it is not changed.
        rule: how identities are given.
        support_stride: every so many frames one is kept for being looked at.
    """
    real = seen.valid.nonzero()[:, 0]
    chosen = assign(seen.fit[real], seen.scores[real], rule)
    memory, given = remember(
        state.memory, chosen, seen.templates[real], seen.boxes[real], seen.labels[real], seen.scores[real], rule
    )
    ids = torch.full_like(seen.labels, -1)
    ids[real] = given
    found = Detections(seen.boxes, seen.labels, seen.scores, seen.masks, ids, seen.valid)
    if int(state.memory.frame) % support_stride:
        return found, state._replace(memory=memory)

    def pushed(kept: Tensor, new: Tensor) -> Tensor:
        return torch.cat([new, kept[:-1]])

    return found, VideoState(
        stages=tuple(pushed(*pair) for pair in zip(state.stages, seen.stages, strict=True)),
        pyramid=tuple(pushed(*pair) for pair in zip(state.pyramid, seen.pyramid, strict=True)),
        filled=pushed(state.filled, torch.ones_like(state.filled[:1])),
        memory=memory,
    )


def only_known(seen: Look, memory: Memory) -> Look:
    """What a frame shows with its fit for who is known, from the fit for all places of the memory."""
    columns = torch.cat([memory.known.new_zeros(1), memory.known + 1])
    return seen._replace(fit=seen.fit[:, columns])


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """Masks of boxes in the frame.

    Args:
        masks: 0..1, (D, 28, 28).
        boxes: in pixels of the frame, (D, 4).
        height: of the frame.
        width: of the frame.
        threshold: what belongs to the object.

    Returns:
        bool (D, H, W).
    """
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    if not len(masks):
        return torch.zeros(0, height, width, dtype=torch.bool, device=masks.device)
    return paste_masks_in_image(masks[:, None], boxes, (height, width))[:, 0] > threshold


def without_frames(state: VideoState) -> VideoState:
    """The state behind a cut: frames before it shall not be looked at, identities stay known."""
    return state._replace(filled=torch.zeros_like(state.filled))
