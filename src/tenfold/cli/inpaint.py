"""`tenfold inpaint`: fill holes in a video, or remove what masks cover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tenfold.cli.bars import shown_bars
from tenfold.cli.filling_network import EngineName, make_filling, tell_engine
from tenfold.cli.output import to_stderr, write_json
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.video.inpaint_files import FrameProgress, InpaintReport


def inpaint(
    clip: Path,
    /,
    *,
    mask: Path | None = None,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    provenance: Path | None = None,
    dilate: int = 0,
    flow: str = "dis",
    flow_weights: Path | None = None,
    network: str | None = None,
    network_weights: Path | None = None,
    seam: int = 0,
    passes: int = 2,
    reach: int = 24,
    longest_side: int = 432,
    memory_mb: int = 1024,
    cuts: bool = True,
    rate: str | None = None,
    lossless: bool = False,
    quality: int = 18,
    sound: bool = True,
    damage: Literal["refuse", "skip"] = "refuse",
    device: str = "cpu",
    engine: EngineName = "auto",
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Fill holes in a video, or remove what masks cover.

    tenfold inpaint clip.mp4 --mask masks/ -o out.mp4

    What other frames show is copied from there, at full size; what none shows is filled by --network, or smoothly.
    Pixels outside the masks stay as they are (write a folder or --lossless to keep them to the bit). Memory does not
    grow with the length.

    Args:
        clip: a video file, or a folder with the pictures of a clip.
        mask: what to fill: a folder with a picture for each frame (0 = keep), a video, or one picture for all frames;
            default: the masks/ beside the frames of a folder.
        out: the video to write (.mp4, .m4v, .mov, .mkv), or a folder for numbered PNGs.
        provenance: folder for maps that show, pixel for pixel, what was copied from which frame and what was invented.
        dilate: pixels that the masks grow, for masks that are too tight.
        flow: how motion is found: dis, dis:fast, dis:ultrafast, raft_small or raft_large.
        flow_weights: weights of RAFT, a .safetensors file of torchvision's network.
        network: what fills what no frame shows: a run folder, an artifact or an .onnx file of a network for inpainting,
            or the name of one (`tenfold models 'tsam*'`) with --network-weights; default: it is filled smoothly.
        network_weights: of a network given by name: a file of ours, or the TSAM authors' checkpoint.
        seam: how many pixels of what was copied, around what the network fills, it may repair.
        passes: how often motion is estimated; 1 is faster, 2 better.
        reach: how many frames before and after are searched, 1 to 119.
        longest_side: size at which motion is estimated; larger frames are shrunk for that alone.
        memory_mb: frames are held in about so much memory at most.
        cuts: look for cuts, and copy nothing across them.
        rate: frames a second of a folder, such as 24 or 30000/1001.
        lossless: a video that keeps every pixel exactly.
        quality: of a video that does not: 0 (best) to 51.
        sound: keep the sound.
        damage: what to do with a damaged video: refuse, or skip what cannot be decoded.
        device: where RAFT and the network run, such as cpu or cuda.
        engine: what runs the network: torch for artifacts, onnxruntime or openvino for .onnx files; a run folder that
            holds both can be run by all. auto times those that can on the first window, and takes the fastest.
        as_json: print one JSON object with shares, sizes and times.
    """
    from tenfold.video.flow import make_estimator
    from tenfold.video.inpaint import InpaintOptions
    from tenfold.video.inpaint_files import inpaint_clip

    options = InpaintOptions(
        dilate=dilate, passes=passes, reach=reach, longest_side=longest_side, memory_mb=memory_mb, cuts=cuts
    )
    estimator = make_estimator(flow, flow_weights, device)
    filling = make_filling(network, network_weights, seam=seam, device=device, engine=engine)
    with _shown_progress() as progress:
        report = inpaint_clip(
            clip,
            mask,
            out,
            options=options,
            filling=filling,
            estimator=estimator,
            provenance=provenance,
            rate=parse_rate(rate),
            lossless=lossless,
            quality=quality,
            sound=sound,
            damage=damage,
            progress=progress,
        )
    if as_json:
        write_json(report.to_dict())
    _tell(report)


def parse_rate(rate: str | None) -> Fraction | None:
    """Frames a second, as the command line has them.

    Raises:
        UsageError: if it is no number.
    """
    if rate is None:
        return None
    try:
        return Fraction(rate)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"--rate {rate} is no number; give frames a second, such as 24, 29.97 or 30000/1001."
        ) from error


def _tell(report: InpaintReport) -> None:
    told = report.account.to_dict()
    if not told["hole_pixels"]:
        to_stderr("The masks are empty: every frame is as it was.")
    else:
        to_stderr(
            f"[bold]{told['copied_share']:.1%}[/] of the holes copied from other frames "
            f"({told['mean_distance_frames']:.1f} frames away on average), "
            f"[bold]{told['invented_share']:.1%}[/] never visible and made up."
        )
    if report.account.cuts:
        to_stderr(f"[dim]cuts before the frames {', '.join(map(str, report.account.cuts))}[/]")
    plan = report.plan
    to_stderr(
        f"[dim]{report.account.frames} frames in {report.seconds:.1f} s, motion at {plan.working_size[1]} x "
        f"{plan.working_size[0]}, at most {plan.frames} frames held (about {plan.memory_mb} MB)[/]"
    )
    tell_engine(report.engine)
    to_stderr(f"[dim]{report.out}[/]")


@contextmanager
def _shown_progress() -> Iterator[FrameProgress | None]:
    with shown_bars(len("inpainting")) as show:
        yield show and partial(show, "inpainting")
