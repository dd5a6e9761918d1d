"""Following objects in video, for docs/results.md."""

from __future__ import annotations

from statistics import mean
from typing import Any

from markdown_tables import table


def following(record: dict[str, Any]) -> str:
    """Region similarity and boundary accuracy of each way to start, by clip, with speed."""
    ways = list(dict.fromkeys(row["way"] for row in record["rows"]))
    clips = list(dict.fromkeys(row["clip"] for row in record["rows"]))
    found = {(row["clip"], row["way"]): row for row in record["rows"]}
    rows = [[clip, *(f"{found[clip, way]['J']:.2f} / {found[clip, way]['F']:.2f}" for way in ways)] for clip in clips]
    rows.append(
        ["mean", *(" / ".join(f"{mean(found[clip, way][key] for clip in clips):.2f}" for key in "JF") for way in ways)]
    )
    speeds = [row["frames_per_cpu_second"] for row in record["rows"]]
    return (
        f"J / F of DAVIS, one object, without a trained network, at {record['longest_side']} pixels; "
        f"{min(speeds):.0f} to {max(speeds):.0f} frames a CPU second. The settings were chosen on these four clips from "
        "the first mask.\n\n" + table(["", *ways], rows)
    )


def damaged_videos(record: dict[str, Any]) -> str:
    """What became of damaged files."""
    kinds: dict[str, dict[str, int]] = {}
    for outcome, count in record["outcomes"].items():
        damage, _, end = outcome.split(" | ")
        by_end = kinds.setdefault(damage, {})
        by_end[end.split()[0]] = by_end.get(end.split()[0], 0) + count
    rows = [[damage, *(str(ends.get(end, 0)) for end in ("right", "error"))] for damage, ends in kinds.items()]
    return (
        f"{record['videos']} files, each read with damage refused and with damage skipped: {record['wrong']} wrong "
        f"results or crashes, {record['open_files_growth']} files left open, memory grown by "
        f"{record['memory_leaked_mib']:.1f} MiB over repetitions.\n\n"
        + table(["damage", "right results", "errors that say what is wrong"], rows)
    )
