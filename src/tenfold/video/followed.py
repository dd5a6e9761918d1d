"""One object that is followed: where it is, what it looks like, and finding it again when it was hidden."""

from __future__ import annotations

import numpy as np

from tenfold.errors import require
from tenfold.video.appearance import Appearance, Values
from tenfold.video.edges import drawn_to_edges
from tenfold.video.evidence import Mask, Step, Window, by_colours, by_residual

_LEAST_PIXELS = 20
_CARRIED_LIMIT, _DISTRUSTED = 0.1, 0.2
_APPEARANCE_WEIGHT, _MOST_SCORE = 8.0, 1.5
_DISTANCE_WEIGHT, _MOST_DISTANCE = 0.05, 10.0
_BAND = 0.4
"""How far beyond its outline an object is looked for, as a share of its size (the root of its area)."""
_SURROUNDINGS = 0.5
"""How far what is around it is learned, likewise."""
_LEAST_BAND, _LEAST_SURROUNDINGS = 8, 20
_SHARPEN = 3.0
_SPECK = 0.03
_SEARCH_STEP, _SEARCH_EVERY = 2, 3
_FOUND_SCORE = 0.35
_FOUND_AREAS = (0.3, 2.5)
"""What is found again has such a part of the area that was lost."""


class Followed:
    """One object.

    Args:
        mask: where it is on its first frame, bool (H, W).
        features: of that frame, (H, W, C).
    """

    def __init__(self, mask: Mask, features: Values) -> None:
        self.soft: Values = mask.astype(np.float32)
        """1 = object, 0 = not, (H, W)."""
        self._looks = Appearance()
        self._area = float(np.count_nonzero(mask))
        self._lost = 0
        self._learn(features)

    @property
    def mask(self) -> Mask:
        """Where it is, bool (H, W)."""
        return self.soft > 0.5

    def advance(self, step: Step, carried: Values) -> None:
        """Go on to the next frame.

        Args:
            step: to that frame.
            carried: where the flow brings the object, (H, W).
        """
        before, self.soft = self.soft, np.zeros_like(self.soft)
        if np.count_nonzero(carried > 0.5) >= _LEAST_PIXELS:
            self._draw(step, carried, before)
        if self.soft.any():
            self._lost = 0
            self._area = 0.9 * self._area + 0.1 * float(np.count_nonzero(self.mask))
            self._learn(step.features)
        else:
            if self._lost % _SEARCH_EVERY == 0:
                self._search(step)
            self._lost += 1

    def _draw(self, step: Step, carried: Values, before: Values) -> None:
        mask = carried > 0.5
        band = max(int(_BAND * np.count_nonzero(mask) ** 0.5), _LEAST_BAND)
        near = window_around(mask, band + 4)
        inside = signed_distance(mask[near])
        likely = np.clip(carried[near], _CARRIED_LIMIT, 1 - _CARRIED_LIMIT)
        wanted = inside >= -band
        scores = np.full(inside.shape, -_MOST_SCORE, np.float32)
        scores[wanted] = self._looks.scores(step.features[near][wanted])
        logit = np.log(likely / (1 - likely)) * np.where(step.trusted[near], 1, _DISTRUSTED)
        logit += _APPEARANCE_WEIGHT * np.clip(scores, -_MOST_SCORE, _MOST_SCORE)
        logit += _DISTANCE_WEIGHT * np.clip(inside, -_MOST_DISTANCE, _MOST_DISTANCE)
        logit += by_residual(step, near, mask[near]) + by_colours(step, near, mask[near], before)
        soft = (1 / (1 + np.exp(-logit))).astype(np.float32)
        soft[~wanted] = 0
        soft = _without_specks(drawn_to_edges(soft, step.frame[near]))
        seen = scores[soft > 0.5]
        if len(seen) >= _LEAST_PIXELS and seen.mean() > 0:  # else it looks like what was around the object
            self.soft[near] = np.clip((soft - 0.5) * _SHARPEN + 0.5, 0, 1)

    def _search(self, step: Step) -> None:
        """Look for something of about its size anywhere that looks like it."""
        cv2 = require("cv2", "video")
        coarse = step.features[::_SEARCH_STEP, ::_SEARCH_STEP]
        scores = cv2.GaussianBlur(self._scores(coarse), (0, 0), 1.5)
        count, pieces, facts, _ = cv2.connectedComponentsWithStats((scores > 0).astype(np.uint8), connectivity=8)
        areas = facts[:, cv2.CC_STAT_AREA] * float(_SEARCH_STEP**2)
        best, most = 0, _FOUND_SCORE
        for at in range(1, count):
            if _FOUND_AREAS[0] * self._area <= areas[at] <= _FOUND_AREAS[1] * self._area:
                score = float(scores[pieces == at].mean())
                best, most = (at, score) if score > most else (best, most)
        if best:
            height, width = self.soft.shape
            piece = (pieces == best).astype(np.float32)
            self.soft = cv2.resize(piece, (width, height), interpolation=cv2.INTER_LINEAR)

    def _scores(self, features: Values) -> Values:
        return self._looks.scores(features.reshape(-1, features.shape[2])).reshape(features.shape[:2])

    def _learn(self, features: Values) -> None:
        mask = self.mask
        near = window_around(mask, max(int(_SURROUNDINGS * np.count_nonzero(mask) ** 0.5), _LEAST_SURROUNDINGS))
        certain = np.clip(np.abs(signed_distance(mask[near])) / 3, 0.2, 1) * np.abs(2 * self.soft[near] - 1)
        self._looks.learn(
            features[near].reshape(-1, features.shape[2]),
            mask[near].reshape(-1),
            certain.reshape(-1).astype(np.float32),
        )


def window_around(mask: Mask, margin: int) -> Window:
    """The part of a frame that holds a mask, with a margin in pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def signed_distance(mask: Mask) -> Values:
    """Pixels to the mask's boundary, positive inside, (H, W)."""
    cv2 = require("cv2", "video")
    inner, outer = (cv2.distanceTransform(one.astype(np.uint8), cv2.DIST_L2, 5) for one in (mask, ~mask))
    distance: Values = inner - outer
    return distance


def _without_specks(soft: Values) -> Values:
    """Pieces much smaller than the largest fade."""
    cv2 = require("cv2", "video")
    count, pieces, facts, _ = cv2.connectedComponentsWithStats((soft > 0.5).astype(np.uint8), connectivity=8)
    areas = facts[:, cv2.CC_STAT_AREA]
    small = [at for at in range(1, count) if areas[at] < _SPECK * areas[1:].max()]
    return np.where(np.isin(pieces, small), np.minimum(soft, 0.3), soft) if small else soft
