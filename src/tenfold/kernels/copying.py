"""Colours copied from other frames: the native function on arrays.

The twin in numpy is in `tenfold.video.propagation`, which asks `serves` first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tenfold.kernels.library import native, required

_Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def serves() -> bool:
    """Whether there is a native kernel."""
    return native() is not None


def add_colours(
    frames: NDArray[np.int64],
    place: NDArray[np.float32],
    share: NDArray[np.float32],
    pictures: Mapping[int, _Picture],
    total: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Add what points of frames show, times their shares, and the shares of those that show anything.

    Args:
        frames: number of the frame that each point lies in, less than 0 for none, (N,).
        place: positions (x, y), (2, N); outside they are moved to the border.
        share: (N,).
        pictures: frames, uint8 (H, W, 3), with their holes, bool (H, W), by number; all of one size.
        total: colours in 0..255, (N, 3); added to.
        weight: (N,); added to.

    Raises:
        KeyError: if a point lies in a frame that is not among the pictures.
    """
    first, last = min(pictures, default=0), max(pictures, default=-1)
    shown = {number: tuple(map(np.ascontiguousarray, pair)) for number, pair in pictures.items()}
    tables = [
        (ctypes.c_void_p * (last - first + 1))(
            *(shown[number][part].ctypes.data if number in shown else None for number in range(first, last + 1))
        )
        for part in (0, 1)
    ]
    height, width = next((hole.shape for _, hole in shown.values()), (0, 0))
    given = [np.ascontiguousarray(frames, np.int64)]
    given += [np.ascontiguousarray(one, np.float32) for one in (*place, share)]
    missing = required().copy_colours(
        *(one.ctypes.data for one in given),
        len(frames),
        *tables,
        first,
        last - first + 1,
        height,
        width,
        total.ctypes.data,
        weight.ctypes.data,
    )
    if missing:
        raise KeyError(f"{missing} points lie in frames that are not among the pictures {first} to {last}.")
