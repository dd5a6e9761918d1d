"""The inpainting task from its options, and again from its description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tenfold.data.simulated import Motion
from tenfold.errors import MissingDataError, ShapeError, UnknownNameError, UsageError
from tenfold.tasks.epochs import check_positive
from tenfold.tasks.inpainting import Base, Inpainting
from tenfold.tasks.inpainting_objective import Error, Objective
from tenfold.tasks.inpainting_sources import (
    Sources,
    find_photographs,
    open_footage,
    parts_of,
    split_footage,
    split_photographs,
)
from tenfold.tasks.inpainting_windows import TRACK, FlowSource, WindowMaker, check_holes
from tenfold.tasks.registry import register
from tenfold.video.flow import make_estimator

DEFAULT_HOLES = ("object", "curve", "stationary", "shape", "strokes")
_MULTIPLE, _LEAST_SIDE = 8, 16


def inpaint(
    *,
    data: str | Path | Sequence[str] | None = None,
    photographs: str | Path | Sequence[str] | None = None,
    image_size: int | Sequence[int] = (240, 432),
    lengths: int | Sequence[int] = (5, 7, 9, 11, 13, 15),
    holes: str | Sequence[str] = DEFAULT_HOLES,
    flow: FlowSource = "auto",
    estimator: str = "dis",
    propagate: bool = True,
    base: Base = "smooth",
    error: Error = "l1",
    outside: float = 0.1,
    masked: float = 0.0,
    perceptual: float = 0.0,
    style: float = 0.0,
    vgg: str | Path | None = None,
    motion: Mapping[str, float] | None = None,
    clip_windows: int = 1,
    variants: int | None = None,
    cache: str | Path | None = None,
    eval_clips: Sequence[str] = (),
    skip_clips: Sequence[str] = (),
    eval_fraction: float = 0.1,
    eval_most: int | None = 64,
    split_seed: int = 0,
    flip: bool = True,
    subset: int | None = None,
) -> Inpainting:
    """The inpainting task on some data.

    Args:
        data: clips: folders of frames, DAVIS' layout, video files; one or several. See `tenfold.data.open_clips`.
        photographs: folders of pictures that video is simulated from; one or several.
        image_size: [height, width] of a window in pixels, multiples of 8; one number for squares.
        lengths: frames of windows.
        holes: kinds of holes, mixed evenly: names of `tenfold.data.holes.HOLE_KINDS`, and "track" for outlines of the
            objects that the clips have masks of.
        flow: "oracle", "observed" or "auto"; see `WindowMaker`.
        estimator: of flow; see `tenfold.video.make_estimator`.
        propagate: copy from other frames first; without, the network fills whole holes, as the authors have it.
        base: "smooth" lets the network give what is to be added to the smooth filling, "none" the colours.
        error: "l1", "l2" or "release"; see `tenfold.tasks.inpainting_objective.Objective`, also for what follows.
        outside: weight of the error on pixels that are known or copied.
        masked: weight of the error in holes, with "release".
        perceptual: weight of the perceptual loss.
        style: weight of the style loss.
        vgg: weights for these two.
        motion: of simulated video; fields of `tenfold.data.Motion`.
        clip_windows: rows made of each part of a clip; more let clips weigh more beside photographs.
        variants: different windows made of each row; None makes new ones in every epoch.
        cache: folder in which windows are kept once they are made; needs `variants`.
        eval_clips: names of clips that are judged by and not trained on.
        skip_clips: names of clips that are left alone.
        eval_fraction: part of the photographs that is kept for evaluation.
        eval_most: most windows to judge by.
        split_seed: of that split; not the seed of the training.
        flip: mirror half of the training windows, and turn half of them around in time.
        subset: number of rows to train on.

    Raises:
        UsageError: if an option has a value that is not allowed.
        ShapeError: if the size is not allowed.
        DataError: if the data is missing, damaged, or laid out in another way.
    """
    size, counts = _size(image_size), sorted({lengths} if isinstance(lengths, int) else {*lengths})
    kinds = [holes] if isinstance(holes, str) else list(holes)
    _check_options(counts, kinds, base=base, flow=flow)
    objective = Objective(
        error=error,
        outside=outside,
        masked=masked,
        perceptual=perceptual,
        style=style,
        vgg=None if vgg is None else str(vgg),
    )
    if cache is not None and variants is None:
        raise UsageError("a cache needs a number of variants, such as variants=2; else it would grow in every epoch.")
    check_positive(clip_windows=clip_windows, variants=1 if variants is None else variants)
    footage = open_footage(_places(data), size)
    learned, judged = split_footage(footage, eval_clips, skip_clips)
    stills, held_out = split_photographs(find_photographs(_places(photographs)), eval_fraction, split_seed)
    tracks = [clip for clip in learned if getattr(clip, "masks", None)]
    check_holes(kinds, has_tracks=bool(tracks))
    longest = counts[-1]
    sources = Sources(clips=parts_of(learned, longest) * clip_windows, photographs=stills, tracks=tracks)
    references = _spread(parts_of(judged, longest), held_out, eval_most, tracks)
    settings = {
        "holes": kinds,
        "flow": flow,
        "propagate": propagate,
        "motion": dict(motion or {}),
        "estimator": estimator,
    }
    known = {
        "clips": [clip.name for clip in learned],
        "photographs": len(stills),
        "eval_clips": [clip.name for clip in judged],
        "eval_photographs": len(references.photographs),
    }
    place = None if cache is None else Path(cache).expanduser()
    return Inpainting(
        _maker(sources, size, longest, settings, place),
        _maker(references, size, longest, settings, place),
        lengths=counts,
        base=base,
        objective=objective,
        variants=variants,
        flip=flip,
        subset=subset,
        facts={**settings, "data": known},
    )


def _reopen(described: Mapping[str, Any], data: str | Path | None) -> Inpainting:
    """The task for evaluation on all clips of some data."""
    if data is None:
        raise MissingDataError("inpainting is judged on clips: give --data FOLDER with frames, or a video file.")
    size, counts = _size(described["frame_size"]), list(described["lengths"])
    clips = open_footage([str(data)], size)
    kinds = [kind for kind in described["holes"] if kind != TRACK] or list(DEFAULT_HOLES)
    settings = {name: described[name] for name in ("flow", "propagate", "motion", "estimator")} | {"holes": kinds}
    sources = Sources(clips=parts_of(clips, counts[-1]), photographs=())
    maker = _maker(sources, size, counts[-1], settings, None)
    known = {"clips": [], "photographs": 0, "eval_clips": [clip.name for clip in clips], "eval_photographs": 0}
    objective = Objective(**{**described["objective"], "perceptual": 0.0, "style": 0.0})  # VGG's weights are elsewhere
    options = {name: described[name] for name in ("base", "variants", "flip")}
    facts = {**settings, "data": known}
    return Inpainting(maker, maker, lengths=counts, objective=objective, facts=facts, **options)


register("inpaint", reopen=_reopen)(inpaint)


def _maker(
    sources: Sources, size: tuple[int, int], frames: int, settings: Mapping[str, Any], cache: Path | None
) -> WindowMaker:
    """Windows by the settings that a description holds; each choice of sources and settings has a cache of its own."""
    if cache is not None:
        told = json.dumps([settings, size, frames, sources.signature()], sort_keys=True)
        cache = cache / hashlib.sha256(told.encode()).hexdigest()[:16]
    return WindowMaker(
        sources=sources,
        size=size,
        frames=frames,
        holes=settings["holes"],
        flow=settings["flow"],
        propagate=settings["propagate"],
        motion=_motion(settings["motion"]),
        estimator=make_estimator(settings["estimator"]),
        cache=cache,
    )


def _spread(
    parts: Sequence[tuple[Any, int, int]], stills: Sequence[Path], most: int | None, tracks: Sequence[Any]
) -> Sources:
    """At most so many rows, clips first, of each kind evenly spread."""
    if most is not None:
        check_positive(eval_most=most)
        share = min(len(parts), max(most - len(stills), -(-most // 2)))
        parts = [parts[at] for at in np.linspace(0, len(parts) - 1, share).round().astype(int)] if share else []
        stills = stills[: most - len(parts)]
    return Sources(clips=parts, photographs=stills, tracks=tracks)


def _check_options(counts: Sequence[int], kinds: Sequence[str], *, base: str, flow: str) -> None:
    for name, value, allowed in (("base", base, get_args(Base)), ("flow", flow, get_args(FlowSource))):
        if value not in allowed:
            raise UnknownNameError(name, value, allowed)
    if not counts or counts[0] < 1:
        raise UsageError(f"lengths are {list(counts)}; needed is at least one whole number from 1.")
    if not kinds:
        raise UsageError(f"holes is empty; name at least one kind, such as {DEFAULT_HOLES[0]!r} or {TRACK!r}.")


def _motion(values: Mapping[str, Any]) -> Motion:
    known = [one.name for one in fields(Motion)]
    for name in values:
        if name not in known:
            raise UnknownNameError("part of motion", name, known)
    return Motion(**values)


def _places(value: str | Path | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str | Path) else [str(one) for one in value]


def _size(value: int | Sequence[int]) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or any(side < _LEAST_SIDE or side % _MULTIPLE for side in sides):
        raise ShapeError(
            f"image_size is {value!r}; needed is [height, width], multiples of {_MULTIPLE} from {_LEAST_SIDE}."
        )
    return sides[0], sides[1]
