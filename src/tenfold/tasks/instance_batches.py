"""From clips with objects to what a network learns from: frames of one time, and the frames around it.

Source: compfeat.md section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.tasks.instance_sources import LabelledClip

_REACH = 5


class ClipInputs(NamedTuple):
    """A batch to learn from, in the order of the arguments of CompFeat's `forward`; M places for objects."""

    frames: Tensor
    """Current, reference and S support frames, 0..1, (B, 2 + S, C, H, W)."""
    boxes: Tensor
    """In the current frame, in pixels, (B, M, 4)."""
    labels: Tensor
    """int64 (B, M)."""
    masks: Tensor
    """In the current frame, uint8 (B, M, H, W)."""
    here: Tensor
    """Whether it is in the current frame, bool (B, M)."""
    reference_boxes: Tensor
    """(B, M, 4)."""
    there: Tensor
    """Whether it is in the reference frame, bool (B, M)."""
    filled: Tensor
    """Which support frames may be looked at, bool (B, S)."""


class ClipTargets(NamedTuple):
    """What is true of whole clips, to judge by."""

    masks: Tensor
    """uint8 (B, M, T, H, W)."""
    labels: Tensor
    """int64 (B, M); -1 where there is no object."""
    numbers: Tensor
    """Which clip it is, int64 (B,)."""


@dataclass(frozen=True, eq=False)
class Item:
    """One item before it is put into a batch."""

    frames: NDArray[np.uint8]
    """(2 + S, H, W, 3)."""
    masks: NDArray[np.bool_]
    """In the current and the reference frame, (2, N, H, W)."""
    labels: NDArray[np.int64]
    filled: NDArray[np.bool_]


def draw_item(clip: LabelledClip, supports: int, dropped: float, flip: bool, rng: np.random.Generator) -> Item:
    """Choose the frames of an item.

    The current frame shows an object if any frame does, the reference frame is another one that does, and support
    frames are drawn from those at most five frames away; where there are fewer, they repeat, and a clip of one frame
    supports itself.

    Args:
        clip: with its objects.
        supports: how many support frames.
        dropped: chance of each to be marked as not there.
        flip: mirror half of the items.
        rng: source of all choices.
    """
    count = len(clip.frames)
    showing = np.flatnonzero(clip.masks.any((1, 2, 3)))
    current = int(rng.choice(showing)) if len(showing) else int(rng.integers(count))
    others = showing[showing != current]
    reference = int(rng.choice(others)) if len(others) else current
    around = np.array([at for at in range(count) if at != current and abs(at - current) <= _REACH] or [current])
    chosen = rng.permutation(around)[:supports]
    chosen = np.resize(chosen, supports)
    filled = rng.random(supports) >= dropped
    order = [current, reference, *chosen.tolist()]
    frames, masks = clip.frames[order], clip.masks[[current, reference]]
    # Objects that neither frame shows teach nothing.
    useful: NDArray[np.bool_] = np.asarray(masks.any((0, 2, 3)))
    masks, labels = masks[:, useful], clip.labels[useful]
    if flip and rng.random() < 0.5:
        frames, masks = frames[:, :, ::-1], masks[:, :, :, ::-1]
    return Item(frames, masks, labels, filled)


def stack_items(items: Sequence[Item]) -> ClipInputs:
    """A batch of items of one size, with as many places for objects as the fullest needs."""
    places = max(1, *(len(item.labels) for item in items))
    height, width = items[0].frames.shape[1:3]
    masks = np.zeros((len(items), 2, places, height, width), np.bool_)
    labels = np.zeros((len(items), places), np.int64)
    for row, item in enumerate(items):
        masks[row, :, : len(item.labels)] = item.masks
        labels[row, : len(item.labels)] = item.labels
    boxes = boxes_of(masks)
    shown: NDArray[np.bool_] = np.asarray(masks.any((3, 4)))
    return ClipInputs(
        frames=as_pixels(np.stack([item.frames for item in items])),
        boxes=torch.from_numpy(boxes[:, 0]),
        labels=torch.from_numpy(labels),
        masks=torch.from_numpy(masks[:, 0].astype(np.uint8)),
        here=torch.from_numpy(shown[:, 0]),
        reference_boxes=torch.from_numpy(boxes[:, 1]),
        there=torch.from_numpy(shown[:, 1]),
        filled=torch.from_numpy(np.stack([item.filled for item in items])),
    )


def as_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 (..., H, W, C) to 0..1, float32 (..., C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3))).float() / 255


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The boxes of masks (..., H, W), whose last row and column lie inside: x1, y1, x2, y2; zeros for an empty mask."""
    found = []
    for axis in (-2, -1):
        shown: NDArray[np.bool_] = np.asarray(masks.any(axis))  # over rows: which columns are met
        length = shown.shape[-1]
        first = shown.argmax(-1)
        last = length - shown[..., ::-1].argmax(-1)
        found.append((np.where(shown.any(-1), first, 0), np.where(shown.any(-1), last, 0)))
    (left, right), (top, bottom) = found
    return np.stack([left, top, right, bottom], -1).astype(np.float32)
