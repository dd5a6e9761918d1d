"""The smoothest filling of a hole: the native function on arrays.

The twin in numpy is in `tenfold.video.harmonic`, which asks `native` first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.kernels.library import required

MOST_STEPS = 2000
"""Of the conjugate gradients, at each size."""


def harmonic(values: NDArray[np.float32], hole: NDArray[np.bool_], tolerance: float) -> NDArray[np.float32]:
    """A hole filled so that each pixel in it is the mean of its neighbours.

    Args:
        values: (C, H, W), finite in the hole.
        hole: where to fill, (H, W); not everywhere.
        tolerance: largest residual, in units of the values.

    Returns:
        (C, H, W).

    Raises:
        MemoryError: if there is none.
    """
    library = required()
    filled = np.array(values, np.float32, order="C")
    mask = np.ascontiguousarray(hole)
    if library.harmonic(filled.ctypes.data, mask.ctypes.data, *filled.shape, tolerance, MOST_STEPS):
        raise MemoryError(f"no memory to fill a hole in an image of {hole.shape[0]} x {hole.shape[1]} pixels.")
    return filled
