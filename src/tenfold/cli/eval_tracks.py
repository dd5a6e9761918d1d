"""`tenfold eval-tracks`: judge found tracks of objects against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json

if TYPE_CHECKING:
    from tenfold.tasks.track_precision import TrackScores

_FRAMES = ("AP", "AP50", "AP75")


def eval_tracks(
    results: Path,
    ground_truth: Path,
    /,
    *,
    lenient: Annotated[bool, Parameter(negative=())] = False,
    frames: Annotated[bool, Parameter(negative=())] = False,
    hota: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Measure how well objects were found, segmented and followed in videos, as YouTube-VIS does.

    The twelve numbers equal those of the official program. Both files are checked first, every mask of them.

    Args:
        results: what was found: a JSON list of {video_id, category_id, score, segmentations}.
        ground_truth: a JSON object with videos, categories and annotations.
        lenient: take results whose number of masks is not that of their video's frames; both are cut to the shorter
            one, as the official program does.
        frames: judge each frame by itself, too: how good the masks are, whatever became of identities.
        hota: HOTA, identity and CLEAR measures, too (needs the extra "hota").
        as_json: print one JSON object.
    """
    from tenfold.tasks.track_files import read_results, read_truth
    from tenfold.tasks.track_precision import evaluate_tracks, single_frames

    truth = read_truth(ground_truth)
    found = read_results(results, truth, strict=not lenient)
    scores = evaluate_tracks(truth, found)
    by_frame = evaluate_tracks(*single_frames(truth, found)).stats if frames else None
    more = None
    if hota:
        from tenfold.tasks.track_hota import evaluate_hota

        more = evaluate_hota(truth, found)
    if as_json:
        optional = {"frames": by_frame and {key: by_frame[key] for key in _FRAMES}, "hota": more}
        write_json(
            {
                "results": results,
                "ground_truth": ground_truth,
                "videos": len(truth.videos),
                "tracks": len(found),
                "stats": scores.stats,
                "per_category": {truth.categories[key]: value for key, value in scores.per_category.items()},
                "per_iou": scores.per_iou,
                **{key: value for key, value in optional.items() if value is not None},
            }
        )
        return
    _show(scores, {truth.categories[key]: value for key, value in scores.per_category.items()})
    if by_frame is not None:
        to_stdout("\nframe by frame  " + "  ".join(f"{key} [bold]{_percent(by_frame[key])}[/]" for key in _FRAMES))
    if more is not None:
        overall = more["mean over detections"]
        shown = [f"{key} [bold]{_percent(overall[key])}[/]" for key in ("HOTA", "DetA", "AssA", "IDF1", "MOTA")]
        to_stdout("\n" + "  ".join(shown) + f"  identity switches [bold]{overall['IDSW']:.0f}[/]")
    to_stderr(f"[dim]{len(found)} tracks against {len(truth.tracks)} in {len(truth.videos)} videos[/]")


def _show(scores: TrackScores, categories: dict[str, dict[str, float]]) -> None:
    from rich.table import Table

    columns = ("AP", "AP50", "AP75", "AR1", "AR10")
    table = Table("", *columns, box=None, header_style="dim")
    for name, values in categories.items():
        table.add_row(name, *(_percent(values[key]) for key in columns))
    table.add_row("[bold]all[/]", *(f"[bold]{_percent(scores.stats[key])}[/]" for key in columns))
    to_stdout(table)
    sizes = {"s": "small", "m": "medium", "l": "large"}
    to_stdout("by size  " + "  ".join(f"{name} {_percent(scores.stats[f'AP{key}'])}" for key, name in sizes.items()))


def _percent(share: float) -> str:
    return "-" if share == -1 else f"{share:.1%}"
