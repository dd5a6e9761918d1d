"""Where clips to learn to find and follow objects from come from: synthetic video, photographs that become video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.coco_photographs import coco_photographs
from tenfold.data.simulated import Motion, move_over
from tenfold.data.sprite_videos import SpriteSettings, degraded_frame, make_sprite_video
from tenfold.data.sprites import SILHOUETTES, CutOut

_TRAINING, _VALIDATION = 0, 1
_STILL_MOTION = Motion(pan=3.0, zoom=0.02, turn=0.02, light=0.2, noise=3.0)
_LEAST_PIXELS = 12


class LabelledClip(NamedTuple):
    """Frames with their objects."""

    frames: NDArray[np.uint8]
    """(T, H, W, 3)."""
    masks: NDArray[np.bool_]
    """(T, N, H, W); all False where an object is not seen."""
    labels: NDArray[np.int64]
    """(N,)."""


class ClipSource(Protocol):
    """Clips by number."""

    name: str

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by label."""

    def __len__(self) -> int: ...

    def read(self, row: int, variant: int | None) -> LabelledClip:
        """A clip.

        Args:
            row: from 0.
            variant: of a synthetic clip, which differs in all that is drawn; None for the one to judge by.
        """


class SpriteClips:
    """SpriteVIS, made as it is asked for.

    Args:
        count: clips, of each variant.
        settings: what happens in them.
        seed: of all of them.
        photographs: textures and backgrounds; see `make_sprite_video`.
        cut_outs: the objects; without any they are drawn.
    """

    def __init__(
        self,
        count: int,
        settings: SpriteSettings,
        *,
        seed: int = 0,
        photographs: Sequence[NDArray[np.uint8]] = (),
        cut_outs: Sequence[CutOut] = (),
    ) -> None:
        self.name = "real sprites" if cut_outs else "sprites"
        self.classes = [one.name for one in cut_outs] if cut_outs else list(SILHOUETTES)
        self._count, self._settings, self._seed = count, settings, seed
        self._photographs, self._cut_outs = photographs, cut_outs

    def __len__(self) -> int:
        return self._count

    def read(self, row: int, variant: int | None) -> LabelledClip:
        """See `ClipSource`."""
        numbers = (_VALIDATION, row) if variant is None else (_TRAINING, row, variant)
        made = make_sprite_video(
            (self._seed, *numbers), self._settings, photographs=self._photographs, cut_outs=self._cut_outs
        )
        return LabelledClip(made.frames, made.masks, made.labels)


class StillClips:
    """Photographs with masks of their objects, over which a camera moves.

    Args:
        annotations: a COCO file; the pictures lie beside it.
        count: clips of each variant; each shows a photograph by lot.
        settings: size and number of frames, and how often one is degraded.
        seed: of all of them.

    Raises:
        DataError: if the file is damaged.
    """

    def __init__(self, annotations: str | Path, count: int, settings: SpriteSettings, *, seed: int = 0) -> None:
        self.name = "stills"
        self._photographs = coco_photographs(annotations)
        self.classes = sorted({name for one in self._photographs for name in one.names})
        self._count, self._settings, self._seed = count, settings, seed

    def __len__(self) -> int:
        return self._count

    def read(self, row: int, variant: int | None) -> LabelledClip:
        """See `ClipSource`."""
        numbers = (_VALIDATION, row) if variant is None else (_TRAINING, row, variant)
        rng = np.random.default_rng([self._seed, *numbers])
        chosen = self._photographs[int(rng.integers(len(self._photographs)))]
        photograph, masks = chosen.read()
        settings = self._settings
        pictures = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
        frames, seen = move_over(
            Image.fromarray(photograph), pictures, settings.frames, settings.height, settings.width, rng, _STILL_MOTION
        )
        seen &= (seen.sum((2, 3)) >= _LEAST_PIXELS)[:, :, None, None]
        for at in np.flatnonzero(rng.random(settings.frames) < settings.degraded):
            frames[at] = degraded_frame(frames[at], rng)
        labels = np.array([self.classes.index(name) for name in chosen.names], np.int64)
        return LabelledClip(frames, seen, labels)


class OfOneClass:
    """Another source whose objects are all of one class.

    Args:
        source: the other one.
        name: of the class.
    """

    def __init__(self, source: ClipSource, name: str = "object") -> None:
        self.name, self.classes = source.name, [name]
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def read(self, row: int, variant: int | None) -> LabelledClip:
        """See `ClipSource`."""
        clip = self._source.read(row, variant)
        return clip._replace(labels=np.zeros_like(clip.labels))


def longer(settings: SpriteSettings, frames: int) -> SpriteSettings:
    """The same with another number of frames."""
    return replace(settings, frames=frames)


def source_facts(sources: Sequence[ClipSource]) -> list[dict[str, Any]]:
    """What a description tells of sources."""
    return [{"name": source.name, "clips": len(source), "classes": len(source.classes)} for source in sources]
