"""How well the mask of a followed object fits the true one: region J and boundary F, as the DAVIS benchmark has them.

Source: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016,
section 4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import ShapeError, UsageError, require

Mask = NDArray[np.bool_]
BOUNDARY_TOLERANCE = 0.008
"""How far apart two boundaries may be and still agree, as a share of the frame's diagonal."""


def region_similarity(found: Mask, true: Mask) -> float:
    """J: intersection over union of two masks, 0..1; 1 where both are empty.

    Args:
        found: bool (H, W).
        true: bool (H, W).

    Raises:
        ShapeError: if they are not bool (H, W) of one size.
    """
    _check(found, true)
    union = np.count_nonzero(found | true)
    return float(np.count_nonzero(found & true) / union) if union else 1.0


def boundary_accuracy(found: Mask, true: Mask, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F: harmonic mean of precision and recall of the boundary's pixels, 0..1; 1 where both masks are empty.

    A pixel of one boundary is right if one of the other lies within the tolerance. (The benchmark's program calls this
    the approximation of matching the pixels one by one.)

    Args:
        found: bool (H, W).
        true: bool (H, W).
        tolerance: below 1 a share of the frame's diagonal, rounded up to pixels; from 1 on pixels.

    Raises:
        ShapeError: if they are not bool (H, W) of one size.
        UsageError: if the tolerance is not above 0.
        MissingExtraError: if scipy is not installed.
    """
    _check(found, true)
    if not tolerance > 0:
        raise UsageError(f"a tolerance of {tolerance:g} is not allowed; it is above 0.")
    pixels = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*true.shape))
    edges = boundary(found), boundary(true)
    if not edges[0].any() or not edges[1].any():
        return float(edges[0].any() == edges[1].any())
    distance = require("scipy.ndimage", "video").distance_transform_edt
    precision, recall = (float((distance(~other)[edge] <= pixels).mean()) for edge, other in (edges, edges[::-1]))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> Mask:
    """The pixels that differ from their neighbour to the right, below, or right below, bool (H, W).

    The frame's edge is no boundary.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), "edge")
    edge: Mask = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
    return edge


def _check(found: Mask, true: Mask) -> None:
    for mask in (found, true):
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise ShapeError(f"a mask is {mask.dtype} {mask.shape}; needed is bool (H, W).")
    if found.shape != true.shape:
        raise ShapeError(f"the masks have the shapes {found.shape} and {true.shape}; they must be the same.")
