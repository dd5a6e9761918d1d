"""Following of given objects through a video, without classes and without a trained network.

An object given on one frame is carried to the next along the optical flow, where it can be trusted, and drawn anew by
what it looks like beside what is around it, and by how it moves against the background. Memory does not grow with the
length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tenfold.data.clips import resized
from tenfold.errors import ShapeError, UsageError, require
from tenfold.video.appearance import Values, pixel_features
from tenfold.video.camera import camera_flow
from tenfold.video.evidence import Step
from tenfold.video.flow import DisFlow, FlowEstimator, Frame, consistent
from tenfold.video.followed import Followed
from tenfold.video.given import Given, Mask, at_size, check_given, mask_of

MOST_OBJECTS = 100
_RIM = 9
"""Pixels; so far around an object the flow is not taken for the camera's."""


@dataclass(frozen=True, kw_only=True)
class FollowOptions:
    """How objects are followed.

    Args:
        longest_side: the larger side, in pixels, at which all is computed; larger frames are shrunk for that, and masks
            enlarged again.
    """

    longest_side: int = 320

    def __post_init__(self) -> None:
        if not 32 <= self.longest_side <= 4096:
            raise UsageError(f"longest_side is {self.longest_side}; allowed is 32 to 4096.")


def working_size(size: tuple[int, int], options: FollowOptions) -> tuple[int, int]:
    """The (height, width) at which frames of a size are looked at."""
    scale = min(1.0, options.longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


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
        self._objects: dict[int, Followed] = {}
        self._size: tuple[int, int] | None = None
        self._before: Frame | None = None
        self._count = 0
        self._step: Step | None = None

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
        for new in given:
            self._add(new, frame)
        self._keep_apart()
        self._before = small
        self._count += 1
        return {name: self._full(one.soft, size) for name, one in self._objects.items()}

    def _move_on(self, small: Frame) -> Step:
        """Take all objects along to a frame."""
        cv2 = require("cv2", "video")
        still, all_trusted = np.zeros((2, *small.shape[:2]), np.float32), np.ones(small.shape[:2], np.bool_)
        if self._before is None:
            return Step(small, small, pixel_features(small), still, all_trusted, still)
        forward, back = self._estimator(self._before, small), self._estimator(small, self._before)
        step = Step(self._before, small, pixel_features(small), back, consistent(back, forward), still)
        carried = {name: step.carried(one.soft) for name, one in self._objects.items()}
        background = step.trusted.copy()
        for soft in carried.values():
            background &= cv2.dilate((soft > 0.5).astype(np.uint8), np.ones((_RIM, _RIM), np.uint8)) == 0
        step = replace(step, camera=camera_flow(back, background))
        for name, one in self._objects.items():
            one.advance(step, carried[name])
        return step

    def _add(self, given: Given, frame: Frame) -> None:
        assert self._step is not None
        name = given.id if given.id is not None else max(self._objects, default=0) + 1
        if name not in self._objects and len(self._objects) >= MOST_OBJECTS:
            raise UsageError(f"more than {MOST_OBJECTS} objects are not followed at a time.")
        step = self._step
        small = at_size(given, step.trusted.shape, (frame.shape[0], frame.shape[1]))
        motion = None
        if small.click is not None and self._before is not None:
            motion = step.back - step.camera
        self._objects[name] = Followed(mask_of(small, step.frame, motion), step.features)

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


def follow_frames(
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
