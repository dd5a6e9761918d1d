"""Following of given objects through a video, without classes and without a trained network.

An object given on one frame is carried to the next along the optical flow, where it can be trusted, and drawn anew by
what it looks like beside what is around it, and by how it moves against the background. Memory does not grow with the
length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.data.clips import resized
from tenfold.errors import ShapeError, UsageError, require
from tenfold.video.appearance import Appearance, Values, pixel_features
from tenfold.video.camera import camera_flow
from tenfold.video.edges import drawn_to_edges
from tenfold.video.flow import DisFlow, Flow, FlowEstimator, Frame, consistent, grid
from tenfold.video.given import Given, Mask, at_size, check_given, mask_of

MOST_OBJECTS = 100
_LEAST_PIXELS = 20
_CLIP = 0.03


@dataclass(frozen=True, kw_only=True)
class FollowOptions:
    """How objects are followed.

    Args:
        longest_side: the larger side, in pixels, at which all is computed; larger frames are shrunk for that, and masks
            enlarged again.
    """

    longest_side: int = 432

    def __post_init__(self) -> None:
        if not 32 <= self.longest_side <= 4096:
            raise UsageError(f"longest_side is {self.longest_side}; allowed is 32 to 4096.")


def working_size(size: tuple[int, int], options: FollowOptions) -> tuple[int, int]:
    """The (height, width) at which frames of a size are looked at."""
    scale = min(1.0, options.longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@dataclass(frozen=True, eq=False)
class _Step:
    """From the frame before to this one, as all objects need it; at working size."""

    frame: Frame
    features: Values
    back: Flow
    """To the frame before."""
    trusted: Mask


class _Followed:
    """One object.

    Args:
        soft: 1 = object, 0 = not, float32 (H, W).
        frame: where it is so.
        features: of that frame.
    """

    def __init__(self, soft: Values, features: Values) -> None:
        self.soft = soft
        self._looks = Appearance()
        self._learn(features)

    def advance(self, step: _Step) -> None:
        cv2 = require("cv2", "video")
        place = grid(self.soft.shape) + step.back
        carried = cv2.remap(self.soft, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        mask = carried > 0.5
        self.soft = np.zeros_like(self.soft)
        area = int(mask.sum())
        if area < _LEAST_PIXELS:
            return
        band = max(int(0.2 * area**0.5), 8)
        near = _window(mask, band + 4)
        inside = _signed_distance(mask[near])
        likely = np.clip(carried[near], _CLIP, 1 - _CLIP)
        logit = np.log(likely / (1 - likely)) * np.where(step.trusted[near], 1, 0.2)
        scores = self._looks.scores(step.features[near].reshape(-1, step.features.shape[2])).reshape(inside.shape)
        logit += 2.5 * np.clip(scores, -1.5, 1.5) + 0.1 * np.clip(inside, -10, 10)
        logit += _motion_evidence(step, mask)[near]
        soft = (1 / (1 + np.exp(-logit))).astype(np.float32)
        soft[inside < -band] = 0
        soft = _without_specks(drawn_to_edges(soft, step.frame[near]))
        seen = scores[soft > 0.5]
        if not len(seen) or seen.mean() < 0:
            return  # what is there now looks like what was around the object
        self.soft[near] = np.clip((soft - 0.5) * 3 + 0.5, 0, 1)
        if np.count_nonzero(self.soft > 0.5) >= _LEAST_PIXELS:
            self._learn(step.features)

    def _learn(self, features: Values) -> None:
        mask = self.soft > 0.5
        near = _window(mask, max(int(0.5 * mask.sum() ** 0.5), 20))
        certain = np.clip(np.abs(_signed_distance(mask[near])) / 3, 0.2, 1) * np.abs(2 * self.soft[near] - 1)
        self._looks.learn(
            features[near].reshape(-1, features.shape[2]),
            mask[near].reshape(-1),
            certain.reshape(-1).astype(np.float32),
        )


class FollowSession:
    """Follows objects while a video streams through.

    Args:
        options: how to follow; those of the class by default.
        estimator: finds the optical flow; DIS by default.

    Example:
        >>> session = FollowSession()
        >>> frame = np.zeros((64, 96, 3), np.uint8)
        >>> masks = session.step(frame, [Given(box=(10, 10, 30, 20))])
        >>> sorted(masks)
        [1]
    """

    def __init__(self, options: FollowOptions | None = None, *, estimator: FlowEstimator | None = None) -> None:
        self.options = options or FollowOptions()
        self._estimator = estimator or DisFlow()
        self._objects: dict[int, _Followed] = {}
        self._size: tuple[int, int] | None = None
        self._before: Frame | None = None
        self._count = 0
        self._step: _Step | None = None

    def step(self, frame: Frame, given: Sequence[Given] = ()) -> dict[int, Mask]:
        """Take the next frame.

        Args:
            frame: uint8 (H, W, 3), RGB; all of one size.
            given: objects to be followed from this frame on. One whose id is known already is corrected. (The frame
                numbers that they name do not matter here.)

        Returns:
            What each object covers, bool (H, W), by its id; empty masks for those that are not seen.

        Raises:
            ShapeError: if the frame or a mask has another size.
            UsageError: if an object lies outside the frame, or there are too many.
            MissingExtraError: if OpenCV is not installed.
        """
        size = self._check(frame)
        small = resized(frame, working_size(size, self.options))
        self._step = self._move_on(small)
        for one in self._objects.values():
            one.advance(self._step)
        for new in given:
            self._add(new, frame)
        self._keep_apart()
        self._before = small
        self._count += 1
        return {name: self._full(one.soft, size) for name, one in self._objects.items()}

    def _move_on(self, small: Frame) -> _Step:
        if self._before is None:
            return _Step(small, pixel_features(small), np.zeros((2, *small.shape[:2]), np.float32), _all(small))
        forward, back = self._estimator(self._before, small), self._estimator(small, self._before)
        return _Step(small, pixel_features(small), back, consistent(back, forward))

    def _add(self, given: Given, frame: Frame) -> None:
        assert self._step is not None
        name = given.id if given.id is not None else max(self._objects, default=0) + 1
        if name not in self._objects and len(self._objects) >= MOST_OBJECTS:
            raise UsageError(f"more than {MOST_OBJECTS} objects are not followed at a time.")
        step = self._step
        small = at_size(given, step.trusted.shape, (frame.shape[0], frame.shape[1]))
        motion = None
        if small.click is not None and self._before is not None:
            motion = step.back - camera_flow(step.back, step.trusted)
        self._objects[name] = _Followed(mask_of(small, step.frame, motion).astype(np.float32), step.features)

    def _keep_apart(self) -> None:
        """A pixel belongs to one object: that which claims it most."""
        if len(self._objects) > 1:
            claims = np.stack([one.soft for one in self._objects.values()])
            most = claims.argmax(0)
            for at, one in enumerate(self._objects.values()):
                one.soft = np.where(most == at, one.soft, np.minimum(one.soft, 0.4)).astype(np.float32)

    def _check(self, frame: Frame) -> tuple[int, int]:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise ShapeError(f"frame {self._count} is {frame.dtype} {frame.shape}; needed is uint8 (H, W, 3).")
        size = (frame.shape[0], frame.shape[1])
        if self._size not in {None, size}:
            raise ShapeError(f"frame {self._count} has the size {size}, but those before {self._size}.")
        self._size = size
        return size

    @staticmethod
    def _full(soft: Values, size: tuple[int, int]) -> Mask:
        cv2 = require("cv2", "video")
        full = cv2.resize(soft, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) if soft.shape != size else soft
        mask: Mask = full > 0.5
        return mask


def follow(
    frames: Iterable[Frame],
    given: Sequence[Given],
    options: FollowOptions | None = None,
    *,
    estimator: FlowEstimator | None = None,
) -> Iterator[dict[int, Mask]]:
    """Follow objects from the frames on that they are given on, with bounded memory.

    Args:
        frames: uint8 (H, W, 3), RGB.
        given: the objects.
        options: see FollowOptions.
        estimator: see FollowSession.

    Yields:
        For each frame what each object covers, bool (H, W), by its id.

    Raises:
        ShapeError: if a frame or mask does not fit the first frame.
        UsageError: if an object lies outside the frame, or on a frame that the video does not have.
    """
    session = FollowSession(options, estimator=estimator)
    count = 0
    for frame in frames:
        yield session.step(frame, [one for one in given if one.frame == count])
        count += 1
    check_given(given, count)


def _motion_evidence(step: _Step, mask: Mask) -> Values:
    """How much better the motion of the object near by explains each pixel than the camera's, as a logit, (H, W)."""
    cv2 = require("cv2", "video")
    around = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    against = step.back - camera_flow(step.back, ~around & step.trusted)
    sure = cv2.erode((mask & step.trusted).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    spread = max(0.15 * float(np.sqrt(mask.sum())), 4.0)
    weight = cv2.GaussianBlur(sure, (0, 0), spread) + 1e-4
    own = np.stack([cv2.GaussianBlur(one * sure, (0, 0), spread) / weight for one in against])
    as_background, as_object = (against**2).sum(0), ((against - own) ** 2).sum(0)
    evidence: Values = np.clip((as_background - as_object) / (4.5 * (1 + 0.05 * (own**2).sum(0))), -2, 2)
    return evidence * np.where(step.trusted, 1, 0.3).astype(np.float32)


def _without_specks(soft: Values) -> Values:
    """Pieces much smaller than the largest fade."""
    cv2 = require("cv2", "video")
    count, pieces, facts, _ = cv2.connectedComponentsWithStats((soft > 0.5).astype(np.uint8), connectivity=8)
    areas = facts[:, cv2.CC_STAT_AREA]
    small = [at for at in range(1, count) if areas[at] < 0.03 * areas[1:].max()]
    return np.where(np.isin(pieces, small), np.minimum(soft, 0.3), soft) if small else soft


def _signed_distance(mask: Mask) -> Values:
    """Pixels to the mask's boundary, positive inside, (H, W)."""
    cv2 = require("cv2", "video")
    inner, outer = (cv2.distanceTransform(one.astype(np.uint8), cv2.DIST_L2, 5) for one in (mask, ~mask))
    distance: Values = inner - outer
    return distance


def _window(mask: Mask, margin: int) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def _all(frame: Frame) -> Mask:
    return np.ones(frame.shape[:2], np.bool_)
