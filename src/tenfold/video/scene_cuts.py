"""Where one scene ends and another begins: across such a cut nothing may be copied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_THUMBNAIL = (48, 27)
_LEVELS = 8
_LEAST_CHANGE = 25.0
_CHANGE_RATIO = 2.0
_HISTOGRAM_CHANGE = 0.1
_LEAST_KNOWN = 0.1
_MEMORY = 0.8


class CutDetector:
    """Tells a cut from motion, frame by frame, by what is known outside the holes.

    A cut must show twice: thumbnails differ by many grey levels, far more than they did from frame to frame just before
    (a fast pan changes all frames alike), and the colours' histogram changes, which motion hardly touches.
    """

    def __init__(self) -> None:
        self._before: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None
        self._usual = 0.0

    def is_cut(self, frame: NDArray[np.uint8], hole: NDArray[np.bool_]) -> bool:
        """Whether a new scene begins with this frame; never at the first.

        Args:
            frame: uint8 (H, W, 3).
            hole: bool (H, W), whose pixels do not count.
        """
        thumbnail = np.asarray(Image.fromarray(frame).resize(_THUMBNAIL, Image.Resampling.BOX)).astype(np.float32)
        covered = Image.fromarray(hole.astype(np.uint8) * 255).resize(_THUMBNAIL, Image.Resampling.BOX)
        known = np.asarray(covered) < 64
        before, self._before = self._before, (thumbnail, known)
        if before is None:
            return False
        both = known & before[1]
        if both.mean() < _LEAST_KNOWN:
            return False  # too little is seen to tell
        change = float(np.abs(thumbnail - before[0])[both].mean())
        histograms = [_histogram(one[both]) for one in (before[0], thumbnail)]
        differs = float(np.abs(histograms[0] - histograms[1]).sum() / 2)
        cut = change > max(_LEAST_CHANGE, _CHANGE_RATIO * self._usual) and differs > _HISTOGRAM_CHANGE
        self._usual = 0.0 if cut else _MEMORY * self._usual + (1 - _MEMORY) * change
        return cut


def _histogram(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares of coarse levels of each channel, smoothed so that a small change of light moves little, (3 * levels,)."""
    scaled = colours / (256 / _LEVELS) - 0.5
    low = np.floor(scaled)
    part = scaled - low
    shares = np.zeros((3, _LEVELS))
    for channel in range(3):
        for step, weight in ((0, 1 - part[:, channel]), (1, part[:, channel])):
            level = np.clip(low[:, channel] + step, 0, _LEVELS - 1).astype(np.int64)
            shares[channel] += np.bincount(level, weight, _LEVELS)
    return (shares / (3 * len(colours))).reshape(-1)
