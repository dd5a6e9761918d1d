"""What is real in an inpainted video: for each pixel, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.images import opened
from tenfold.errors import DataError
from tenfold.files import written_whole

FAR = 120
"""A distance in frames is stored up to FAR - 1."""
UNTOUCHED, EARLIER, LATER, REPAIRED, INVENTED = 0, 0, FAR, 254, 255
"""Codes of a map: 0 is a pixel as it was, EARLIER + n one copied from n frames before, LATER + n one from n frames
after, REPAIRED one copied and then changed by a network, INVENTED one that no frame shows."""


def encode(invented: NDArray[np.bool_], repaired: NDArray[np.bool_], distance: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Codes of pixels that were filled.

    Args:
        invented: whether no frame shows it.
        repaired: whether a network changed what was copied.
        distance: number of the source frame minus the frame's own.

    Returns:
        uint8, of the arguments' shape.
    """
    steps = np.minimum(np.abs(distance), FAR - 1)
    codes = np.where(distance < 0, EARLIER + steps, LATER + steps)
    return np.where(invented, INVENTED, np.where(repaired, REPAIRED, codes)).astype(np.uint8)


def write_provenance(path: str | Path, codes: NDArray[np.uint8]) -> None:
    """Write a map as a PNG whose values are the codes, and whose palette shows them.

    Grey is untouched, blue copied from before, green from after (the paler, the farther), yellow repaired, red
    invented.

    Raises:
        StorageError: if it could not be written.
    """
    picture = Image.fromarray(codes, mode="P")
    picture.putpalette(_palette().tobytes())
    with written_whole(path) as part:
        picture.save(part, format="PNG")


def read_provenance(path: str | Path) -> NDArray[np.uint8]:
    """The codes of a map that `write_provenance` wrote, uint8 (H, W).

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged, or no map.
    """
    with opened(path, str(path)) as (image, _):
        image.load()
        if image.mode != "P":
            raise DataError(f"{path} is a picture of mode {image.mode} and not a map of provenance (mode P).")
        return np.asarray(image)


@dataclass
class Account:
    """What was done to a video, pixel for pixel.

    Args:
        frames: number of frames.
        hole: pixels that were to be filled.
        invented: those that no frame shows.
        repaired: those copied and then changed by a network.
        distances: copied pixels by their distance in frames.
        cuts: numbers of the frames that begin a new scene.
    """

    frames: int = 0
    hole: int = 0
    invented: int = 0
    repaired: int = 0
    distances: dict[int, int] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)

    def add(self, codes: NDArray[np.uint8]) -> None:
        """Count the map of one more frame."""
        counts = np.bincount(codes.reshape(-1), minlength=256)
        self.frames += 1
        self.hole += int(codes.size - counts[UNTOUCHED])
        self.invented += int(counts[INVENTED])
        self.repaired += int(counts[REPAIRED])
        for distance in range(1, FAR):
            if copied := int(counts[EARLIER + distance] + counts[LATER + distance]):
                self.distances[distance] = self.distances.get(distance, 0) + copied

    def to_dict(self) -> Mapping[str, object]:
        """For JSON: shares of the hole's pixels, 0 where there was none."""
        whole, copied = max(self.hole, 1), sum(self.distances.values())
        farthest = max(self.distances, default=0)
        mean = sum(distance * count for distance, count in self.distances.items()) / max(copied, 1)
        return {
            "frames": self.frames,
            "hole_pixels": self.hole,
            "copied_share": copied / whole,
            "repaired_share": self.repaired / whole,
            "invented_share": self.invented / whole,
            "mean_distance_frames": mean,
            "farthest_distance_frames": farthest,
            "cuts": list(self.cuts),
        }


def _palette() -> NDArray[np.uint8]:
    palette = np.full((256, 3), 40, np.uint8)
    fade = np.linspace(0, 1, FAR - 1)[:, None]
    for start, near, far in ((EARLIER, (20, 60, 255), (190, 210, 255)), (LATER, (0, 150, 60), (190, 240, 200))):
        palette[start + 1 : start + FAR] = np.rint((1 - fade) * np.array(near) + fade * np.array(far))
    palette[REPAIRED], palette[INVENTED] = (255, 200, 0), (230, 30, 30)
    return palette
