"""The smoothest filling of a hole: the native function on arrays.

The twin in numpy is in `tenfold.video.harmonic`, which asks `serves` first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.kernels.library import native, required


def serves() -> bool:
    """Whether there is a native kernel."""
    return native() is not None


def harmonic(
    values: NDArray[np.float32], hole: NDArray[np.bool_], tolerance: float, most_steps: int
) -> NDArray[np.float32]:
    """A hole filled so that each pixel in it is the mean of its neighbours.

    Args:
        values: (C, H, W), finite in the hole.
        hole: where to fill, (H, W); not everywhere.
        tolerance: largest residual, in units of the values.
        most_steps: of the conjugate gradients, at each size.

    Returns:
        (C, H, W).

    Raises:
        MemoryError: if there is none.
    """
    library = required()
    filled = np.array(values, np.float32, order="C")
    mask = np.ascontiguousarray(hole)
    if library.harmonic(filled.ctypes.data, mask.ctypes.data, *filled.shape, tolerance, most_steps):
        raise MemoryError(f"no memory to fill a hole in an image of {hole.shape[0]} x {hole.shape[1]} pixels.")
    return filled
