"""Copies made to meet the frame they are copied into: light differs between frames, and motion is never quite exact.

At the rim of a hole, where the true colour is known, the copy is continued by one pixel and compared with it. What it
is off by is continued smoothly into the hole and added: membrane interpolation, the seamless cloning of Farbman et al.
(2009), which in FGVC (arXiv 2009.01835) is a Poisson equation of gradients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.video.harmonic import harmonic_fill
from tenfold.video.propagation import Hole, Pictures, Sources, copied_colours

_MOST = 60.0
"""Grey levels; what is off by more is another surface, and not another light."""
_TOLERANCE = 1.0
_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def seam_correction(
    number: int, frame: NDArray[np.uint8], hole: Hole, before: Sources, after: Sources, pictures: Pictures
) -> NDArray[np.float32]:
    """What to add to the copies in a hole so that they meet what is around them.

    Args:
        number: of the frame.
        frame: uint8 (H, W, 3).
        hole: its hole.
        before: sources of the hole's pixels among earlier frames.
        after: sources among later frames.
        pictures: all frames that sources name.

    Returns:
        Grey levels, float32 (3, H, W); 0 where the hole's rim could not be compared.
    """
    height, width = hole.mask.shape
    total, count = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    for down, right in _STEPS:
        rows, columns = hole.rows + down, hole.columns + right
        inside = (rows >= 0) & (columns >= 0) & (rows < height) & (columns < width)
        at = np.flatnonzero(inside)
        at = at[~hole.mask[rows[at], columns[at]]]
        step = np.array([[right], [down]], np.float32)
        earlier, later = (Sources(one.frame[at], one.place[:, at] + step) for one in (before, after))
        colours, got = copied_colours(number, earlier, later, pictures)
        place = (rows[at[got]], columns[at[got]])
        np.add.at(total, place, np.clip(frame[place].astype(np.float32) - colours[got], -_MOST, _MOST))
        np.add.at(count, place, 1)
    off = np.moveaxis(total / np.maximum(count, 1)[..., None], -1, 0)
    return harmonic_fill(np.ascontiguousarray(off), hole.mask, _TOLERANCE)


def corrected(colours: NDArray[np.uint8], correction: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours (N, 3) with what is to be added to them (3, N)."""
    return np.rint(np.clip(colours + correction.T, 0, 255)).astype(np.uint8)
