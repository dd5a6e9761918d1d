"""`tenfold erase`: take things out of a video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tenfold.cli.bars import shown_bars
from tenfold.cli.erase_order import EraseOrder, EraseStopped
from tenfold.cli.filling_network import EngineName, tell_engine
from tenfold.cli.output import to_stderr, write_json
from tenfold.cli.values import parse_jobs
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.video.erase_files import EraseProgress, EraseReport
    from tenfold.video.erase_follow import Target

_KEPT = {
    "follow": "Nothing is filled yet, and following begins anew when the same command is given again.",
    "erase": "What is filled is kept; give the same command again to go on, and the result will be the same.",
}


def erase(
    *clips: Path,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    box: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    click: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    mask: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    moving: Annotated[bool, Parameter(negative=())] = False,
    masks: Path | None = None,
    tracks: Path | None = None,
    ids: str | None = None,
    find: Path | None = None,
    classes: Annotated[tuple[str, ...], Parameter(name="--class", negative=())] = (),
    least_score: float = 0.3,
    network: str | None = None,
    network_weights: Path | None = None,
    seam: int = 0,
    device: str = "cpu",
    engine: EngineName = "auto",
    preset: Literal["fast", "good", "best"] = "good",
    dilate: int = 6,
    feather: int | None = None,
    preview: int | None = None,
    lossless: bool = False,
    quality: int = 18,
    sound: bool = True,
    cuts: bool = True,
    memory_mb: int = 1024,
    rate: str | None = None,
    damage: Literal["refuse", "skip"] = "refuse",
    resume: bool = True,
    jobs: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Take things out of a video, or out of many.

    tenfold erase clip.mp4 --box 120,80,60,140@1.5 -o clean.mp4
    tenfold erase clips/*.mp4 --moving -o clean/ --jobs 4

    Say what is to go in one frame; it is followed through the clip, and what it hid is copied from other frames. Pixels
    away from it stay as they are (write a folder or --lossless to keep them to the bit). Memory does not grow with the
    length, save with --tracks and --find. A stopped run goes on with what is not filled when the same command is given
    again. Of many clips, those that are done are not done again, and one that fails is told of and stops no other.

    Args:
        clips: a video file, or a folder with the pictures of a clip; or many of them.
        out: the video to write (.mp4, .m4v, .mov, .mkv), or a folder for numbered PNGs; for many clips, or with --jobs,
            the folder for their results.
        box: X,Y,WIDTH,HEIGHT of a box around the thing, in pixels, and @SECONDS from the start (0 if left out); may
            be repeated.
        click: X,Y of a point on the thing, in pixels, and @SECONDS; may be repeated.
        mask: PICTURE with the mask of the thing in one frame, and @SECONDS; may be repeated.
        moving: the largest thing that moves by itself.
        masks: masks for all frames: a folder with a picture for each, a video, or one picture for all. For many clips
            a folder with such masks for each clip, under its name.
        tracks: a file of tracks, such as `tenfold segment` writes; for many clips a folder with a file for each.
        ids: of the tracks to erase, such as 1,3; all if left out.
        find: the artifact of a CompFeat, its run folder, or its exported step (.onnx), that finds and follows what is
            of a --class.
        classes: name of a class that goes, with all that --find finds of it; may be repeated.
        least_score: what --find is less sure of stays, 0 to 1.
        network: what fills what no frame shows: a run folder, an artifact or an .onnx file of a network for inpainting,
            or the name of one (`tenfold models 'tsam*'`) with --network-weights; default: it is filled smoothly.
        network_weights: of a network given by name.
        seam: how many pixels of what was copied, around what the network fills, it may repair.
        device: where the networks run, such as cpu or cuda.
        engine: what runs the networks: torch for artifacts, onnxruntime or openvino for .onnx files; a run folder that
            holds both can be run by all. auto times those that can on the first window or frame, and takes the fastest.
        preset: fast, good or best: the size at which motion is estimated, and how far is searched.
        dilate: pixels that the masks grow, so that no rim of the thing stays behind.
        feather: pixels of those over which the filling fades into what is around it; default: 3, or as many as masks
            grow if that is less.
        preview: write only a picture of so many frames, before and after, to --out (.png or .jpg).
        lossless: a video that keeps every pixel exactly.
        quality: of a video that does not: 0 (best) to 51.
        sound: keep the sound.
        cuts: look for cuts, and copy nothing across them.
        memory_mb: frames are held in about so much memory at most.
        rate: frames a second of a folder, such as 24 or 30000/1001.
        damage: what to do with a damaged video: refuse, or skip what cannot be decoded.
        resume: go on where a stopped run was; --no-resume begins anew.
        jobs: clips at a time, each in a process of its own; or the Ray cluster that works on them, ray://HOST:PORT, or
            ray for the one that RAY_ADDRESS names, else for this machine. Default for many clips: 1.
        as_json: print one JSON object with shares, sizes and times.
    """
    from tenfold.cli.inpaint import parse_rate
    from tenfold.video.erase import EraseOptions
    from tenfold.video.erase_masks import What

    if not clips:
        raise UsageError("there is no clip to erase in. Name a video file or a folder of pictures, or several.")
    if (find is None) != (not classes):
        raise UsageError(
            "--find and --class go together: a network that finds objects, and the name of a class that goes. "
            "Give both or none."
        )
    order = EraseOrder(
        clip=clips[0],
        out=out,
        what=What(
            targets=tuple(parse_targets(box, click, mask, moving=moving)),
            masks=masks,
            tracks=tracks,
            ids=parse_ids(ids),
        ),
        options=EraseOptions(preset=preset, dilate=dilate, feather=feather, cuts=cuts, memory_mb=memory_mb),
        find=find,
        classes=classes,
        least_score=least_score,
        network=network,
        network_weights=network_weights,
        seam=seam,
        device=device,
        engine=engine,
        rate=parse_rate(rate),
        lossless=lossless,
        quality=quality,
        sound=sound,
        damage=damage,
        resume=resume,
    )
    if len(clips) > 1 or jobs is not None:
        from tenfold.cli.erase_many import erase_many

        if preview is not None:
            raise UsageError("--preview is for one clip; leave out the others and --jobs.")
        where = parse_jobs(jobs or "1", gpus=int(device.startswith("cuda")))
        return erase_many(clips, out, order, where, as_json=as_json)
    if preview is not None:
        _preview(order, preview, as_json=as_json)
        return 0
    with shown_progress() as progress:
        report = order.carry_out(progress=progress)
    if as_json:
        write_json(report.to_dict())
    _tell(report)
    return 0


def _preview(order: EraseOrder, count: int, *, as_json: bool) -> None:
    from tenfold.video.erase_preview import preview_clip

    nothing = "Of a preview nothing is kept; give the same command again."
    with shown_progress({"follow": nothing, "erase": nothing}) as progress:
        shown = preview_clip(
            order.clip,
            order.out,
            order.all_that_goes(),
            count,
            options=order.options,
            filling=order.filling(),
            rate=order.rate,
            damage=order.damage,
            progress=progress,
        )
    if as_json:
        write_json({"out": order.out, "frames": shown})
    to_stderr(f"[dim]frames {', '.join(map(str, shown))}, before and after: {order.out}[/]")


def parse_targets(
    boxes: Sequence[str], clicks: Sequence[str], masks: Sequence[str], *, moving: bool = False
) -> list[Target]:
    """Things that are pointed at, as the command line has them.

    Raises:
        UsageError: if one of them is not of the form that is needed.
    """
    from tenfold.video.erase_follow import Target

    targets = [Target(moving=True)] if moving else []
    for text in boxes:
        x, y, width, height, time = _numbers("--box", text, 4, "120,80,60,140@1.5 (X,Y,WIDTH,HEIGHT@SECONDS)")
        if width <= 0 or height <= 0:
            raise UsageError(f"--box {text}: the box has no area; its width and height are above 0.")
        targets.append(Target(box=(float(x), float(y), float(width), float(height)), time=time))
    for text in clicks:
        x, y, time = _numbers("--click", text, 2, "150,120@1.5 (X,Y@SECONDS)")
        targets.append(Target(click=(float(x), float(y)), time=time))
    for text in masks:
        name, at, seconds = text.rpartition("@")
        if at and re.fullmatch(r"\d+(\.\d*)?", seconds):
            targets.append(Target(mask=Path(name), time=Fraction(seconds)))
        else:
            targets.append(Target(mask=Path(text)))
    return targets


def parse_ids(text: str | None) -> tuple[int, ...]:
    """Ids of tracks, as the command line has them.

    Raises:
        UsageError: if they are no numbers.

    Example:
        >>> parse_ids("1,3")
        (1, 3)
    """
    if text is None:
        return ()
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UsageError(f"--ids {text} is not of the form 1,3: numbers of tracks with commas between them.")
    return tuple(map(int, text.split(",")))


def _numbers(option: str, text: str, count: int, form: str) -> list[Fraction]:
    """The numbers of a box or a click, and the time behind the @."""
    place, at, seconds = text.partition("@")
    try:
        numbers = [Fraction(part.strip()) for part in place.split(",")]
        time = Fraction(seconds) if at else Fraction(0)
        if len(numbers) == count and time >= 0:
            return [*numbers, time]
    except (ValueError, ZeroDivisionError):
        pass
    raise UsageError(f"{option} {text} is not of the form {form}.")


def _tell(report: EraseReport) -> None:
    told = report.account.to_dict()
    if not told["hole_pixels"]:
        to_stderr("Nothing was to be erased: every frame is as it was.")
    else:
        to_stderr(
            f"[bold]{told['copied_share']:.1%}[/] of what was hidden copied from other frames "
            f"({told['mean_distance_frames']:.1f} frames away on average), "
            f"[bold]{told['invented_share']:.1%}[/] never visible and made up."
        )
    whole = sum(report.seconds.values())
    shares = ", ".join(f"{name} {seconds / max(whole, 1e-9):.0%}" for name, seconds in report.seconds.items())
    before = f", {report.resumed_from} of them done before" if report.resumed_from else ""
    to_stderr(f"[dim]{report.account.frames} frames{before} in {whole:.1f} s ({shares})[/]")
    tell_engine(report.find_engine, "objects found")
    tell_engine(report.engine)
    to_stderr(f"[dim]{report.out}[/]")


@contextmanager
def shown_progress(kept: Mapping[str, str] = _KEPT) -> Iterator[EraseProgress]:
    """A bar on a terminal, and an ear for those who want to stop; they are told what is kept, by the stage."""
    from tenfold.train.interrupts import stop_requests

    with stop_requests() as request, shown_bars(9) as show:

        def progress(stage: Literal["follow", "erase"], done: int, total: int | None) -> None:
            if show is not None:
                show({"follow": "following", "erase": "erasing"}[stage], done, total)
            if request:
                raise EraseStopped(f"erasing was stopped ({request.signal_name}). {kept[stage]}")

        yield progress
