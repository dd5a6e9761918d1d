"""What motion says about the pixels around an object, as logits: positive speaks for the object.

All is looked at in a window of the frame; a step from the frame before gives frames, flow and the camera's motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import require
from tenfold.video.appearance import Values
from tenfold.video.flow import Flow, Frame, grid

Mask = NDArray[np.bool_]
Window = tuple[slice, slice]

_LEAST_SPEED = 1.0
"""Pixels a frame against the background from which on an object counts as moving."""
_MOTION_WEIGHT, _NEAR, _LEAST_SHARE = 6.0, 0.35, -2.0
_MOST_ERROR = 12.0
"""Grey levels: colours that differ by more differ."""
_HIDDEN_ERROR = 7.2
_COLOUR_WEIGHT, _MOST_LOGIT = 3.0, 2.0
_SMOOTH = 0.8


@dataclass(frozen=True, eq=False)
class Step:
    """From the frame before to this one, as all objects need it; at working size.

    Args:
        before: the frame before, uint8 (H, W, 3).
        frame: this one.
        features: of this one, (H, W, C).
        back: flow from this one to the frame before, (2, H, W).
        trusted: where that flow can be trusted, bool (H, W).
        camera: what that flow would be if nothing but the camera moved, (2, H, W).
    """

    before: Frame
    frame: Frame
    features: Values
    back: Flow
    trusted: Mask
    camera: Flow

    def carried(self, values: Values, window: Window = (slice(None),) * 2, flow: Flow | None = None) -> Values:
        """Values of the frame before, (H, W) or (H, W, C), brought to this one; 0 for what was outside.

        Args:
            values: of all the frame before.
            window: the part wanted of this one.
            flow: another flow for that part, (2, h, w).
        """
        cv2 = require("cv2", "video")
        flow = self.back[:, *window] if flow is None else flow
        x, y = grid(self.trusted.shape)[:, *window] + flow
        brought: Values = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        return brought


def by_residual(step: Step, window: Window, mask: Mask) -> Values:
    """Where the object moves against the background: how much each pixel does.

    Args:
        step: from the frame before.
        window: the part that is looked at.
        mask: the object in the window as the flow brought it, bool (h, w).

    Returns:
        (h, w); 0 everywhere for an object at rest.
    """
    cv2 = require("cv2", "video")
    speed = np.hypot(*(step.back - step.camera)[:, *window])
    trusted = step.trusted[window]
    core = (mask & trusted).astype(np.float32)
    spread = max(_NEAR * float(np.count_nonzero(mask)) ** 0.5, 4.0)
    usual = np.sqrt(cv2.GaussianBlur(speed**2 * core, (0, 0), spread) / (cv2.GaussianBlur(core, (0, 0), spread) + 1e-4))
    weight = _MOTION_WEIGHT * np.clip(usual / _LEAST_SPEED - 1, 0, 1)
    share = np.clip(3 * (speed / np.maximum(usual, _LEAST_SPEED) - 0.5), _LEAST_SHARE, 1)
    logit: Values = (weight * share * np.where(trusted, 1, 0.5)).astype(np.float32)
    return logit


def by_colours(step: Step, window: Window, mask: Mask, soft: Values) -> Values:
    """Whether the object's motion, or the camera's, leads to the colours of a pixel in the frame before.

    Each hypothesis counts only if it leads to where the object was, or was not; what the object hid before has no
    colour to be compared with, and a fair chance.

    Args:
        step: from the frame before.
        window: the part that is looked at.
        mask: the object in the window as the flow brought it, bool (h, w).
        soft: the object in all of the frame before, 0..1, (H, W).

    Returns:
        (h, w).
    """
    cv2 = require("cv2", "video")
    sure = cv2.erode((mask & step.trusted[window]).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    spread = max(0.1 * float(np.count_nonzero(mask)) ** 0.5, 3.0)
    weight = cv2.GaussianBlur(sure, (0, 0), spread) + 1e-4
    own = np.stack([cv2.GaussianBlur(one * sure, (0, 0), spread) / weight for one in step.back[:, *window]])
    before = cv2.GaussianBlur(step.before, (0, 0), _SMOOTH).astype(np.float32)
    here = cv2.GaussianBlur(step.frame, (0, 0), _SMOOTH)[window].astype(np.float32)

    def error(flow: Flow, was_object: bool, otherwise: float) -> Values:
        differs = np.abs(step.carried(before, window, flow) - here).mean(2)
        differs = np.minimum(cv2.GaussianBlur(differs, (0, 0), 1.5), _MOST_ERROR)
        fits = (step.carried(soft, window, flow) > 0.5) == was_object
        chosen: Values = np.where(fits, differs, np.float32(otherwise))
        return chosen

    as_object = error(own, True, _MOST_ERROR)
    as_background = error(step.camera[:, *window], False, _HIDDEN_ERROR)
    logit: Values = np.clip(_COLOUR_WEIGHT * (as_background - as_object) / _MOST_ERROR, -_MOST_LOGIT, _MOST_LOGIT)
    return logit
