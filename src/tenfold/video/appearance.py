"""What an object looks like beside what is around it: a classifier of pixels that is learned while the video runs.

Kernel ridge regression on colours at four scales and on texture, by random Fourier features (Rahimi, Recht 2007) and
normal equations: those of the first frame stay, those of later frames fade, so that memory is flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import require
from tenfold.video.flow import Frame

Values = NDArray[np.float32]

_SCALES = (0.0, 2.0, 5.0, 10.0)
_CHANNELS = 3 * len(_SCALES) + 1
_LAB_UNIT, _TEXTURE_UNIT = 20.0, 0.5
_WAVES, _WAVE_NUMBER, _RIDGE = 160, 0.45, 1.0
_SAMPLES, _WEIGHT = 6000, 500.0


def pixel_features(frame: Frame) -> Values:
    """Colours in CIELAB, plain and blurred, and the local spread of lightness, (H, W, C), about -3..3."""
    cv2 = require("cv2", "video")
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / np.float32(_LAB_UNIT)
    lab[..., 0] -= 2.5
    light = lab[..., 0]
    spread = cv2.GaussianBlur(light**2, (0, 0), 2) - cv2.GaussianBlur(light, (0, 0), 2) ** 2
    blurred = [cv2.GaussianBlur(lab, (0, 0), scale) if scale else lab for scale in _SCALES]
    return np.concatenate([*blurred, np.sqrt(np.maximum(spread, 0))[..., None] / np.float32(_TEXTURE_UNIT)], 2)


@dataclass(eq=False)
class _Equations:
    """Normal equations A w = y."""

    left: NDArray[np.float64]
    right: NDArray[np.float64]


class Appearance:
    """Tells pixels of one object from those around it.

    Args:
        fade: how much of the memory stays from frame to frame, 0..1.
        first: how much what was learned first counts beside what was learned since, 0..1.
    """

    def __init__(self, fade: float = 0.8, first: float = 0.8) -> None:
        self._draws = np.random.default_rng(0)
        self._fade, self._first_share = fade, first
        self._waves = (self._draws.standard_normal((_CHANNELS, _WAVES)) * _WAVE_NUMBER).astype(np.float32)
        self._phases = self._draws.uniform(0, 2 * np.pi, _WAVES).astype(np.float32)
        self._first: _Equations | None = None
        self._recent: _Equations | None = None
        self._weights = np.zeros(_WAVES + _CHANNELS + 1, np.float32)

    def learn(self, features: Values, is_object: NDArray[np.bool_], certainty: Values) -> None:
        """Learn from pixels.

        Args:
            features: (N, C).
            is_object: bool (N,).
            certainty: weight of each pixel, (N,), 0..1.
        """
        chosen = self._draws.permutation(len(features))[:_SAMPLES]
        is_object, weights = is_object[chosen], certainty[chosen].astype(np.float32)
        for side in (is_object, ~is_object):
            weights[side] *= _WEIGHT / max(float(weights[side].sum()), 1.0)
        lifted = self._lift(features[chosen])
        weighted = lifted * weights[:, None]
        target = np.where(is_object, 1, -1).astype(np.float32)
        new = _Equations((weighted.T @ lifted).astype(np.float64), (weighted.T @ target).astype(np.float64))
        if self._first is None or self._recent is None:
            self._first = self._recent = new
        else:
            self._recent = _mixed(self._recent, new, self._fade)
        both = _mixed(self._first, self._recent, self._first_share)
        ridge = _RIDGE * np.eye(len(both.left))
        self._weights = np.linalg.solve(both.left + ridge, both.right).astype(np.float32)

    def scores(self, features: Values) -> Values:
        """About 1 for pixels of the object and -1 for others, (N,), of features (N, C)."""
        scores: Values = self._lift(features) @ self._weights
        return scores

    def _lift(self, features: Values) -> Values:
        waves = np.cos(features @ self._waves + self._phases) * np.float32(np.sqrt(2))
        return np.concatenate([waves, features, np.ones((len(features), 1), np.float32)], 1)


def _mixed(one: _Equations, other: _Equations, share: float) -> _Equations:
    left, right = (share * a + (1 - share) * b for a, b in ((one.left, other.left), (one.right, other.right)))
    return _Equations(left, right)
