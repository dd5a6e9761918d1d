"""From a clip on the disk to an inpainted one, whole or not at all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.data.clip_video import ClipMasks, PictureVideo, masked_frames, open_clip_video
from tenfold.data.video import Damage, VideoFrame, VideoReader
from tenfold.data.video_writing import MUXERS, VideoWriter
from tenfold.errors import UsageError
from tenfold.files import check_keeps, folder_written_whole
from tenfold.video.engine_choice import EngineReport
from tenfold.video.filling import Filling
from tenfold.video.flow import FlowEstimator
from tenfold.video.inpaint import InpaintedFrame, InpaintOptions, InpaintSession, Plan
from tenfold.video.network_filling import NetworkFilling
from tenfold.video.provenance import Account, write_provenance

FrameProgress = Callable[[int, int | None], None]
"""Called with the frames done and, where it is known, their number."""


@dataclass(frozen=True)
class InpaintReport:
    """What was done.

    Args:
        out: where the result is.
        account: shares of copied, repaired and invented pixels.
        plan: working size and memory.
        seconds: what it took.
        engine: which runtime ran the network, if one was needed.
    """

    out: Path
    account: Account
    plan: Plan
    seconds: float
    engine: EngineReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": self.out,
            **self.account.to_dict(),
            "working_size": self.plan.working_size,
            "reach": self.plan.reach,
            "frames_held": self.plan.frames,
            "memory_mb": self.plan.memory_mb,
            "seconds": self.seconds,
            "engine": self.engine and asdict(self.engine),
            "frames_per_second": self.account.frames / max(self.seconds, 1e-9),
        }


def inpaint_clip(
    clip: str | Path,
    mask: str | Path | None,
    out: str | Path,
    *,
    options: InpaintOptions | None = None,
    filling: Filling | None = None,
    estimator: FlowEstimator | None = None,
    provenance: str | Path | None = None,
    rate: Fraction | None = None,
    lossless: bool = False,
    quality: int = 18,
    sound: bool = True,
    damage: Damage = "refuse",
    progress: FrameProgress | None = None,
) -> InpaintReport:
    """Fill holes in a video, or remove what masks cover.

    Args:
        clip: a video file, or a folder with the pictures of one clip.
        mask: what to fill; see tenfold.data.clip_video.ClipMasks.
        out: a video file (.mp4, .m4v, .mov, .mkv), or a folder for numbered PNGs, which keep every pixel.
        options: see InpaintOptions.
        filling: fills what no frame shows; smoothly by default.
        estimator: finds the optical flow; DIS by default.
        provenance: folder for a map a frame of where its pixels come from; see tenfold.video.provenance.
        rate: frames a second, for a folder of pictures.
        lossless: a video file that keeps every pixel exactly.
        quality: of a video file that is not lossless; see VideoWriter.
        sound: whether to copy the sound.
        damage: "refuse" or "skip" what cannot be decoded.
        progress: called after each frame.

    Raises:
        UsageError: if an option is not allowed, or `out` is the clip itself or its masks.
        DataError: if the clip or its masks cannot be read, or do not fit each other.
        StorageError: if a result cannot be written; nothing is left half written.
    """
    out = Path(out)
    if out.suffix and out.suffix.lower() not in MUXERS:
        raise UsageError(
            f"--out {out} ends in {out.suffix!r}; written are {', '.join(MUXERS)}, or numbered PNGs in a folder, whose "
            "name has no ending."
        )
    check_keeps(out, [clip, mask])
    started = time.perf_counter()
    account = Account()
    with ExitStack() as stack:
        video: VideoReader | PictureVideo = open_clip_video(clip, rate=rate, damage=damage)
        stack.enter_context(video)
        masks = stack.enter_context(ClipMasks(mask, video, damage=damage))
        session = InpaintSession(options, filling=filling, estimator=estimator)
        maps = stack.enter_context(folder_written_whole(provenance)) if provenance is not None else None
        write = (
            _video_writer(stack, out, clip, video, lossless, quality, sound, damage)
            if out.suffix
            else _picture_writer(stack, out, video)
        )
        for frame, done in _filled(session, masked_frames(video, masks)):
            write(frame, done.frame)
            account.add(done.provenance)
            if done.begins_scene:
                account.cuts.append(done.number)
            if maps is not None:
                write_provenance(maps / f"{done.number:05d}.png", done.provenance)
            if progress is not None:
                progress(account.frames, video.info.frames)
    assert session.plan is not None
    engine = filling.engine if isinstance(filling, NetworkFilling) else None
    return InpaintReport(out, account, session.plan, time.perf_counter() - started, engine)


def _filled(
    session: InpaintSession, frames: Iterator[tuple[VideoFrame, NDArray[np.bool_]]]
) -> Iterator[tuple[VideoFrame, InpaintedFrame]]:
    """Each frame with what became of it."""
    waiting: deque[VideoFrame] = deque()
    for frame, mask in frames:
        waiting.append(frame)
        for done in session.push(frame.image, mask):
            yield waiting.popleft(), done
    for done in session.finish():
        yield waiting.popleft(), done


def _video_writer(
    stack: ExitStack,
    out: Path,
    clip: str | Path,
    video: VideoReader | PictureVideo,
    lossless: bool,
    quality: int,
    sound: bool,
    damage: Damage,
) -> Callable[[VideoFrame, NDArray[np.uint8]], None]:
    source = clip if sound and video.info.has_sound else None
    writer = stack.enter_context(
        VideoWriter(out, video.info, sound_from=source, lossless=lossless, quality=quality, damage=damage)
    )
    return lambda frame, image: writer.write_image(image, frame.pts, frame.duration)


def _picture_writer(
    stack: ExitStack, out: Path, video: VideoReader | PictureVideo
) -> Callable[[VideoFrame, NDArray[np.uint8]], None]:
    folder = stack.enter_context(folder_written_whole(out))
    names = [path.stem for path in video.clip.frames] if isinstance(video, PictureVideo) else None

    def write(frame: VideoFrame, image: NDArray[np.uint8]) -> None:
        name = names[frame.index] if names else f"{frame.index:05d}"
        Image.fromarray(image).save(folder / f"{name}.png", compress_level=1)

    return write
