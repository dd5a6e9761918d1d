"""Inpainting of video as a stream: frames and masks go in, filled frames come out, and memory does not grow.

Every pixel of a hole is first looked for in neighbouring frames along the optical flow (`copying`) and copied from
there at full size; what no frame shows is left to a filler (`filling`). Pixels outside the masks leave exactly as they
came, and what lies under the masks is never looked at. Nothing flows across a cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clips import resized
from tenfold.data.holes import dilated
from tenfold.errors import ShapeError, UsageError
from tenfold.video.copying import Copying, Draft
from tenfold.video.filling import Filling, SmoothFilling, Window
from tenfold.video.flow import DisFlow, FlowEstimator, sample
from tenfold.video.propagation import Sources, copied_colours, mix
from tenfold.video.provenance import FAR, encode
from tenfold.video.scene_cuts import CutDetector
from tenfold.video.seams import corrected


@dataclass(frozen=True, kw_only=True)
class InpaintOptions:
    """How a video is inpainted.

    Args:
        longest_side: the larger side, in pixels, at which motion is estimated and the rest filled; larger frames are
            shrunk for that, and their holes still filled at full size.
        reach: how many frames before and after a hole are searched.
        passes: how often motion is estimated: the second pass sees what the first filled in.
        dilate: steps that the masks grow before anything else.
        margin: pixels around the holes in which flow is estimated, at working size; None takes the whole frame.
        rim: pixels around a hole, at working size, whose flow counts as disturbed by it; None chooses by its thickness.
        cuts: whether to look for cuts.
        hop: how many frames are finished together; more take less time and more memory.
        memory_mb: frames are held in at most about so many megabytes; the reach in large frames shrinks for it.
    """

    longest_side: int = 432
    reach: int = 24
    passes: int = 2
    dilate: int = 0
    margin: int | None = 64
    rim: int | None = None
    cuts: bool = True
    hop: int = 8
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        limits = {"longest_side": (16, 8192), "reach": (1, FAR - 1), "passes": (1, 8), "dilate": (0, 1000)}
        limits |= {"margin": (8, 8192), "rim": (0, 1000), "hop": (1, 1000), "memory_mb": (16, 1 << 20)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} is {value}; allowed is {low} to {high}.")


@dataclass(frozen=True)
class Plan:
    """What a session holds, known before it begins.

    Args:
        working_size: (height, width) at which motion is estimated.
        reach: frames searched before and after.
        hop: frames finished together.
        frames: most frames held at a time.
        memory_mb: about what they take.
    """

    working_size: tuple[int, int]
    reach: int
    hop: int
    frames: int
    memory_mb: int


_FRAME_BYTES, _WORKING_BYTES, _FLOW_BYTES = 4, 48, 18
"""Bytes held for a pixel of a frame and mask; of working size with all that belongs to a hole; and of dense flow."""


def plan_session(height: int, width: int, options: InpaintOptions, filling: Filling) -> Plan:
    """Settle the working size, and how many frames are held.

    Raises:
        UsageError: if the memory allowed does not hold the fewest frames needed.
    """
    scale = min(1.0, options.longest_side / max(height, width))
    working = (max(1, round(height * scale)), max(1, round(width * scale)))
    each = _FRAME_BYTES * height * width
    each += (_WORKING_BYTES + _FLOW_BYTES * filling.needs_flow) * working[0] * working[1]
    reach, hop = options.reach, options.hop
    while (held := _held(reach, hop, options, filling)) * each > options.memory_mb * 2**20:
        if (reach, hop) == (1, 1):
            raise UsageError(
                f"frames of {width} x {height} need {-(-held * each // 2**20)} MB, since {held} are held at a time; "
                f"{options.memory_mb} MB are allowed. Allow more memory, or make the video smaller first."
            )
        reach, hop = max(1, reach - 1), max(1, hop - 1)
    return Plan(working, reach, hop, held, -(-held * each // 2**20))


def _held(reach: int, hop: int, options: InpaintOptions, filling: Filling) -> int:
    """Frames from the newest to the oldest that may still be a source."""
    return options.passes * (reach + hop) + hop + 2 * filling.context + reach


@dataclass(frozen=True, eq=False)
class InpaintedFrame:
    """One frame that is done.

    Args:
        number: counted from 0.
        frame: uint8 (H, W, 3); where nothing was to be filled, the very array that came in.
        provenance: codes of `provenance`, uint8 (H, W).
        begins_scene: whether a cut was found before it.
    """

    number: int
    frame: NDArray[np.uint8]
    provenance: NDArray[np.uint8]
    begins_scene: bool


@dataclass(frozen=True, eq=False)
class _Held:
    """A frame as it came in."""

    frame: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    begins_scene: bool


class InpaintSession:
    """Fills a video while it streams through.

    Args:
        options: how to fill; those of the class by default.
        filling: fills what no frame shows; smoothly by default.
        estimator: finds the optical flow; DIS by default.

    Example:
        >>> session = InpaintSession()
        >>> frame, mask = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.bool_)
        >>> early = list(session.push(frame, mask))  # those that are done by now
        >>> [done.number for done in session.finish()]
        [0]
    """

    def __init__(
        self,
        options: InpaintOptions | None = None,
        *,
        filling: Filling | None = None,
        estimator: FlowEstimator | None = None,
    ) -> None:
        self.options = options or InpaintOptions()
        self.filling: Filling = filling or SmoothFilling()
        self.plan: Plan | None = None
        self._estimator = estimator or DisFlow()
        self._detector = CutDetector()
        self._cut: bool | None = None
        self._count = 0
        self._size: tuple[int, ...] | None = None
        self._frames: dict[int, _Held] = {}
        self._passes: list[Copying] = []
        self._drafts: deque[Draft] = deque()
        self._context: deque[Draft] = deque(maxlen=self.filling.context)

    def push(self, frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Iterator[InpaintedFrame]:
        """Take one frame; yield those that are done by now, in order. The iterator must be run to its end.

        Args:
            frame: uint8 (H, W, 3), RGB.
            mask: what to fill, bool (H, W), True = fill.

        Raises:
            ShapeError: if the frame or the mask is of another kind or size than the first frame.
            UsageError: if frames of this size do not fit into the memory allowed.
        """
        begins_scene, self._cut = self.begins_scene(frame, mask), None
        assert self.plan is not None
        plan, mask = self.plan, dilated(mask, self.options.dilate)
        held = _Held(frame, mask, begins_scene)
        if held.begins_scene:
            yield from self.finish()
        self._frames[self._count] = held
        small, hole = resized(frame, plan.working_size), _shrunk(mask, plan.working_size)
        self._drafts.extend(self._pass_on([Draft.of(self._count, small, hole, self.options.rim)], ends=False))
        self._count += 1
        while len(self._drafts) >= plan.hop + self.filling.context:
            yield from self._release(plan.hop)

    def begins_scene(self, frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bool:
        """Whether there is a cut before the next frame; `push` or `skip` it after that.

        Args:
            frame: uint8 (H, W, 3), RGB.
            mask: what to fill, bool (H, W).

        Raises:
            ShapeError: if the frame or the mask is of another kind or size than the first frame.
            UsageError: if frames of this size do not fit into the memory allowed.
        """
        if self._cut is None:
            self._check(frame, mask)
            if self.plan is None:
                self._begin(mask.shape)
            self._cut = self.options.cuts and self._detector.is_cut(frame, dilated(mask, self.options.dilate))
        return self._cut

    def skip(self, frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Pass over a frame that need not be filled; only while none is held, at the start or after `finish`.

        What comes after is filled as if this had been pushed if `settled_after` frames are pushed before it, the first
        of them a whole number of hops after the last cut (or the start).
        """
        self.begins_scene(frame, mask)
        self._cut = None
        self._count += 1

    @property
    def settled_after(self) -> int:
        """Frames after which the filling no longer depends on where it began; known once there was a frame."""
        assert self.plan is not None
        return self.options.passes * (self.plan.reach + 1) + self.filling.context + 2 * self.plan.hop

    def finish(self) -> Iterator[InpaintedFrame]:
        """Yield all frames still held; another scene may follow."""
        self._drafts.extend(self._pass_on([], ends=True))
        hop = self.plan.hop if self.plan else 1
        while self._drafts:
            yield from self._release(min(hop, len(self._drafts)))
        self._context.clear()
        self._frames.clear()

    def _check(self, frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise ShapeError(f"frame {self._count} is {frame.dtype} {frame.shape}; needed is uint8 (H, W, 3).")
        if mask.dtype != np.bool_ or mask.shape != frame.shape[:2]:
            raise ShapeError(
                f"the mask of frame {self._count} is {mask.dtype} {mask.shape}, but the frame has the size "
                f"{frame.shape[:2]}; needed is a mask of bool of the same size."
            )
        if self._size not in {None, mask.shape}:
            raise ShapeError(
                f"frame {self._count} has the size {mask.shape}, but those before {self._size}; all frames of a video "
                "must be of one size."
            )

    def _begin(self, size: tuple[int, ...]) -> None:
        self._size = size
        self.plan = plan_session(size[0], size[1], self.options, self.filling)
        last = self.options.passes - 1
        self._passes = [
            Copying(
                self._estimator,
                reach=self.plan.reach,
                hop=self.plan.hop,
                margin=None if self.filling.needs_flow and at == last else self.options.margin,
                keep_flow=self.filling.needs_flow and at == last,
            )
            for at in range(self.options.passes)
        ]

    def _pass_on(self, drafts: list[Draft], *, ends: bool) -> list[Draft]:
        """Drafts through all passes; at the end of a scene also those that wait in them."""
        for at, copying in enumerate(self._passes):
            entering = [draft.again() for draft in drafts] if at else drafts
            drafts = [done for draft in entering for done in copying.push(draft)]
            if ends:
                drafts += copying.finish()
        return drafts

    def _release(self, count: int) -> Iterator[InpaintedFrame]:
        """Finish the first frames whose drafts are there."""
        assert self.plan is not None
        drafts = [self._drafts[at] for at in range(min(count + self.filling.context, len(self._drafts)))]
        for draft, (picture, repaired) in zip(drafts[:count], self._filled(drafts, count), strict=True):
            yield self._finished(draft, picture, repaired)
            self._drafts.popleft()
            self._context.append(draft)
        oldest = drafts[count - 1].number + 1 - self.plan.reach
        for number in [number for number in self._frames if number < oldest]:
            del self._frames[number]

    def _filled(self, drafts: list[Draft], count: int) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        """Whole frames at working size, and which copied pixels were changed; the draft itself where all is found."""
        if not any(draft.rest.any() for draft in drafts[:count]):
            return [(draft.picture, np.zeros_like(draft.rest)) for draft in drafts[:count]]
        shown = [*self._context, *drafts]
        rest = np.stack([draft.rest for draft in shown])
        window = Window(
            np.stack([draft.picture for draft in shown]),
            rest,
            np.stack([draft.hole.mask for draft in shown]) & ~rest,
            [draft.flow_to_next for draft in shown[:-1]],
            range(len(self._context), len(self._context) + count),
        )
        filled = self.filling.fill(window)
        return list(zip(filled.frames, filled.repaired, strict=True))

    def _finished(self, draft: Draft, picture: NDArray[np.uint8], repaired: NDArray[np.bool_]) -> InpaintedFrame:
        """Everything put together at full size; known pixels are those that came in."""
        held = self._frames[draft.number]
        rows, columns = np.nonzero(held.mask)
        if not len(rows):
            codes = np.zeros(held.mask.shape, np.uint8)
            return InpaintedFrame(draft.number, held.frame, codes, held.begins_scene)
        place, y, x = _at_working_size(rows, columns, held.mask.shape, draft.rest.shape)
        at = draft.hole.number[y, x]
        before, after = (_enlarged(one, at, place, draft, held.mask.shape) for one in (draft.before, draft.after))
        changed = repaired[y, x]
        if picture.shape == held.frame.shape:
            colours, invented = picture[y, x], draft.rest[y, x]
        else:
            pictures = {number: (one.frame, one.mask) for number, one in self._frames.items()}
            colours, got = copied_colours(draft.number, before, after, pictures)
            if draft.correction is not None:
                colours = corrected(colours, sample(draft.correction, place))
            made = ~got | changed
            values = np.moveaxis(picture, -1, 0).astype(np.float32)
            colours[made] = np.rint(sample(values, place[:, made])).T
            invented = ~got
        frame = held.frame.copy()
        frame[rows, columns] = colours
        codes = np.zeros(held.mask.shape, np.uint8)
        codes[rows, columns] = encode(invented, changed, _main_distance(draft.number, before, after))
        return InpaintedFrame(draft.number, frame, codes, held.begins_scene)


def inpaint_frames(
    frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    options: InpaintOptions | None = None,
    *,
    filling: Filling | None = None,
    estimator: FlowEstimator | None = None,
) -> Iterator[InpaintedFrame]:
    """Fill a video, frame by frame, with bounded memory.

    Args:
        frames: pairs of a frame, uint8 (H, W, 3), and what to fill in it, bool (H, W).
        options: see InpaintOptions.
        filling: see InpaintSession.
        estimator: see InpaintSession.

    Raises:
        ShapeError: if a frame or mask does not fit the first.
        UsageError: if frames of this size do not fit into the memory allowed.
    """
    session = InpaintSession(options, filling=filling, estimator=estimator)
    for frame, mask in frames:
        yield from session.push(frame, mask)
    yield from session.finish()


def _main_distance(number: int, before: Sources, after: Sources) -> NDArray[np.int64]:
    """Number of the nearer source minus the frame's own, 0 where there is none, (N,)."""
    weights = mix(number, before, after)
    earlier = before.found & (weights[0] >= weights[1])
    return np.where(earlier, before.frame - number, np.where(after.found, after.frame - number, 0))


def _shrunk(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at a smaller size: every pixel that a hole touches belongs to it."""
    if mask.shape == size:
        return mask
    covered = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(covered) > 0


def _at_working_size(
    rows: NDArray[np.int64], columns: NDArray[np.int64], size: tuple[int, ...], working: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Positions (x, y) of a frame's pixels at working size, (2, N), and row and column of the pixel each lies in."""
    y, x = (rows + 0.5) * (working[0] / size[0]), (columns + 0.5) * (working[1] / size[1])
    return np.stack([x - 0.5, y - 0.5]).astype(np.float32), y.astype(np.int64), x.astype(np.int64)


def _enlarged(
    sources: Sources, at: NDArray[np.int32], place: NDArray[np.float32], draft: Draft, size: tuple[int, ...]
) -> Sources:
    """Sources at full size: each pixel moves along with the one at working size that it lies in."""
    centre = np.stack([draft.hole.columns[at], draft.hole.rows[at]]).astype(np.float32)
    working = draft.rest.shape
    factor = np.array([[size[1] / working[1]], [size[0] / working[0]]], np.float32)
    return Sources(sources.frame[at], (sources.place[:, at] + place - centre + 0.5) * factor - 0.5)
