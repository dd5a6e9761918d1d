"""The task of finding and following objects from its options, and again from its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tenfold.data.catalog import SPRITES
from tenfold.data.images import SUFFIXES, read_image
from tenfold.data.sprite_videos import SpriteSettings
from tenfold.data.sprites import load_cut_outs
from tenfold.errors import MissingDataError, UnknownNameError, UsageError
from tenfold.tasks.epochs import check_positive
from tenfold.tasks.instance_recordings import RecordedClips, open_recordings
from tenfold.tasks.instance_sources import ClipSource, OfOneClass, SpriteClips, StillClips, longer
from tenfold.tasks.instances import VideoInstances
from tenfold.tasks.registry import register

Classes = Literal["own", "object"]

_LEAST_SIDE, _MOST_SIDE = 32, 1024


def track(
    *,
    data: str | Path | None = None,
    sprites: int | None = None,
    real_sprites: int = 0,
    cut_outs: str | Path | None = None,
    cut_out_count: int = 20,
    stills: int = 0,
    still_files: str | Path | Sequence[str] = (),
    photographs: str | Path | Sequence[str] = (),
    image_size: int | Sequence[int] = 128,
    frames: int = 8,
    objects: Sequence[int] = (2, 4),
    diameter: Sequence[int] | None = None,
    classes: Classes = "own",
    supports: int = 2,
    dropped: float = 0.15,
    degraded: float = 0.35,
    flip: bool = True,
    eval_clips: int = 20,
    eval_frames: int = 20,
    data_seed: int = 0,
    subset: int | None = None,
) -> VideoInstances:
    """The task of finding and following objects.

    Args:
        data: recorded clips with masks, a part of each in an epoch; see `open_recordings`.
        sprites: synthetic videos of drawn sprites in an epoch; every epoch has new ones. Default: 240; with `data`
            none.
        real_sprites: synthetic videos of objects that were cut out of photographs, in an epoch.
        cut_outs: for `real_sprites`, a COCO file; the pictures lie beside it.
        cut_out_count: how many objects are cut out.
        stills: videos simulated from photographs with masks, in an epoch.
        still_files: for `stills`, one or several COCO files.
        photographs: folders or files of pictures that textures and backgrounds of sprites are pieces of; without any
            they are noise.
        image_size: [height, width] of a frame in pixels; one number for squares.
        frames: of a training video.
        objects: least and most sprites.
        diameter: least and most, in pixels; default: 18 to 48 in 128 pixels, and in proportion.
        classes: "own" learns the kinds of objects, "object" makes all of them one class.
        supports: frames around the current one that an item has.
        dropped: chance of each of these to be marked as not there.
        degraded: chance of a frame to be blurred, noisy or pale.
        flip: mirror half of the items.
        eval_clips: videos of each kind to judge by; of recorded clips all that are held out are.
        eval_frames: of each of them.
        data_seed: of what is drawn; not the seed of the training.
        subset: number of videos to train on.

    Raises:
        UsageError: if an option has a value that is not allowed.
        DataError: if a file is missing or damaged.
    """
    if classes not in get_args(Classes):
        raise UnknownNameError("kind of classes", classes, get_args(Classes))
    check_positive(frames=frames, eval_clips=eval_clips, eval_frames=eval_frames, cut_out_count=cut_out_count)
    if sprites is None:
        sprites = 240 if data is None else 0
    counts = {"sprites": sprites, "real_sprites": real_sprites, "stills": stills}
    for name, count in counts.items():
        if count < 0:
            raise UsageError(f"{name} is {count}; allowed is a whole number from 0.")
    if data is None and not any(counts.values()):
        raise UsageError("there is nothing to learn from: give data, or a number of sprites, real_sprites or stills.")
    if real_sprites and cut_outs is None:
        raise UsageError("real_sprites are cut out of photographs: give cut_outs, a COCO file with masks.")
    files = [still_files] if isinstance(still_files, str | Path) else list(still_files)
    if stills and not files:
        raise UsageError("stills are photographs with masks: give still_files, one or several COCO files.")
    size = _size(image_size)
    settings = SpriteSettings(
        height=size[0],
        width=size[1],
        frames=frames,
        objects=_range(objects, "objects"),
        diameter=_range(diameter, "diameter") if diameter else (18 * min(size) // 128, 48 * min(size) // 128),
        degraded=degraded,
    )
    textures = _photographs(photographs)
    pieces = load_cut_outs(cut_outs, cut_out_count) if real_sprites and cut_outs else []
    pairs: list[tuple[ClipSource, ...]] = []

    def add(make: Any, count: int) -> None:
        if count:
            pairs.append((make(count, settings), make(eval_clips, longer(settings, eval_frames))))

    add(lambda count, how: SpriteClips(count, how, seed=data_seed, photographs=textures), sprites)
    add(lambda count, how: SpriteClips(count, how, seed=data_seed, photographs=textures, cut_outs=pieces), real_sprites)
    for number, file in enumerate(files if stills else ()):
        share = stills // len(files) + (number < stills % len(files))
        add(lambda count, how, file=file: StillClips(file, count, how, seed=data_seed), share)
    if data is not None:
        recorded = open_recordings(data)
        lengths = (frames, eval_frames)
        pairs.append(
            tuple(RecordedClips(some, size, most, seed=data_seed) for some, most in zip(recorded, lengths, strict=True))
        )
    if classes == "object":
        pairs = [tuple(OfOneClass(one) for one in pair) for pair in pairs]
    learned, judged = ([pair[at] for pair in pairs] for at in range(2))
    facts = {
        "classes": classes,
        "settings": {
            "frames": frames, "objects": list(settings.objects), "diameter": list(settings.diameter),
            "degraded": degraded, "data_seed": data_seed, "eval_clips": eval_clips, "eval_frames": eval_frames,
        },
        "data": {"name": SPRITES if data is None else Path(data).name, "photographs": len(textures)},
    }  # fmt: skip
    return VideoInstances(
        learned, judged, size=size, supports=supports, dropped=dropped, flip=flip, subset=subset, facts=facts
    )


def _reopen(described: Mapping[str, Any], data: str | Path | None) -> VideoInstances:
    """The task again for evaluation: on recorded clips, or on drawn sprites if the network learned on these."""
    settings, name = described["settings"], described["data"].get("name", SPRITES)
    if data is None and name != SPRITES:
        raise UsageError(f"which clips? The network learned on {name!r}; say where they are: --data FOLDER.")
    return track(
        data=data,
        sprites=settings["eval_clips"] if data is None else 0,
        image_size=described["frame_size"],
        frames=settings["frames"],
        objects=settings["objects"],
        diameter=settings["diameter"],
        classes=described["classes"],
        degraded=settings["degraded"],
        eval_clips=settings["eval_clips"],
        eval_frames=settings["eval_frames"],
        data_seed=settings["data_seed"],
    )


register("track", reopen=_reopen)(track)


def _size(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and _LEAST_SIDE <= side <= _MOST_SIDE for side in sides):
        raise UsageError(
            f"image_size is {image_size!r}; allowed are [height, width] of {_LEAST_SIDE} to {_MOST_SIDE} pixels, or "
            "one number."
        )
    return sides[0], sides[1]


def _range(values: Sequence[int], name: str) -> tuple[int, int]:
    if len(values) != 2 or not all(isinstance(value, int) for value in values):
        raise UsageError(f"{name} is {values!r}; allowed are two whole numbers, the least and the most.")
    return int(values[0]), int(values[1])


def _photographs(places: str | Path | Sequence[str]) -> list[NDArray[np.uint8]]:
    found: list[Path] = []
    for place in [places] if isinstance(places, str | Path) else places:
        path = Path(place).expanduser()
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
            if not inside:
                raise MissingDataError(f"there are no pictures in {path}. Check the path.")
            found += inside
        else:
            found.append(path)
    return [read_image(path) for path in found]
