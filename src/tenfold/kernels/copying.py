"""Colours copied from other frames: the native function on arrays.

The twin in numpy is in `tenfold.video.propagation`, which asks `native` first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tenfold.kernels.library import required

_Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]
Points = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
"""Numbers of frames (N,), positions in them (2, N), and shares (N,)."""


def add_colours(
    directions: Sequence[Points],
    pictures: Mapping[int, _Picture],
    total: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Add what points of frames show, times their shares, and the shares of those that show anything.

    Args:
        directions: one after another the same points as they lie in other frames: the number of the frame, less than 0
            for none, (N,); the position (x, y) in it, (2, N), outside moved to the border; and the share, (N,).
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
    for frames, place, share in directions:
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
