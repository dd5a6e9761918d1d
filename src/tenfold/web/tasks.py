"""What the process of a job does: each kind reads and writes in folders that the server named, nowhere else."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.record_files import RecordFile
from tenfold.data.video import VideoLimits, VideoReader
from tenfold.errors import DataError

Report = Callable[[str, int, int | None], None]

SHOWN_SIDE = 960
"""The longer side of the pictures that the page shows, in pixels."""
SOURCE, FRAMES, MASKS, RESULT = "source", "frames.bin", "masks.bin", "result.mp4"
_JPEG_QUALITY = 85


def prepare_clip(
    request: Mapping[str, Any], folders: Mapping[str, Path], order: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Read an uploaded clip (or render the sample) once, and keep its frames as the page shows them."""
    folder = folders["clip"]
    if request.get("sample") and not (folder / SOURCE).exists():
        from tenfold.data.sample import write_sample

        report("render", 0, None)
        write_sample(folder / "sample.mp4").replace(folder / SOURCE)
    with VideoReader(folder / SOURCE, damage="skip", limits=VideoLimits(frames=order["clip_frames"])) as video:
        info = video.info
        scale = min(1.0, SHOWN_SIDE / max(info.height, info.width))
        shown = (max(1, round(info.height * scale)), max(1, round(info.width * scale)))
        count, end = 0, 0.0
        with RecordFile(folder / FRAMES, write=True) as frames:
            for frame in video:
                frames.append(frame.index, jpeg(frame.image, shown))
                count, end = frame.index + 1, float(frame.time)
                report("read", count, info.frames)
        if not count:
            raise DataError("the clip has no frames.")
        return {
            "width": info.width,
            "height": info.height,
            "shown": [shown[1], shown[0]],
            "frames": count,
            "rate": float(info.rate),
            "seconds": end + 1 / float(info.rate),
            "sound": info.has_sound,
            "codec": info.codec,
            "damaged": video.damaged,
        }


def follow(
    request: Mapping[str, Any], folders: Mapping[str, Path], order: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Follow what was pointed at through the clip."""
    from tenfold.video.erase_follow import Target, follow_targets
    from tenfold.video.mask_store import MaskStore

    path = folders["follow"] / MASKS
    path.unlink(missing_ok=True)
    with VideoReader(folders["clip"] / SOURCE, damage="skip") as video:
        width, height = video.info.width, video.info.height
        targets = [] if request["marks"] else [Target(moving=True)]
        for mark in request["marks"]:
            if mark["point"] is not None:
                x, y = mark["point"]
                click = (min(x * width, width - 1), min(y * height, height - 1))
                targets.append(Target(click=click, frame=mark["frame"]))
            else:
                left, right = sorted((mark["box"][0] * width, mark["box"][2] * width))
                top, bottom = sorted((mark["box"][1] * height, mark["box"][3] * height))
                box = (left, top, max(1.0, right - left), max(1.0, bottom - top))
                targets.append(Target(box=box, frame=mark["frame"]))
        with MaskStore(path, (height, width), write=True) as store:
            count = follow_targets(video, targets, store, progress=lambda done, total: report("follow", done, total))
            seen = sum(bool(store.records.read(number)) for number in store.records)
    return {"frames": count, "seen": seen}


def erase(
    request: Mapping[str, Any], folders: Mapping[str, Path], order: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Erase what was followed, and keep the frames of the result as the page shows them."""
    from tenfold.video.erase import EraseOptions
    from tenfold.video.erase_files import erase_clip
    from tenfold.video.erase_masks import What

    folder = folders["erase"]
    options = EraseOptions(
        preset=request["preset"],
        dilate=request["dilate"],
        feather=min(request["feather"], request["dilate"]),
        memory_mb=max(64, order["memory_mb"] // 4),
    )
    done = erase_clip(
        folders["clip"] / SOURCE,
        folder / RESULT,
        What(stored=folders["follow"] / MASKS),
        options=options,
        lossless=request["lossless"],
        damage="skip",
        work=folder / "work",
        progress=report,
    )
    total = done.account.frames
    with VideoReader(folder / RESULT) as video, RecordFile(folder / FRAMES, write=True) as frames:
        scale = min(1.0, SHOWN_SIDE / max(video.info.height, video.info.width))
        shown = (max(1, round(video.info.height * scale)), max(1, round(video.info.width * scale)))
        for frame in video:
            frames.append(frame.index, jpeg(frame.image, shown))
            report("show", frame.index + 1, total)
    told = done.to_dict()
    names = ("frames", "copied_share", "invented_share", "seconds", "frames_per_second", "resumed_from")
    return {name: told[name] for name in names} | {"bytes": (folder / RESULT).stat().st_size}


def profile(
    request: Mapping[str, Any], folders: Mapping[str, Path], order: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Count what a network costs, and hold it against a budget."""
    from tenfold import cost, models

    report("count", 0, None)
    facts = models.facts(request["model"])
    shape = tuple(request["shape"]) if request["shape"] else tuple(facts.input_shape)
    facts.check_input(shape)
    options = {"in_channels": shape[0]} if shape[0] != facts.input_shape[0] else {}
    bits = tuple(request["bits"]) if request["bits"] else None
    counted = cost.profile(models.build(request["model"], **options), shape, bits=bits)
    budget = cost.Budget.parse(request["budget"]) if request["budget"] else cost.Budget()
    limits = {name: limit for name, limit in budget.to_dict().items() if name != "latency_ms"}
    used = {"macs": counted.macs, "params": counted.params, "bytes": counted.size_bytes, "bitops": counted.bitops}
    rows = [
        {"name": layer.name, "kind": layer.kind, "macs": layer.macs, "params": layer.params, "bytes": layer.size_bytes}
        for layer in counted.layers
        if layer.macs or layer.params
    ]
    return {"input": list(shape), "bits": request["bits"], "used": used, "limits": limits, "layers": rows}


def jpeg(image: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """A frame, uint8 (H, W, 3), at a size (height, width) as the page shows it."""
    picture = Image.fromarray(image)
    if (picture.height, picture.width) != size:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()


TASKS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "clip": prepare_clip,
    "follow": follow,
    "erase": erase,
    "profile": profile,
}
"""What each kind of job does."""
