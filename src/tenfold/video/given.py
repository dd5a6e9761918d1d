"""Objects given on one frame, by a mask, a box or a click; and the mask that a box or a click stands for.

No trained network is needed: GrabCut (Rother, Kolmogorov, Blake 2004) separates the colours of the object from those
around it, and where the object moves unlike the background, its motion says how far it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.errors import ShapeError, UsageError, require
from tenfold.video.flow import Frame

Mask = NDArray[np.bool_]

_ROUNDS = 5
_LEAST_SHARE = 0.05
"""Of its box an object fills at least this; where less is found, the box's ellipse is taken."""
_SEED, _REACH, _CLICK_SIZE = 0.015, 0.3, 0.12
"""Around a click, as shares of the frame's diagonal: surely the object, at most the object, and its likely radius."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """An object as someone points at it on one frame; just one of mask, box and click.

    Args:
        mask: bool (H, W), True = the object.
        box: (x, y, width, height) in pixels of the frame; may reach beyond it.
        click: (x, y) of a pixel on the object.
        frame: number of the frame, from 0.
        id: what the object is called, from 1; None takes the next free number.

    Raises:
        UsageError: if not exactly one of mask, box and click is given, or a number is not allowed.
        ShapeError: if the mask is not bool (H, W).
    """

    mask: Mask | None = None
    box: tuple[float, float, float, float] | None = None
    click: tuple[float, float] | None = None
    frame: int = 0
    id: int | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.mask, self.box, self.click)) != 1:
            raise UsageError("an object is given by just one of a mask, a box and a click.")
        if self.mask is not None and (self.mask.ndim != 2 or self.mask.dtype != np.bool_):
            raise ShapeError(f"a mask is {self.mask.dtype} {self.mask.shape}; needed is bool (H, W).")
        numbers = self.box or self.click or ()
        if not all(math.isfinite(number) for number in numbers) or (self.box and min(self.box[2:]) <= 0):
            raise UsageError(f"{numbers} is no place; needed are finite numbers, with a width and height above 0.")
        if self.frame < 0:
            raise UsageError(f"an object is given on frame {self.frame}; frames are counted from 0.")
        if self.id is not None and self.id < 1:
            raise UsageError(f"an object is called {self.id}; allowed are numbers from 1.")


def at_size(given: Given, size: tuple[int, int], frame_size: tuple[int, int] | None = None) -> Given:
    """The same object for frames of another size.

    Args:
        given: the object.
        size: (height, width) wanted.
        frame_size: that of the frames it is given for; a mask knows it.

    Raises:
        ShapeError: if a mask has another size than the frames.
        UsageError: if the mask is empty, or the object lies outside the frame.
    """
    if given.mask is not None:
        frame_size = frame_size or given.mask.shape
    assert frame_size is not None
    _check_inside(given, frame_size)
    if frame_size == size:
        return given
    down, across = size[0] / frame_size[0], size[1] / frame_size[1]
    if given.box is not None:
        x, y, width, height = given.box
        return replace(given, box=(x * across, y * down, width * across, height * down))
    if given.click is not None:
        return replace(given, click=(given.click[0] * across, given.click[1] * down))
    assert given.mask is not None
    part = require("cv2", "video").resize(
        given.mask.astype(np.float32), (size[1], size[0]), interpolation=require("cv2", "video").INTER_AREA
    )
    return replace(given, mask=part > 0.5 if (part > 0.5).any() else part > 0)


def enlarged(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size (height, width), with a smooth outline."""
    if mask.shape == size:
        return mask
    soft = Image.fromarray(mask.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(soft) > 0.5


def check_given(given: Sequence[Given], frames: int) -> None:
    """Refuse objects on frames that a video does not have.

    Raises:
        UsageError: if there is one.
    """
    late = max((one.frame for one in given), default=-1)
    if late >= frames:
        raise UsageError(f"an object is given on frame {late}, but the video has {frames} frames, counted from 0.")


def _check_inside(given: Given, size: tuple[int, ...]) -> None:
    height, width = size
    if given.mask is not None:
        if given.mask.shape != (height, width):
            raise ShapeError(f"the mask has the size {given.mask.shape}, but the frame {(height, width)}.")
        if not given.mask.any():
            raise UsageError("the mask is empty; it must mark at least one pixel of the object.")
    elif given.box is not None:
        x, y, across, down = given.box
        if x >= width or y >= height or x + across <= 0 or y + down <= 0:
            raise UsageError(f"the box {given.box} lies outside the frame of {width} x {height} pixels.")
    elif given.click is not None and not (0 <= given.click[0] < width and 0 <= given.click[1] < height):
        raise UsageError(f"the click {given.click} lies outside the frame of {width} x {height} pixels.")


def mask_of(given: Given, frame: Frame, motion: NDArray[np.float32] | None = None) -> Mask:
    """What an object covers on the frame that it is given on.

    Args:
        given: the object.
        frame: uint8 (H, W, 3), RGB.
        motion: how pixels move against the background, (2, H, W), where it is known; a click needs it most.

    Returns:
        bool (H, W); a given mask as it is.

    Raises:
        ShapeError: if a mask has another size than the frame.
        UsageError: if the object lies outside the frame.
        MissingExtraError: if OpenCV is not installed.
    """
    height, width = frame.shape[:2]
    _check_inside(given, (height, width))
    if given.mask is not None:
        return given.mask
    if given.box is not None:
        x, y, across, down = given.box
        left, top = max(0, math.floor(x)), max(0, math.floor(y))
        return _in_box(frame, left, top, min(width, math.ceil(x + across)), min(height, math.ceil(y + down)))
    assert given.click is not None
    return _around_click(frame, int(given.click[0]), int(given.click[1]), motion)


def _in_box(frame: Frame, left: int, top: int, right: int, bottom: int) -> Mask:
    cv2 = require("cv2", "video")
    rows, columns = np.ogrid[: frame.shape[0], : frame.shape[1]]
    across, down = right - left, bottom - top
    inside = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    ellipse: Mask = (
        ((columns + 0.5 - left - across / 2) / (across / 2)) ** 2 + ((rows + 0.5 - top - down / 2) / (down / 2)) ** 2
    ) <= 1
    state = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    margin = max(8, across // 2), max(8, down // 2)
    window = (
        slice(max(0, top - margin[1]), bottom + margin[1]),
        slice(max(0, left - margin[0]), right + margin[0]),
    )
    found = grab_cut(frame, state, window) & inside
    return found if found.sum() >= _LEAST_SHARE * across * down else ellipse & inside


def _around_click(frame: Frame, x: int, y: int, motion: NDArray[np.float32] | None) -> Mask:
    cv2 = require("cv2", "video")
    height, width = frame.shape[:2]
    diagonal = math.hypot(height, width)
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(columns - x, rows - y)
    seed = distance <= max(1.0, _SEED * diagonal)
    likely = distance <= _CLICK_SIZE * diagonal
    reach = distance <= _REACH * diagonal
    if motion is not None:
        here = np.median(motion[:, seed], 1)
        if np.hypot(*here) > 1:
            alike = np.hypot(*(motion - here[:, None, None])) < 0.5 * np.hypot(*here)
            likely = _piece_at(alike | seed, x, y) & reach
            around = np.ones((2 * max(2, round(_SEED * diagonal)) + 1,) * 2, np.uint8)
            seed = seed | (cv2.erode(likely.astype(np.uint8), around) > 0)
            reach = cv2.dilate(likely.astype(np.uint8), around) > 0
    state = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    state[likely] = cv2.GC_PR_FGD
    state[~reach] = cv2.GC_BGD
    state[seed] = cv2.GC_FGD
    return _piece_at(grab_cut(frame, state) | seed, x, y)


def grab_cut(frame: Frame, state: NDArray[np.uint8], window: tuple[slice, ...] = (slice(None),) * 2) -> Mask:
    """What GrabCut takes for the object.

    Args:
        frame: uint8 (H, W, 3), RGB.
        state: OpenCV's GC_BGD, GC_FGD, GC_PR_BGD and GC_PR_FGD of each pixel, uint8 (H, W).
        window: the part of the frame that is looked at.

    Returns:
        bool (H, W), False outside the window.
    """
    cv2 = require("cv2", "video")
    found = np.zeros(state.shape, np.bool_)
    part = np.ascontiguousarray(state[window])
    surely = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    if surely.all() or not surely.any():
        found[window] = surely  # there is nothing to tell it from
        return found
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    colours = np.ascontiguousarray(frame[window][..., ::-1])
    part, *_ = cv2.grabCut(colours, part, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found[window] = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    return found


def _piece_at(mask: Mask, x: int, y: int) -> Mask:
    """The connected piece of a mask that holds a pixel."""
    cv2 = require("cv2", "video")
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    piece: Mask = (pieces == pieces[y, x]) & mask
    return piece
