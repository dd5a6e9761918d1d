"""Giving the objects of a frame their identities, and a memory of identities that never grows beyond its size.

Source: MaskTrack R-CNN, arXiv 1905.04804, official code; compfeat.md sections 3 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torchvision.ops import box_iou

from tenfold.errors import UnknownNameError, UsageError, require

NEW = -1
"""An object that nobody knows yet."""
DROPPED = -2
"""An object whose identity a better one claims (greedy assignment only)."""

Assignment = Literal["hungarian", "greedy"]


@dataclass(frozen=True, kw_only=True)
class MatchingRule:
    """How identities are given.

    Args:
        assign: "hungarian" gives each object an identity of its own, best in total; "greedy" is MaskTrack R-CNN's,
            which drops an object whose identity a better one has, for comparing with published numbers.
        confidence: factor of the logarithm of the detection score; it decides only between greedy claims.
        overlap: factor of the overlap with the last box.
        same_class: what the same class is worth.
        place: factor of the correlation map; 0 for heads without one.
        max_age: forget who was not seen for so many frames; None: nobody.
        new_score: an object that nobody knows needs this detection score to be remembered.
        momentum: part of the old features that stays at a match, 0..1; 0 replaces them.
        row_weight: for "hungarian": let confident objects choose first.

    Raises:
        UsageError: if a value is not allowed.
    """

    assign: Assignment = "hungarian"
    confidence: float = 1.0
    overlap: float = 2.0
    same_class: float = 10.0
    place: float = 2.0
    max_age: int | None = None
    new_score: float = 0.0
    momentum: float = 0.0
    row_weight: bool = False

    def __post_init__(self) -> None:
        if self.assign not in get_args(Assignment):
            raise UnknownNameError("assignment", self.assign, get_args(Assignment))
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum is {self.momentum}; allowed is 0 up to below 1.")
        if self.max_age is not None and self.max_age < 1:
            raise UsageError(f"max_age is {self.max_age}; allowed are whole numbers from 1, or None.")


class Memory(NamedTuple):
    """The identities of one video, in tensors of a size that never changes; K of them at most."""

    templates: Tensor
    """Features of the region where each was seen last, (K, C, h, w)."""
    boxes: Tensor
    """(K, 4), in pixels of the network's input."""
    labels: Tensor
    """Class of each when it was seen first, int64 (K,)."""
    ids: Tensor
    """Identity of each place, int64 (K,); -1 where the place is free."""
    seen: Tensor
    """Frame in which each was seen last, int64 (K,)."""
    frame: Tensor
    """Number of the next frame, int64 ()."""
    next_id: Tensor
    """int64 ()."""

    @property
    def known(self) -> Tensor:
        """Places that hold an identity, int64 (N,), the older identities first."""
        places = (self.ids >= 0).nonzero()[:, 0]
        return places[self.ids[places].argsort()]


def empty_memory(size: int, template: Tensor) -> Memory:
    """A memory that knows nobody.

    Args:
        size: identities that it can hold; when it is full, the one that was not seen for longest is forgotten.
        template: any features of a region, (C, h, w): gives shape, type and device.
    """
    if size < 1:
        raise UsageError(f"a memory of {size} identities is not allowed; it holds at least 1.")
    whole: dict[str, Any] = {"dtype": torch.int64, "device": template.device}
    return Memory(
        templates=template.new_zeros(size, *template.shape),
        boxes=template.new_zeros(size, 4),
        labels=torch.zeros(size, **whole),
        ids=torch.full((size,), -1, **whole),
        seen=torch.full((size,), -1, **whole),
        frame=torch.zeros((), **whole),
        next_id=torch.zeros((), **whole),
    )


def matching_scores(
    logits: Tensor,
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    known_boxes: Tensor,
    known_labels: Tensor,
    rule: MatchingRule,
    places: Tensor | None = None,
) -> Tensor:
    """How well each object of a frame fits each identity, and nobody (column 0).

    Source: compfeat.md section 3, with boxes that do not count their last pixel twice; section 5 for `places`.

    Args:
        logits: of a head, (D, 1 + N).
        scores: of detection, (D,).
        boxes: (D, 4).
        labels: (D,).
        known_boxes: (N, 4).
        known_labels: (N,).
        rule: the factors.
        places: what the maps say, 0..1, (D, N).

    Returns:
        (D, 1 + N).
    """
    overlap = rule.overlap * box_iou(boxes, known_boxes)
    if places is not None:
        overlap = overlap + rule.place * places
    same = torch.cat([torch.ones_like(labels[:, None], dtype=torch.bool), labels[:, None] == known_labels], 1)
    likely = logits.log_softmax(1) + rule.confidence * scores.log()[:, None]
    return likely + torch.nn.functional.pad(overlap, (1, 0)) + rule.same_class * same


def assign_greedy(fit: Tensor) -> list[int]:
    """Each object takes its best column; of two that claim the same identity, a worse later one is dropped.

    An earlier, worse one keeps the identity, too, as in the official program, where the later overwrites it.

    Args:
        fit: (D, 1 + N).

    Returns:
        For each object the identity's column from 0, or NEW, or DROPPED.
    """
    best = [-float("inf")] * fit.shape[1]
    chosen = []
    for row in fit.tolist():
        column = max(range(len(row)), key=row.__getitem__)
        if column == 0:
            chosen.append(NEW)
        elif row[column] > best[column]:
            best[column] = row[column]
            chosen.append(column - 1)
        else:
            chosen.append(DROPPED)
    return chosen


def assign_hungarian(fit: Tensor, weights: Tensor | None = None) -> list[int]:
    """Best in total, every identity at most once; each object may also be nobody that is known.

    Args:
        fit: (D, 1 + N).
        weights: of each object, (D,); an object with more weight gets more of its will.

    Returns:
        For each object the identity's column from 0, or NEW.

    Raises:
        MissingExtraError: if scipy is not installed.
    """
    if not len(fit):
        return []
    solve = require("scipy.optimize", "video").linear_sum_assignment
    if weights is not None:
        fit = (fit - fit[:, :1]) * weights[:, None]
    count, known = len(fit), fit.shape[1] - 1
    gain = torch.full((count, known + count), -1e6, dtype=torch.float64)
    gain[:, :known] = fit[:, 1:]
    gain[range(count), range(known, known + count)] = fit[:, 0].double().cpu()
    _, columns = solve(gain.clamp(min=-1e6).numpy(), maximize=True)
    return [int(column) if column < known else NEW for column in columns]


def assign(fit: Tensor, scores: Tensor, rule: MatchingRule) -> list[int]:
    """As the rule says; see `assign_greedy` and `assign_hungarian`."""
    if rule.assign == "greedy":
        return assign_greedy(fit)
    return assign_hungarian(fit, scores if rule.row_weight else None)


@torch.no_grad()
def remember(
    memory: Memory,
    chosen: list[int],
    features: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor,
    rule: MatchingRule,
) -> tuple[Memory, Tensor]:
    """Take the objects of a frame into the memory, and count the frame.

    Args:
        memory: of the video so far; it stays as it is.
        chosen: for each object a place in `memory.known`, or NEW or DROPPED.
        features: of the objects, (D, C, h, w).
        boxes: (D, 4).
        labels: (D,).
        scores: (D,).
        rule: of forgetting and replacing.

    Returns:
        The memory for the next frame, and the identity of each object, int64 (D,); -1 for one without.
    """
    known = memory.known.tolist()
    memory = Memory(*(one.clone() for one in memory))
    given = [-1] * len(chosen)
    # Who is known comes first, so that a newcomer in a full memory takes nobody's place who is here.
    for at, choice in sorted(enumerate(chosen), key=lambda one: one[1] < 0):
        if choice >= 0:
            place, kept = known[choice], rule.momentum
        elif choice == NEW and scores[at] >= rule.new_score:
            place, kept = _free_place(memory), 0.0
            memory.labels[place] = labels[at]
            memory.ids[place] = memory.next_id
            memory.next_id.add_(1)
        else:
            continue
        memory.templates[place] = kept * memory.templates[place] + (1 - kept) * features[at]
        memory.boxes[place] = boxes[at]
        memory.seen[place] = memory.frame
        given[at] = int(memory.ids[place])
    memory.frame.add_(1)
    if rule.max_age is not None:
        memory.ids[memory.frame - memory.seen > rule.max_age] = -1
    return memory, torch.tensor(given, dtype=torch.int64, device=boxes.device)


def _free_place(memory: Memory) -> int:
    free = (memory.ids < 0).nonzero()[:, 0]
    return int(free[0]) if len(free) else int(memory.seen.argmin())
