"""Copying into holes from other frames, as a stream at working size: one pass over a scene.

A pass estimates flow on the frames as they are known so far. Run once more on what the first pass filled in, it finds
the motion behind the holes better: that is where most of a second pass's gain comes from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tenfold.video.flow import FlowEstimator, PairFlow, near_hole, pair_flow, smoothed
from tenfold.video.propagation import NOT_FOUND, Hole, Link, Pictures, Sources, copied_colours, follow, link
from tenfold.video.seams import corrected, seam_correction

SECOND_RIM = 2
"""Pixels around what was not found in the first pass that are not trusted in the second."""


@dataclass(eq=False)
class Draft:
    """One frame on its way, at working size.

    Args:
        number: of the frame.
        small: the frame, uint8 (H, W, 3).
        hole: its hole.
        picture: the frame with all that is copied so far, uint8 (H, W, 3).
        rest: what is not, bool (H, W).
        unknown: where its flow is not to be trusted, bool (H, W).
        before: sources among earlier frames.
        after: sources among later frames.
        correction: what was added to copies so that they meet what is around them, float32 (3, H, W).
        flow_to_next: where it was asked for.
    """

    number: int
    small: NDArray[np.uint8]
    hole: Hole
    picture: NDArray[np.uint8]
    rest: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    before: Sources
    after: Sources
    correction: NDArray[np.float32] | None = None
    to_next: Link | None = None
    flow_to_next: PairFlow | None = None

    @classmethod
    def of(cls, number: int, small: NDArray[np.uint8], mask: NDArray[np.bool_], rim: int | None) -> Draft:
        """A frame of which nothing is copied yet."""
        hole = Hole.of(mask)
        none = Sources.none(len(hole))
        return cls(number, small, hole, small, mask, near_hole(mask, rim), none, none)

    def again(self) -> Draft:
        """The same frame before a further pass."""
        none = Sources.none(len(self.hole))
        unknown = near_hole(self.rest, SECOND_RIM)
        return replace(self, unknown=unknown, before=none, after=none, to_next=None, flow_to_next=None)


class Copying:
    """One pass: drafts go in, and come out, in order, with everything copied that lies within reach.

    What comes out does not depend on `hop`: a source farther away than `reach` is never used, nearer ones always.

    Args:
        estimator: finds the flow.
        reach: frames searched before and after.
        hop: drafts that come out together.
        margin: pixels around the holes in which flow is estimated; None takes the whole frame.
        keep_flow: whether drafts keep the flow to the next.
    """

    def __init__(
        self, estimator: FlowEstimator, *, reach: int, hop: int, margin: int | None, keep_flow: bool = False
    ) -> None:
        self._estimator, self._reach, self._hop = estimator, reach, hop
        self._margin, self._keep_flow = margin, keep_flow
        self._waiting: deque[Draft] = deque()
        self._past: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}
        self._shown: NDArray[np.uint8] | None = None

    def push(self, draft: Draft) -> Iterator[Draft]:
        """Take the next frame of the scene; yield those that are done."""
        shown = smoothed(draft.picture, draft.rest)
        if self._waiting and self._shown is not None:  # some always wait, until the scene ends
            self._connect(self._waiting[-1], self._shown, draft, shown)
        self._shown = shown
        self._waiting.append(draft)
        if len(self._waiting) >= self._hop + self._reach:
            yield from self._release(self._hop)

    def finish(self) -> Iterator[Draft]:
        """End the scene; yield all that is left."""
        yield from self._release(len(self._waiting))
        self._past.clear()
        self._shown = None

    def _connect(
        self, earlier: Draft, shown_earlier: NDArray[np.uint8], later: Draft, shown_later: NDArray[np.uint8]
    ) -> None:
        """Find the flow between two frames, and what the later one can take from before."""
        holes = earlier.hole.mask | later.hole.mask
        if not holes.any() or earlier.unknown.all() or later.unknown.all():
            return  # nothing to do; or nothing is known of one of them, and so not of the motion either
        box = self._region(holes)
        pair = pair_flow(
            self._estimator,
            np.ascontiguousarray(shown_earlier[box]),
            np.ascontiguousarray(shown_later[box]),
            earlier.unknown[box],
            later.unknown[box],
        )
        corner = (box[0].start, box[1].start)
        earlier.to_next = link(earlier.hole, pair.forward, pair.backward, corner)
        to_previous = link(later.hole, pair.backward, pair.forward, corner)
        later.before = self._near(later, follow(to_previous, earlier.hole, earlier.before, earlier.number))
        if self._keep_flow:
            earlier.flow_to_next = pair

    def _region(self, holes: NDArray[np.bool_]) -> tuple[slice, slice]:
        """Rows and columns in which flow is needed."""
        if self._margin is None:
            return slice(0, holes.shape[0]), slice(0, holes.shape[1])
        sides = []
        for axis in (1, 0):
            used = np.flatnonzero(holes.any(axis))
            low, high = max(0, int(used[0]) - self._margin), int(used[-1]) + 1 + self._margin
            sides.append(slice(low, min(high, holes.shape[1 - axis])))
        return sides[0], sides[1]

    def _release(self, count: int) -> Iterator[Draft]:
        """Finish the first drafts that wait."""
        drafts = list(self._waiting)
        for at in range(len(drafts) - 2, -1, -1):
            draft, later = drafts[at], drafts[at + 1]
            if draft.to_next is not None:
                draft.after = self._near(draft, follow(draft.to_next, later.hole, later.after, later.number))
        pictures = self._past | {one.number: (one.small, one.hole.mask) for one in drafts}
        for draft in drafts[:count]:
            if len(draft.hole):
                self._copy(draft, pictures)
            self._waiting.popleft()
            self._past[draft.number] = pictures[draft.number]
            yield draft
        for number in [number for number in self._past if number <= max(self._past) - self._reach]:
            del self._past[number]

    @staticmethod
    def _copy(draft: Draft, pictures: Pictures) -> None:
        """Read the colours of a hole from where they were found."""
        sources = (draft.before, draft.after, pictures)
        colours, got = copied_colours(draft.number, *sources)
        draft.correction = seam_correction(draft.number, draft.small, draft.hole, *sources)
        place = (draft.hole.rows[got], draft.hole.columns[got])
        draft.picture, draft.rest = draft.small.copy(), draft.hole.mask.copy()
        draft.picture[place] = corrected(colours[got], draft.correction[:, place[0], place[1]])
        draft.rest[place] = False

    def _near(self, draft: Draft, sources: Sources) -> Sources:
        """Without sources out of reach."""
        near = np.abs(sources.frame - draft.number) <= self._reach
        return Sources(np.where(near, sources.frame, NOT_FOUND), sources.place)
