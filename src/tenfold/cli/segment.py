"""`tenfold segment`: follow objects through a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from tenfold.cli.bars import shown_bars
from tenfold.cli.finding_network import open_segmenter
from tenfold.cli.output import to_stderr, write_json
from tenfold.cli.values import ONNX_SUFFIX
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.video.segment_files import SegmentReport

_MOST_SHOWN = 20


def segment(
    clip: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    overlay: Path | None = None,
    box: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    click: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    mask: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    moving: Annotated[bool, Parameter(negative=())] = False,
    network: Path | None = None,
    least_score: float = 0.3,
    longest_side: int = 320,
    rate: str | None = None,
    quality: int = 18,
    sound: bool = True,
    damage: Literal["refuse", "skip"] = "refuse",
    device: str = "cpu",
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Follow objects through a video.

    tenfold segment clip.mp4 --box 120,80,60,140@1.5 -o tracks.json --overlay overlay.mp4

    Point at an object in one frame, or let the largest thing that moves be found: it is followed to the end and back to
    the start, without a trained network. Or give a network that finds objects by itself. Memory does not grow with the
    length.

    Args:
        clip: a video file, or a folder with the pictures of a clip.
        out: JSON file for the tracks, in the form of YouTube-VIS' results, with ids and times.
        overlay: a video that shows the objects in colours (.mp4, .m4v, .mov, .mkv).
        box: X,Y,WIDTH,HEIGHT of a box around an object, in pixels, and @SECONDS from the start (0 if left out); may be
            repeated.
        click: X,Y of a point on an object, in pixels, and @SECONDS; may be repeated.
        mask: PICTURE with the mask of an object in one frame, and @SECONDS; may be repeated.
        moving: find the largest thing that moves by itself.
        network: the artifact of a CompFeat, its run folder, or the step that `tenfold export` wrote of it (.onnx).
        least_score: with a network: what is less sure is left out, 0 to 1.
        longest_side: without a network: size at which objects are followed; larger frames are shrunk for that.
        rate: frames a second of a folder, such as 24 or 30000/1001.
        quality: of the overlay: 0 (best) to 51.
        sound: keep the sound in the overlay.
        damage: what to do with a damaged video: refuse, or skip what cannot be decoded.
        device: where the network runs, such as cpu or cuda.
        as_json: print one JSON object with objects, sizes and times.
    """
    from tenfold.cli.erase import parse_targets
    from tenfold.cli.inpaint import parse_rate
    from tenfold.video.follow import FollowOptions
    from tenfold.video.segment_files import segment_clip

    targets, frames_a_second = parse_targets(box, click, mask), parse_rate(rate)
    if network is not None and network.suffix == ONNX_SUFFIX and (targets or moving):
        raise UsageError(f"{network} follows what it finds by itself. To point at objects, give the artifact.")
    segmenter = None if network is None else open_segmenter(network, least_score=least_score, device=device)
    with shown_bars(14) as progress:
        report = segment_clip(
            clip,
            out,
            targets,
            moving=moving,
            network=segmenter,
            options=FollowOptions(longest_side=longest_side),
            overlay=overlay,
            rate=frames_a_second,
            quality=quality,
            sound=sound,
            damage=damage,
            progress=progress,
        )
    if as_json:
        write_json(report.to_dict())
    _tell(report)


def _tell(report: SegmentReport) -> None:
    told = report.to_dict()
    if not report.tracks:
        to_stderr("No object was seen.")
    else:
        table = Table(box=None, pad_edge=False)
        for name in ("id", "object", "frames", "first", "last", "score"):
            table.add_column(name, justify="left" if name == "object" else "right")
        for one in told["objects"][:_MOST_SHOWN]:
            numbers = (one["id"], one["category"], one["frames"], one["first_frame"], one["last_frame"])
            table.add_row(*map(str, numbers), f"{one['score']:.2f}")
        to_stderr(table)
        if len(report.tracks) > _MOST_SHOWN:
            to_stderr(f"[dim]and {len(report.tracks) - _MOST_SHOWN} more in the file[/]")
    to_stderr(
        f"[dim]{report.frames} frames in {report.seconds:.1f} s ({told['frames_per_second']:.1f} a second)[/]",
        f"[dim]{report.out}[/]",
    )
    if report.overlay is not None:
        to_stderr(f"[dim]{report.overlay}[/]")
