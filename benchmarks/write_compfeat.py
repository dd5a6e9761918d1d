"""The section of the results page about CompFeat on SpriteVIS."""

from __future__ import annotations

from statistics import mean
from typing import Any

from markdown_tables import spread, table

_ORDER = (
    "O", "A", "B", "C", "D", "S0", "S1", "D without frames", "D without objects", "B window:2", "B aligned",
    "B with places",
)  # fmt: skip
_PAIRS = (("D", "A"), ("B", "A"), ("C", "B"), ("D", "C"), ("S0", "A"), ("S1", "A"), ("B", "S0"))


def compfeat_sprites(record: dict[str, Any]) -> str:
    """Precision of every arm, and of what is between two arms of one seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for run in record["runs"]:
        found.setdefault(run["arm"], {})[run["seed"]] = run
    numbers = ("ap50", "ap75", "ar1", "ar10", "frame_ap_clean", "frame_ap_degraded")
    rows = []
    for arm in (one for one in _ORDER if one in found):
        runs = list(found[arm].values())
        means = [f"{mean(100 * run[name] for run in runs):.1f}" for name in numbers]
        rows.append([arm, spread([100 * run["ap"] for run in runs]), *means, _identities(runs), _time(runs)])
    header = ["", "AP", "AP50", "AP75", "AR1", "AR10", "frames, clean", "frames, degraded"]
    text = (
        f"{record['network']}; {record['steps']} steps of {record['batch']} items, {record['judged_videos']} videos of "
        f"{record['judged_frames']} frames to judge by, in percent; means over seeds. Identities: AssA of all videos / "
        "of those with lookalikes.\n\n" + table([*header, "identities", "ms a frame"], rows)
    )
    gains = [row for pair in _PAIRS if (row := _gain(found, *pair)) is not None]
    if gains:
        text += (
            "\n\nGains by seed, and the middle 95 % of their mean over random choices of the judged videos:\n\n"
            + table(["", "AP by seed", "95 % of choices", "frames, clean", "frames, degraded"], gains)
        )
    return text


def _gain(found: dict[str, dict[int, dict[str, Any]]], arm: str, base: str) -> list[str] | None:
    """What an arm gains over another with the same seeds; None if they share none."""
    seeds = sorted(found.get(arm, {}).keys() & found.get(base, {}).keys())
    if not seeds:
        return None
    pairs = [(found[arm][seed], found[base][seed]) for seed in seeds]
    drawn = sorted(100 * mean(values) for values in zip(*(_differences(*pair) for pair in pairs), strict=True))
    ends = drawn[round(0.025 * (len(drawn) - 1))], drawn[round(0.975 * (len(drawn) - 1))]

    def gained(name: str) -> list[float]:
        return [100 * (one[name] - other[name]) for one, other in pairs]

    return [
        f"{arm} - {base}",
        ", ".join(f"{value:+.1f}" for value in gained("ap")),
        f"{ends[0]:+.1f} to {ends[1]:+.1f}",
        *(f"{mean(gained(f'frame_ap_{kind}')):+.1f}" for kind in ("clean", "degraded")),
    ]


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[float]:
    return [a - b for a, b in zip(one["chosen_ap"], other["chosen_ap"], strict=True)]


def _identities(runs: list[dict[str, Any]]) -> str:
    parts = []
    for kind in ("identities_all", "identities_lookalikes"):
        values = [100 * run[kind]["AssA"] for run in runs if run.get(kind)]
        parts.append(f"{mean(values):.1f}" if values else "-")
    return " / ".join(parts)


def _time(runs: list[dict[str, Any]]) -> str:
    return f"{mean(run['ms_a_frame'] for run in runs):.0f}"
