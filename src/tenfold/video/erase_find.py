"""What a network finds in a clip and takes for one of some classes, as masks of what is to go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tenfold.data.video import Damage
from tenfold.errors import UsageError
from tenfold.video.mask_store import MaskStore
from tenfold.video.segment import NetworkSegmenter
from tenfold.video.segment_files import segment_clip
from tenfold.video.track_masks import TrackMasks


@dataclass(frozen=True)
class Found:
    """All that a network finds and takes for one of some classes.

    Args:
        segmenter: the network; of one clip.
        classes: names of its classes.
        origin: what tells the network from others, as JSON values.

    Raises:
        UsageError: if it knows no such class.
    """

    segmenter: NetworkSegmenter
    classes: tuple[str, ...]
    origin: Any

    def __post_init__(self) -> None:
        known = list(self.segmenter.categories.values())
        unknown = [name for name in self.classes if name not in known]
        if unknown:
            raise UsageError(f"the network finds no class {unknown[0]!r}; it finds: {', '.join(known)}.")


def store_found(
    clip: str | Path,
    found: Found,
    store: MaskStore,
    *,
    rate: Fraction | None = None,
    damage: Damage = "refuse",
    progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Find and follow, and keep the union of the masks of the tracks that are mostly of the classes.

    Args:
        clip: a video file, or a folder with the pictures of a clip.
        found: what is looked for.
        store: for the masks.
        rate: see open_clip_video.
        damage: see open_clip_video.
        progress: called with the frames done and their number.

    Returns:
        The number of tracks.

    Raises:
        DataError: if the clip cannot be read.
    """

    def told(_: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress(done, total)

    with tempfile.TemporaryDirectory(dir=store.place.parent, prefix=".found") as folder:
        tracks = Path(folder) / "tracks.json"
        report = segment_clip(clip, tracks, network=found.segmenter, rate=rate, damage=damage, progress=told)
        ids = [one.id for one in report.tracks if report.categories[one.category] in found.classes]
        if ids:
            for number, mask in enumerate(TrackMasks(tracks, ids, store.size)):
                store.write(number, mask)
    return len(ids)
