"""Segmentation of video as a stream: frames go in, the objects on each come out under names that stay.

Three sources of objects behind one call: what a person points at (`GivenSegmenter`, without a network), the largest
thing that moves (found by `moving`, then given), and what a network finds by itself (`NetworkSegmenter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tenfold.data.clips import resized
from tenfold.errors import ShapeError, UsageError
from tenfold.video.flow import FlowEstimator, Frame
from tenfold.video.follow import FollowOptions, FollowSession, working_size
from tenfold.video.given import Given, Mask, at_size, check_given, enlarged, mask_of

NO_CLASS = {1: "object"}
"""The one category of objects that are followed without classes."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One object on one frame.

    Args:
        mask: what it covers, bool (H, W); not empty.
        category: one of the segmenter's categories.
        score: how sure that is, 0..1.
    """

    mask: Mask
    category: int = 1
    score: float = 1.0


class Segmenter(Protocol):
    """Finds and follows objects in one video; each video needs its own."""

    @property
    def categories(self) -> Mapping[int, str]:
        """What objects can be, by number from 1."""

    def start(self, height: int, width: int) -> None:
        """Prepare for the first frame of a video; all its frames have this size in pixels."""

    def step(self, frame: Frame, given: Sequence[Given] = ()) -> dict[int, Seen]:
        """The objects on the next frame by their ids; those given on it among them."""


class GivenSegmenter:
    """Follows what is given, without classes and without a trained network.

    Args:
        options: see FollowOptions.
        estimator: finds the optical flow; DIS by default.
    """

    categories: Mapping[int, str] = NO_CLASS

    def __init__(self, options: FollowOptions | None = None, *, estimator: FlowEstimator | None = None) -> None:
        self._options, self._estimator = options, estimator
        self._session: FollowSession | None = None

    def start(self, height: int, width: int) -> None:
        """See Segmenter."""
        self._session = FollowSession(self._options, estimator=self._estimator)

    def step(self, frame: Frame, given: Sequence[Given] = ()) -> dict[int, Seen]:
        """See Segmenter.

        Raises:
            UsageError: if `start` was not called, or an object lies outside the frame.
            ShapeError: if the frame is of another kind or size than those before.
        """
        if self._session is None:
            raise UsageError("step was called before start; start(height, width) comes first for every video.")
        masks = self._session.step(frame, given)
        return {name: Seen(mask) for name, mask in masks.items() if mask.any()}


class NetworkSegmenter:
    """Finds and follows what a network was trained to find; what is given is followed by it, too.

    Args:
        network: a module with `start(height, width)`, `step(frame, state)` and `introduce(frame, state, boxes)`, such
            as tenfold.models.compfeat.CompFeat, ready to run.
        labels: names of its classes in their order.
        least_score: what is less sure is not shown, 0..1.
        longest_side: the larger side, in pixels, that the network was trained at; larger frames are shrunk for it. None
            takes frames as they are.
        working_size: height and width of the only frames that the network takes; all others are brought to just these.
        device: where the network is, such as "cpu" or "cuda".

    Raises:
        UsageError: if the score is not allowed.
    """

    def __init__(
        self,
        network: Any,
        labels: Sequence[str],
        *,
        least_score: float = 0.3,
        longest_side: int | None = None,
        working_size: tuple[int, int] | None = None,
        device: str = "cpu",
    ) -> None:
        if not 0 <= least_score <= 1:
            raise UsageError(f"least_score is {least_score}; allowed is 0 to 1.")
        self.categories: Mapping[int, str] = dict(enumerate(labels, 1))
        self._network, self._least_score, self._longest_side = network, least_score, longest_side
        self._device = device
        self._state: Any = None
        self._size: tuple[int, int] | None = None
        self._only_size, self._working = working_size, (1, 1)
        self._names: dict[int, int] = {}
        """Ids by those of the network."""
        self._reserved: set[int] = set()

    def reserve(self, names: Iterable[int]) -> None:
        """Keep ids for what will be given; what the network finds by itself gets others."""
        self._reserved |= set(names)

    def start(self, height: int, width: int) -> None:
        """See Segmenter."""
        self._size = height, width
        side = self._longest_side or max(self._size)
        fitting = working_size(self._size, FollowOptions(longest_side=min(max(side, 32), 4096)))
        self._working = self._only_size or fitting
        self._state = self._network.start(*self._working)
        self._names.clear()

    def step(self, frame: Frame, given: Sequence[Given] = ()) -> dict[int, Seen]:
        """See Segmenter.

        Raises:
            UsageError: if `start` was not called, or an object lies outside the frame.
            ShapeError: if the frame is of another kind or size than `start` was told.
        """
        import torch

        if self._size is None:
            raise UsageError("step was called before start; start(height, width) comes first for every video.")
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise ShapeError(f"a frame is {frame.dtype} {frame.shape}; needed is uint8 {(*self._size, 3)}.")
        small = np.array(resized(frame, self._working))
        pixels = torch.from_numpy(small).to(self._device).permute(2, 0, 1)[None].float() / 255
        found, self._state = self._network.step(pixels, self._state)
        seen = self._seen(found, self._least_score)
        if given:
            masks = [mask_of(at_size(one, self._working, self._size), small) for one in given]
            boxes = torch.tensor([_box(mask) for mask in masks], device=self._device)
            pointed_at, self._state = self._network.introduce(pixels, self._state, boxes)
            for one, name in zip(given, pointed_at.ids.tolist(), strict=True):
                if one.id is not None:
                    self._names[name] = one.id
            seen |= self._seen(pointed_at, 0.0)
        return seen

    def _seen(self, found: Any, least_score: float) -> dict[int, Seen]:
        assert self._size is not None
        shown = found.valid & (found.ids >= 0) & (found.scores >= least_score)
        masks = found.paste(*self._working).cpu().numpy()
        seen = {}
        for at in shown.nonzero()[:, 0].tolist():
            mask = enlarged(masks[at], self._size)
            if mask.any():
                name = self._name(int(found.ids[at]))
                seen[name] = Seen(mask, int(found.labels[at]) + 1, float(found.scores[at]))
        return seen

    def _name(self, known: int) -> int:
        """The id of what the network knows by a number: one asked for, or the next that is free."""
        if known not in self._names:
            taken = self._reserved | set(self._names.values())
            self._names[known] = next(one for one in range(1, len(taken) + 2) if one not in taken)
        return self._names[known]


def segment_frames(
    frames: Iterable[Frame], segmenter: Segmenter, given: Sequence[Given] = ()
) -> Iterator[dict[int, Seen]]:
    """The objects on each frame, with bounded memory.

    Args:
        frames: uint8 (H, W, 3), RGB.
        segmenter: finds and follows.
        given: objects, followed from the frames on that they are given on.

    Raises:
        ShapeError: if a frame or mask does not fit the first frame.
        UsageError: if an object lies outside the frame, or on a frame that the video does not have.
    """
    count = 0
    for frame in frames:
        if count == 0:
            segmenter.start(frame.shape[0], frame.shape[1])
        yield segmenter.step(frame, [one for one in given if one.frame == count])
        count += 1
    check_given(given, count)


def _box(mask: Mask) -> list[float]:
    """Edges x1, y1, x2, y2 of a mask in pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
