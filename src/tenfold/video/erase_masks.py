"""What is to be erased, however it is named, as one mask a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tenfold.data.clip_video import ClipMasks, FrameMasks, PictureVideo, open_clip_video
from tenfold.data.video import Damage, VideoReader
from tenfold.errors import UsageError
from tenfold.video.erase_find import Found, store_found
from tenfold.video.erase_follow import Target, follow_targets
from tenfold.video.mask_store import MaskStore
from tenfold.video.track_masks import TrackMasks

Follows = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class What:
    """What is to go; just one of these ways to say it.

    Args:
        targets: things pointed at in single frames, which are followed through the clip.
        masks: masks for all frames; see tenfold.data.clip_video.ClipMasks.
        stored: the file of a MaskStore, for masks that were followed before.
        tracks: file of tracks, such as `tenfold segment` writes.
        ids: of the tracks that are to go; none means all.
        found: what a network finds.

    With none of them, the masks beside the frames of a clip in a folder are taken.

    Raises:
        UsageError: if it is said in more than one way.
    """

    targets: tuple[Target, ...] = ()
    masks: Path | None = None
    stored: Path | None = None
    tracks: Path | None = None
    ids: tuple[int, ...] = ()
    found: Found | None = None

    def __post_init__(self) -> None:
        if self.ids and self.tracks is None:
            raise UsageError("ids are those of tracks; name the file with them (--tracks FILE), or leave the ids out.")
        if sum(map(bool, (self.targets, self.masks, self.stored, self.tracks, self.found))) > 1:
            raise UsageError(
                "what is to go is said in more than one way; give masks for all frames, or point at things."
            )

    def files(self) -> list[Path]:
        """All that the masks are read from."""
        named = (self.masks, self.stored, self.tracks, *(target.mask for target in self.targets))
        return [path for path in named if path is not None]

    def asked(self) -> list[Any]:
        """All that the masks follow from, as JSON values."""
        from tenfold.video.erase_work import stamp

        files = [stamp(path) for path in (self.masks, self.stored, self.tracks) if path]
        found = [] if self.found is None else [self.found.origin, list(self.found.classes)]
        return [*files, list(self.ids), *(target.asked() for target in self.targets), *found]


@contextmanager
def open_masks(
    what: What,
    clip: str | Path,
    video: VideoReader | PictureVideo,
    place: Path,
    *,
    rate: Fraction | None = None,
    damage: Damage = "refuse",
    progress: Follows | None = None,
) -> Iterator[FrameMasks]:
    """The masks of a video. Things that are pointed at are followed, or looked for, first, unless that was done before.

    Args:
        what: what is to go.
        clip: the file or folder of the video, which is read once more to follow in.
        video: the same, open.
        place: file for masks that are followed.
        rate: see open_clip_video.
        damage: see open_clip_video.
        progress: called with the frames followed and their number.

    Raises:
        UsageError: if nothing is to go, or a thing is pointed at outside the clip.
        DataError: if masks cannot be read, or do not fit the clip.
    """
    size = (video.info.height, video.info.width)
    if what.targets or what.found is not None:
        if not place.exists():
            part = place.with_suffix(".part")
            part.unlink(missing_ok=True)
            with open_clip_video(clip, rate=rate, damage=damage) as again, MaskStore(part, size, write=True) as store:
                if what.found is None:
                    follow_targets(again, what.targets, store, progress=progress)
                else:
                    store_found(clip, what.found, store, rate=rate, damage=damage, progress=progress)
            part.replace(place)
        with MaskStore(place, size) as store:
            yield store
    elif what.stored is not None:
        with MaskStore(what.stored, size) as store:
            yield store
    elif what.tracks is not None:
        yield TrackMasks(what.tracks, what.ids, size, video.info.frames if damage == "refuse" else None)
    else:
        if what.masks is None and not (isinstance(video, PictureVideo) and video.clip.masks):
            raise UsageError(
                "what is to be erased? Point at it with --box or --click, give its mask in one frame (--mask) or in "
                "all (--masks), name tracks (--tracks) or a class that a network finds (--find, --class), or take what "
                "moves most (--moving)."
            )
        with ClipMasks(what.masks, video, damage=damage) as masks:
            yield masks
