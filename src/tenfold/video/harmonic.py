"""The smoothest filling of a hole: the solution of Laplace's equation with the hole's rim as boundary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import ShapeError
from tenfold.kernels.harmonic import MOST_STEPS, harmonic
from tenfold.kernels.library import native


def filled_smoothly(frame: NDArray[np.uint8], hole: NDArray[np.bool_], tolerance: float = 0.5) -> NDArray[np.uint8]:
    """A frame (H, W, 3) with its hole, bool (H, W), filled as smoothly as can be.

    Args:
        frame: RGB.
        hole: True = fill.
        tolerance: of `harmonic_fill`, in grey levels.
    """
    filled = harmonic_fill(np.moveaxis(frame, -1, 0).astype(np.float32), hole, tolerance)
    return np.ascontiguousarray(np.moveaxis(np.clip(np.rint(filled), 0, 255), 0, -1).astype(np.uint8))


def harmonic_fill(values: NDArray[np.float32], hole: NDArray[np.bool_], tolerance: float = 1e-3) -> NDArray[np.float32]:
    """Fill a hole so that each pixel in it is the mean of its neighbours.

    It completes optical flow inside holes (FGVC, arXiv 2009.01835, without its edge network), and fills colours that
    were never seen. Pixels at the border of the image have fewer neighbours. Solved from coarse to fine: the solution
    at half the size is where the conjugate gradients begin (Bornemann and Deuflhard 1996, the cascadic method).

    Args:
        values: (C, H, W); what stands in the hole does not matter, not even NaN.
        hole: where to fill, (H, W).
        tolerance: largest residual, in units of the values.

    Returns:
        (C, H, W), unchanged outside the hole; 0 everywhere if nothing is known.

    Raises:
        ShapeError: if the sizes differ.
    """
    if values.ndim != 3 or values.shape[1:] != hole.shape:
        raise ShapeError(f"values have the shape {values.shape} and the hole {hole.shape}; needed: (C, H, W), (H, W).")
    if not hole.any():
        return values
    if hole.all():
        return np.zeros_like(values)
    filled = values.copy()
    rows, columns = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
    # One known pixel around the hole, where there is one, is all that the solution hangs on.
    box = tuple(slice(max(0, one[0] - 1), one[-1] + 2) for one in (rows, columns))
    part = np.where(hole[box], np.float32(0), values[:, box[0], box[1]])
    filled[:, box[0], box[1]] = (harmonic if native() else _solve)(part, hole[box], tolerance)
    return filled


def _solve(values: NDArray[np.float32], hole: NDArray[np.bool_], tolerance: float) -> NDArray[np.float32]:
    """Values (C, H, W), 0 in the hole, with the hole filled."""
    height, width = hole.shape
    row, column = np.nonzero(hole)
    # With a border of zeros every pixel has four neighbours, and those beyond the image add nothing.
    place = (row + 1) * (width + 2) + column + 1
    sides = [place + step for step in (-1, 1, -width - 2, width + 2)]
    padded = np.zeros((len(values), height + 2, width + 2), np.float32)
    padded[:, 1:-1, 1:-1] = values
    flat = padded.reshape(len(values), -1)
    inside = np.zeros((height + 2, width + 2), np.float32)
    inside[1:-1, 1:-1] = 1
    degree = sum(inside.take(side) for side in sides)
    known = sum(flat.take(side, 1) for side in sides)  # what the known neighbours add up to, (C, N)
    number = np.full(flat.shape[1], len(place))  # the last stands for all that is not unknown
    number[place] = np.arange(len(place))
    links = [number.take(side) for side in sides]
    start = _start(values, hole, tolerance)[:, row, column].astype(np.float32)
    filled = values.copy()
    filled[:, row, column] = _conjugate_gradients(links, degree, known, start, tolerance)
    return filled


def _start(values: NDArray[np.float32], hole: NDArray[np.bool_], tolerance: float) -> NDArray[np.float32]:
    """A first guess from half the size, (C, H, W)."""
    height, width = hole.shape
    if min(height, width) < 4:
        return np.broadcast_to(values.sum((1, 2), keepdims=True) / max(1, (~hole).sum()), values.shape)
    spare = ((0, height % 2), (0, width % 2))
    known = np.pad(~hole, spare, constant_values=False)
    padded = np.pad(values, ((0, 0), *spare))
    count = known.reshape(known.shape[0] // 2, 2, -1, 2).sum((1, 3))
    total = padded.reshape(len(values), known.shape[0] // 2, 2, -1, 2).sum((2, 4))
    coarse = (total / np.maximum(count, 1)).astype(np.float32)
    coarse_hole = count == 0
    if coarse_hole.any() and not coarse_hole.all():
        coarse = _solve(coarse, coarse_hole, tolerance)
    return _doubled(_doubled(coarse, 1), 2)[:, :height, :width]


def _doubled(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Twice as many values along an axis, linearly between their centres."""
    last = values.shape[axis] - 1
    near = np.arange(2 * (last + 1)) // 2
    far = np.clip(near + np.where(np.arange(len(near)) % 2, 1, -1), 0, last)
    doubled: NDArray[np.float32] = np.float32(0.75) * values.take(near, axis) + np.float32(0.25) * values.take(
        far, axis
    )
    return doubled


def _conjugate_gradients(
    links: Sequence[NDArray[np.int64]],
    degree: NDArray[np.float32],
    known: NDArray[np.float32],
    solution: NDArray[np.float32],
    tolerance: float,
) -> NDArray[np.float32]:
    """Solve degree * u - sum of linked u = known for all channels (C, N) side by side, preconditioned by the degree."""
    padded = np.zeros((len(known), known.shape[1] + 1), known.dtype)

    def applied(direction: NDArray[np.float32]) -> NDArray[np.float32]:
        padded[:, :-1] = direction
        product: NDArray[np.float32] = degree * direction
        for side in links:
            product -= padded.take(side, 1)
        return product

    current = solution
    residual = known - applied(current)
    scaled = residual / degree
    direction, energy = scaled.copy(), (residual * scaled).sum(1)
    for _ in range(MOST_STEPS):
        if np.abs(residual).max() <= tolerance:
            break
        product = applied(direction)
        step = energy / np.maximum((direction * product).sum(1), 1e-30)
        current += step[:, None] * direction
        residual -= step[:, None] * product
        scaled = residual / degree
        before, energy = energy, (residual * scaled).sum(1)
        direction = scaled + (energy / np.maximum(before, 1e-30))[:, None] * direction
    return current
