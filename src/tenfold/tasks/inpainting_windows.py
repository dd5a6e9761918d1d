"""Windows of video with holes, and what propagation has done about them: what an inpainting network is trained on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.data.holes import HOLE_KINDS, hole_masks, object_masks
from tenfold.data.simulated import Motion
from tenfold.errors import UnknownNameError
from tenfold.files import written_whole
from tenfold.tasks.inpainting_sources import Sources, real_frames, simulated_video
from tenfold.video.copying import Copying, Draft
from tenfold.video.flow import FlowEstimator, PairFlow
from tenfold.video.harmonic import filled_smoothly
from tenfold.video.propagation import Hole, Link, copied_colours, follow
from tenfold.video.propagation import Sources as Found

FlowSource = Literal["auto", "oracle", "observed"]
TRACK = "track"
"""The kind of hole that has the outline of an object in another clip."""
PASSES = 2
_LEAST_LEFT, _ATTEMPTS = 0.005, 6
"""A hole of which propagation leaves less than this part of the frame teaches nothing: it is drawn anew, so often."""


@dataclass(frozen=True, eq=False)
class PreparedWindow:
    """Frames with holes, after propagation.

    Args:
        truth: uint8 (T, H, W, 3).
        given: the same with copied pixels in place, and what is left filled smoothly.
        rest: what is left, bool (T, H, W).
        copied: what was copied, bool (T, H, W).
        flow_fwd: float16 (T-1, 2, H, W): pixel p of frame t is seen at p + flow in frame t+1.
        flow_bwd: float16 (T-1, 2, H, W): pixel p of frame t+1 is seen at p + flow in frame t.
        valid_fwd: whether to use it, bool (T-1, H, W).
        valid_bwd: likewise.
    """

    truth: NDArray[np.uint8]
    given: NDArray[np.uint8]
    rest: NDArray[np.bool_]
    copied: NDArray[np.bool_]
    flow_fwd: NDArray[np.float16]
    flow_bwd: NDArray[np.float16]
    valid_fwd: NDArray[np.bool_]
    valid_bwd: NDArray[np.bool_]

    def cut(self, start: int, count: int) -> PreparedWindow:
        """Some consecutive frames of it."""
        frames, pairs = slice(start, start + count), slice(start, start + count - 1)
        return PreparedWindow(
            self.truth[frames],
            self.given[frames],
            self.rest[frames],
            self.copied[frames],
            self.flow_fwd[pairs],
            self.flow_bwd[pairs],
            self.valid_fwd[pairs],
            self.valid_bwd[pairs],
        )

    def mirrored(self) -> PreparedWindow:
        """Left and right exchanged."""
        sign = np.array([-1, 1], np.float16)[:, None, None]
        return PreparedWindow(
            self.truth[:, :, ::-1],
            self.given[:, :, ::-1],
            self.rest[..., ::-1],
            self.copied[..., ::-1],
            self.flow_fwd[..., ::-1] * sign,
            self.flow_bwd[..., ::-1] * sign,
            self.valid_fwd[..., ::-1],
            self.valid_bwd[..., ::-1],
        )

    def reversed(self) -> PreparedWindow:
        """The last frame first."""
        return PreparedWindow(
            self.truth[::-1],
            self.given[::-1],
            self.rest[::-1],
            self.copied[::-1],
            self.flow_bwd[::-1],
            self.flow_fwd[::-1],
            self.valid_bwd[::-1],
            self.valid_fwd[::-1],
        )

    def save(self, path: Path) -> None:
        """Write it as one file, whole or not at all.

        Raises:
            StorageError: if the disk is full, or the place cannot be written.
        """
        arrays = {one.name: getattr(self, one.name) for one in fields(self)}
        packed: dict[str, Any] = {
            name: np.packbits(value) if value.dtype == np.bool_ else value for name, value in arrays.items()
        }
        with written_whole(path) as part, part.open("wb") as file:
            np.savez(file, **packed)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None if it is not there, or damaged. Nothing in such a file can run code."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {one.name: stored[one.name] for one in fields(cls)}
            frames, height, width, _ = arrays["truth"].shape
            for name in ("rest", "copied", "valid_fwd", "valid_bwd"):
                count = frames if name in ("rest", "copied") else frames - 1
                bits = np.unpackbits(arrays[name], count=count * height * width)
                arrays[name] = bits.astype(np.bool_).reshape(count, height, width)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return cls(**arrays)


@dataclass(frozen=True, eq=False)
class Moves:
    """How pixels move between neighbouring frames, and where that can be trusted; as in `PreparedWindow`."""

    forward: NDArray[np.float32]
    backward: NDArray[np.float32]
    valid_forward: NDArray[np.bool_]
    valid_backward: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class WindowMaker:
    """Makes windows: each is a pure function of its row, its variant and a seed.

    Args:
        sources: what they are cut from.
        size: (height, width).
        frames: T.
        holes: kinds of holes, of `tenfold.data.holes.HOLE_KINDS`, and "track"; each window has one of them.
        flow: "oracle" is the exact flow of simulated video, and that of the true frames of clips; "observed" is
            estimated on what is known, as for a user's video; "auto" takes the first for simulated video, the second
            for clips.
        propagate: whether to copy from other frames first.
        motion: of simulated video.
        estimator: of flow.
        cache: folder for windows that were made, or None.
    """

    sources: Sources
    size: tuple[int, int]
    frames: int
    holes: Sequence[str]
    flow: FlowSource
    propagate: bool
    motion: Motion
    estimator: FlowEstimator
    cache: Path | None = None

    def __call__(self, row: int, variant: int, seed: int) -> PreparedWindow:
        """The window, from the cache if it is there."""
        if self.cache is None:
            return self._made(row, variant, seed)
        path = self.cache / f"{seed}_{variant}_{row}.npz"
        window = PreparedWindow.load(path)
        if window is None:
            window = self._made(row, variant, seed)
            window.save(path)
        return window

    def _made(self, row: int, variant: int, seed: int) -> PreparedWindow:
        rng = np.random.default_rng([seed, variant, row])
        oracle = self.flow == "oracle" or (self.flow == "auto" and self.sources.is_simulated(row))
        moves: Moves | None = None
        if self.sources.is_simulated(row):
            clip = simulated_video(self.sources, row, self.frames, self.size, rng, self.motion)
            truth = clip.frames
            moves = Moves(clip.flow_fwd, clip.flow_bwd, clip.visible_fwd, clip.visible_bwd)
        else:
            truth = real_frames(self.sources.clips[row], self.frames, self.size, rng)
        if not oracle:
            moves = None
        elif moves is None:
            moves = true_moves(truth, self.estimator)
        for attempt in range(_ATTEMPTS):
            holes = self._holes(rng)
            if moves is None:
                window = observed_window(truth, holes, self.estimator, propagate=self.propagate)
            else:
                window = oracle_window(truth, holes, moves, propagate=self.propagate)
            if window.rest.mean() >= _LEAST_LEFT or attempt == _ATTEMPTS - 1:
                break
        return window

    def _holes(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        kind = self.holes[int(rng.integers(len(self.holes)))]
        if kind != TRACK:
            return hole_masks(kind, self.frames, *self.size, rng)
        clip = self.sources.tracks[int(rng.integers(len(self.sources.tracks)))]
        count = min(self.frames, len(clip))
        for _ in range(_ATTEMPTS):
            _, track = clip.read(int(rng.integers(0, len(clip) - count + 1)), count)
            if track.any():
                return object_masks(track, self.frames, *self.size, rng)
        return hole_masks("shape", self.frames, *self.size, rng)


def check_holes(kinds: Sequence[str], *, has_tracks: bool) -> None:
    """See that all kinds of holes can be drawn.

    Raises:
        UnknownNameError: if one is not known, or is "track" and no clip has masks.
    """
    known = [*HOLE_KINDS, *([TRACK] if has_tracks else [])]
    for kind in kinds:
        if kind not in known:
            raise UnknownNameError("kind of hole", kind, known)


def true_moves(truth: NDArray[np.uint8], estimator: FlowEstimator) -> Moves:
    """The flow of intact frames, holes included, checked forward and backward: what TSAM is trained with."""
    pairs = [PairFlow(estimator(first, second), estimator(second, first)) for first, second in pairwise(truth)]
    return _stacked(pairs, truth.shape[1:3])


def oracle_window(
    truth: NDArray[np.uint8], holes: NDArray[np.bool_], moves: Moves, *, propagate: bool = True
) -> PreparedWindow:
    """A window whose motion is known.

    Args:
        truth: uint8 (T, H, W, 3).
        holes: True = hole, bool (T, H, W).
        moves: between its frames.
        propagate: whether to copy from other frames along them.
    """
    count = len(truth)
    given, rest = truth.copy(), holes.copy()
    if propagate:
        numbered = [Hole.of(hole) for hole in holes]
        before = [Found.none(len(hole)) for hole in numbered]
        after = list(before)
        for at in range(1, count):
            step = _link(numbered[at], moves.backward[at - 1], moves.valid_backward[at - 1])
            before[at] = follow(step, numbered[at - 1], before[at - 1], at - 1)
        for at in range(count - 2, -1, -1):
            step = _link(numbered[at], moves.forward[at], moves.valid_forward[at])
            after[at] = follow(step, numbered[at + 1], after[at + 1], at + 1)
        pictures = {at: (truth[at], holes[at]) for at in range(count)}
        for at, hole in enumerate(numbered):
            colours, got = copied_colours(at, before[at], after[at], pictures)
            given[at][hole.rows[got], hole.columns[got]] = colours[got]
            rest[at][hole.rows[got], hole.columns[got]] = False
    return _finished(truth, given, rest, holes & ~rest, moves)


def observed_window(
    truth: NDArray[np.uint8], holes: NDArray[np.bool_], estimator: FlowEstimator, *, propagate: bool = True
) -> PreparedWindow:
    """A window whose motion is estimated from what is known, as `tenfold inpaint` does it.

    Args:
        truth: uint8 (T, H, W, 3); what stands in the holes has no influence on all but `truth`.
        holes: True = hole, bool (T, H, W).
        estimator: of flow.
        propagate: whether to copy from other frames.
    """
    drafts = [Draft.of(at, frame, hole, None) for at, (frame, hole) in enumerate(zip(truth, holes, strict=True))]
    for number in range(PASSES):
        last = number == PASSES - 1
        one = Copying(estimator, reach=len(truth), hop=1, margin=None, keep_flow=last)
        entering = [draft.again() for draft in drafts] if number else drafts
        drafts = [*_pushed(one, entering), *one.finish()]
    still = PairFlow(*np.zeros((2, 2, *holes.shape[1:]), np.float32))
    pairs = [draft.flow_to_next or still for draft in drafts[:-1]]
    moves = _stacked(pairs, holes.shape[1:])
    for at, draft in enumerate(drafts[:-1]):
        if draft.flow_to_next is None:  # nothing is known of the motion
            moves.valid_forward[at] = moves.valid_backward[at] = False
    if not propagate:
        return _finished(truth, truth.copy(), holes, np.zeros_like(holes), moves)
    rest = np.stack([draft.rest for draft in drafts])
    return _finished(truth, np.stack([draft.picture for draft in drafts]), rest, holes & ~rest, moves)


def _pushed(one: Copying, drafts: Sequence[Draft]) -> Iterator[Draft]:
    for draft in drafts:
        yield from one.push(draft)


def _link(hole: Hole, flow: NDArray[np.float32], valid: NDArray[np.bool_]) -> Link:
    place = np.stack([hole.columns, hole.rows]).astype(np.float32) + flow[:, hole.rows, hole.columns]
    return Link(place, valid[hole.rows, hole.columns])


def _stacked(pairs: Sequence[PairFlow], size: tuple[int, ...]) -> Moves:
    if not pairs:
        return Moves(*np.zeros((2, 0, 2, *size), np.float32), *np.zeros((2, 0, *size), np.bool_))
    return Moves(
        np.stack([pair.forward for pair in pairs]),
        np.stack([pair.backward for pair in pairs]),
        np.stack([pair.valid_forward for pair in pairs]),
        np.stack([pair.valid_backward for pair in pairs]),
    )


def _finished(
    truth: NDArray[np.uint8], given: NDArray[np.uint8], rest: NDArray[np.bool_], copied: NDArray[np.bool_], moves: Moves
) -> PreparedWindow:
    smooth = np.stack([filled_smoothly(one, hole) for one, hole in zip(given, rest, strict=True)])
    return PreparedWindow(
        truth,
        smooth,
        rest,
        copied,
        _half(moves.forward),
        _half(moves.backward),
        moves.valid_forward,
        moves.valid_backward,
    )


def _half(flow: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = float(np.finfo(np.float16).max)
    return np.clip(flow, -largest, largest).astype(np.float16)
