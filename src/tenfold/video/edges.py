"""Soft masks drawn to the edges of the picture: the guided filter in colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import require
from tenfold.video.flow import Frame

Values = NDArray[np.float32]


def drawn_to_edges(soft: Values, frame: Frame, radius: int = 4, epsilon: float = 1e-3) -> Values:
    """A soft mask that follows the edges of a frame.

    Source: He, Sun, Tang, Guided Image Filtering, ECCV 2010, equations 14 to 16.

    Args:
        soft: 0..1, (H, W).
        frame: uint8 (H, W, 3).
        radius: of the windows in pixels.
        epsilon: variance of colours, in 0..1, below which nothing counts as an edge.

    Returns:
        0..1, (H, W).

    Raises:
        MissingExtraError: if OpenCV is not installed.
    """
    cv2 = require("cv2", "video")

    def mean(values: Values) -> Values:
        averaged: Values = cv2.boxFilter(values, -1, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)
        return averaged

    guide: Any = frame.astype(np.float32) / np.float32(255)
    centre, level = mean(guide), mean(soft)
    shared = mean(guide * soft[..., None]) - centre * level[..., None]
    a, b, c, d, e, f = (
        mean(guide[..., i] * guide[..., j]) - centre[..., i] * centre[..., j] + np.float32(epsilon * (i == j))
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    )
    # The inverse of the symmetric matrix [[a b c] [b d e] [c e f]], by its cofactors.
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    cofactors = ((first, second, third), (second, a * f - c * c, b * c - a * e), (third, b * c - a * e, a * d - b * b))
    determinant = a * first + b * second + c * third
    slope = np.stack(
        [sum(one * shared[..., at] for at, one in enumerate(row)) / determinant for row in cofactors], axis=2
    )
    offset = level - (slope * centre).sum(2)
    drawn: Values = np.clip((mean(slope) * guide).sum(2) + mean(offset), 0, 1).astype(np.float32)
    return drawn
