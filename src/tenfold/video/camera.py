"""The camera's motion: what the flow of the background alone would be, and what moves against it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import require
from tenfold.video.flow import Flow, grid

_STEP = 6
_LEAST_POINTS = 40
_TOLERANCE = 1.5


def camera_flow(flow: Flow, trusted: NDArray[np.bool_]) -> Flow:
    """The flow that a homography gives, fitted to a flow by RANSAC; zero where too few points can be trusted.

    Args:
        flow: (2, H, W).
        trusted: pixels that may belong to the background, bool (H, W).

    Returns:
        (2, H, W).

    Raises:
        MissingExtraError: if OpenCV is not installed.
    """
    cv2 = require("cv2", "video")
    height, width = trusted.shape
    rows, columns = (one.reshape(-1) for one in np.mgrid[_STEP // 2 : height : _STEP, _STEP // 2 : width : _STEP])
    used = trusted[rows, columns]
    rows, columns = rows[used], columns[used]
    if len(rows) < _LEAST_POINTS:
        return np.zeros_like(flow)
    start = np.stack([columns, rows], 1).astype(np.float32)
    cv2.setRNGSeed(0)
    matrix, _ = cv2.findHomography(start, start + flow[:, rows, columns].T, cv2.RANSAC, _TOLERANCE)
    if matrix is None:
        return np.zeros_like(flow)
    place = grid(trusted.shape)
    moved = cv2.perspectiveTransform(place.reshape(2, -1).T[:, None].copy(), matrix)[:, 0].T.reshape(flow.shape)
    fitted: Flow = (moved - place).astype(np.float32)
    bound = np.float32(4 * max(flow.shape))
    return np.clip(np.nan_to_num(fitted), -bound, bound)
