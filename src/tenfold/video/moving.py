"""The largest thing that moves by itself: what the camera's motion does not explain, over several frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.data.clips import resized
from tenfold.errors import UsageError, require
from tenfold.video.camera import camera_flow
from tenfold.video.flow import DisFlow, FlowEstimator, Frame, consistent, grid
from tenfold.video.given import Mask, grab_cut

_MEMORY = 0.75
_LEAST_FRAMES = 5
_LEAST_SPEED, _SPEED_RATIO = 0.8, 4.0
"""In pixels a frame at working size, and in units of what is usual in the frame."""
_LEAST_SHARE, _MOST_SHARE = 0.002, 0.6
_LIKELY, _SURE = 0.4, 0.75


class MovingDetector:
    """Looks for the largest moving object, frame by frame, with the memory of one frame.

    Each frame's flow is compared with that of a homography fitted to it; what differs is carried along the flow and
    counts only if it goes on for several frames.

    Args:
        longest_side: the larger side, in pixels, at which motion is estimated.
        estimator: finds the optical flow; DIS by default.
    """

    def __init__(self, longest_side: int = 432, estimator: FlowEstimator | None = None) -> None:
        if not 32 <= longest_side <= 4096:
            raise UsageError(f"longest_side is {longest_side}; allowed is 32 to 4096.")
        self._longest_side = longest_side
        self._estimator = estimator or DisFlow()
        self._before: Frame | None = None
        self._evidence: NDArray[np.float32] | None = None
        self._count = 0

    def step(self, frame: Frame) -> Mask | None:
        """Take the next frame.

        Args:
            frame: uint8 (H, W, 3), RGB; all of one size.

        Returns:
            What the object covers on this frame, bool (H, W); None while nothing is sure.

        Raises:
            MissingExtraError: if OpenCV is not installed.
        """
        cv2 = require("cv2", "video")
        height, width = frame.shape[:2]
        scale = min(1.0, self._longest_side / max(height, width))
        small = resized(frame, (max(1, round(height * scale)), max(1, round(width * scale))))
        before, self._before = self._before, small
        if before is None:
            return None
        evidence = self._gathered(before, small)
        self._count += 1
        if self._count < _LEAST_FRAMES:
            return None
        piece = _largest(evidence > _LIKELY)
        if not _LEAST_SHARE * piece.size <= piece.sum() <= _MOST_SHARE * piece.size:
            return None
        mask = _largest(_cut_out(small, piece, evidence))
        if mask.sum() < _LEAST_SHARE * mask.size:
            return None
        full = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        return np.asarray(full, np.bool_)

    def _gathered(self, before: Frame, small: Frame) -> NDArray[np.float32]:
        """How surely each pixel has moved by itself for some frames, 0..1."""
        cv2 = require("cv2", "video")
        forward, back = self._estimator(before, small), self._estimator(small, before)
        trusted = consistent(back, forward)
        speed = np.hypot(*(back - camera_flow(back, trusted)))
        usual = float(np.median(speed[trusted])) if trusted.any() else 0.0
        least = max(_LEAST_SPEED, _SPEED_RATIO * usual)
        now = np.where(trusted, np.clip(speed / least - 0.5, 0, 1), 0.5 * np.clip(speed / least - 0.5, 0, 1))
        if self._evidence is None:
            self._evidence = np.zeros(speed.shape, np.float32)
        carried = cv2.remap(self._evidence, *(grid(speed.shape) + back), cv2.INTER_LINEAR)
        gathered: NDArray[np.float32] = (_MEMORY * carried + (1 - _MEMORY) * now).astype(np.float32)
        self._evidence = gathered
        return gathered


def _cut_out(small: Frame, piece: Mask, evidence: NDArray[np.float32]) -> Mask:
    """The piece drawn to the edges of colours."""
    cv2 = require("cv2", "video")
    reach = max(3, round(0.08 * float(piece.sum()) ** 0.5))
    around = np.ones((2 * reach + 1,) * 2, np.uint8)
    state = np.full(piece.shape, cv2.GC_PR_BGD, np.uint8)
    state[piece] = cv2.GC_PR_FGD
    state[piece & (evidence > _SURE) & (cv2.erode(piece.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)] = cv2.GC_FGD
    state[cv2.dilate(piece.astype(np.uint8), around) == 0] = cv2.GC_BGD
    return grab_cut(small, state)


def _largest(mask: Mask) -> Mask:
    """The largest connected piece."""
    cv2 = require("cv2", "video")
    count, pieces, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return np.zeros_like(mask)
    largest: Mask = pieces == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
    return largest
