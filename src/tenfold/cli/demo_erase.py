"""`tenfold demo erase`: a clip that is rendered here, erased, and held against its truth."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.errors import TrainingError, require
from tenfold.files import written_whole

if TYPE_CHECKING:
    from tenfold.data.sample import SampleFrame

LEAST_PSNR = 20.0
"""Of the pixels behind the object, in dB, that the demo promises."""
_SHOWN = (0.2, 0.5, 0.76)
_GAP = 6


def demo_erase(folder: Path, picture: Path | None, *, quick: bool, as_json: bool) -> None:
    """Render the sample, erase what moves in it, and compare with what is behind it.

    Args:
        folder: for the clip and the result.
        picture: file for frames before and after, or None.
        quick: a shorter clip, whose quality is not checked.
        as_json: print one JSON object.

    Raises:
        TrainingError: if the result is farther from the truth than promised.
    """
    for package in ("sklearn", "cv2"):
        require(package, "demo")
    from tenfold.cli.erase import shown_progress
    from tenfold.data.sample import sample_frames, write_sample
    from tenfold.data.video import VideoReader
    from tenfold.video.erase_files import erase_clip
    from tenfold.video.erase_follow import Target
    from tenfold.video.erase_masks import What

    start = time.perf_counter()
    truth = list(sample_frames(16, 120, 216) if quick else sample_frames())
    to_stderr("\n[bold cyan]1/3[/] [bold]Rendering a clip: a flower drifts through a photograph[/]")
    source = write_sample(folder / "sample.mp4", truth)
    to_stderr("[bold cyan]2/3[/] [bold]Finding what moves, following it, and erasing it[/]")
    with shown_progress() as progress:
        report = erase_clip(
            source, folder / "clean.mp4", What(targets=(Target(moving=True),)), lossless=True, progress=progress
        )
    to_stderr("[bold cyan]3/3[/] [bold]Comparing with what is behind it[/]")
    with VideoReader(source) as before, VideoReader(folder / "clean.mp4") as after:
        shown, made = ([frame.image for frame in video] for video in (before, after))
    if picture is not None:
        write_before_after(picture, shown, made)
    untouched, erased = (behind_object_psnr(frames, truth) for frames in (shown, made))
    seconds = time.perf_counter() - start
    told = report.to_dict()
    facts = {
        "folder": folder,
        "clip": source,
        "result": folder / "clean.mp4",
        "psnr_db": erased,
        "psnr_with_object_db": untouched,
        "copied_share": told["copied_share"],
        "invented_share": told["invented_share"],
        "frames_per_second": told["frames_per_second"],
        "seconds": seconds,
    }
    if as_json:
        write_json(facts)
    else:
        to_stdout(
            f"\n[bold]{erased:.1f} dB[/] PSNR behind the object ({untouched:.1f} dB with it), "
            f"{told['copied_share']:.1%} copied from other frames, {told['frames_per_second']:.1f} frames a second"
        )
    if not quick and erased < LEAST_PSNR:
        raise TrainingError(
            f"{folder / 'clean.mp4'} has {erased:.1f} dB behind the object; promised are {LEAST_PSNR:g} dB. This is a "
            "mistake in Tenfold; please report it with the output of `tenfold doctor`."
        )
    to_stderr(f"\n[green]Done in {seconds:.0f} s.[/] Watch [bold]{source}[/] and [bold]{folder / 'clean.mp4'}[/]")
    to_stderr("[dim]Next: tenfold serve, or tenfold erase CLIP --box X,Y,WIDTH,HEIGHT -o clean.mp4[/]")


def behind_object_psnr(frames: list[NDArray[np.uint8]], truth: list[SampleFrame]) -> float:
    """Peak signal-to-noise ratio of all pixels that the object covers, in dB, against what is behind it.

    Args:
        frames: uint8 (H, W, 3).
        truth: of the same frames.
    """
    error, count = 0.0, 0
    for frame, true in zip(frames, truth, strict=True):
        off = frame[true.mask].astype(np.float64) - true.truth[true.mask]
        error, count = error + float((off**2).sum()), count + off.size
    return 10 * math.log10(255**2 / max(error / max(count, 1), 1e-12))


def write_before_after(path: Path, before: list[NDArray[np.uint8]], after: list[NDArray[np.uint8]]) -> None:
    """Draw three frames of a clip above what became of them.

    Raises:
        StorageError: if it cannot be written.
    """
    numbers = [round(part * (len(before) - 1)) for part in _SHOWN]
    rows = []
    for frames in (before, after):
        gap = np.full((frames[0].shape[0], _GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([piece for number in numbers for piece in (frames[number], gap)][:-1], axis=1))
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    drawn = Image.fromarray(np.concatenate([rows[0], gap, rows[1]]))
    width = min(1440, drawn.width)
    drawn = drawn.resize((width, round(drawn.height * width / drawn.width)), Image.Resampling.LANCZOS)
    with written_whole(path) as part:
        drawn.save(part, format="PNG" if path.suffix.lower() == ".png" else "JPEG", quality=88)
