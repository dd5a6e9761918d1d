"""The sections of the results page about DeepViT."""

from __future__ import annotations

from statistics import mean
from typing import Any

from markdown_tables import spread, table


def reattention(record: dict[str, Any]) -> str:
    """Time and memory of re-attention over those of the formula as it stands."""
    parts = []
    for step in dict.fromkeys(row["step"] for row in record["results"]):
        rows = [
            [
                f"{row['shape']}, {row['level']}",
                *(f"{row['ways'][way]['median_ratio']:.2f}" for way in ("plain fused", "tenfold")),
                f"{row['ways']['tenfold']['minimum_ratio']:.2f}",
                *(f"{row['ways'][way]['peak_mb']:.0f}" for way in ("plain fused", "formula", "tenfold")),
            ]
            for row in record["results"]
            if row["step"] == step
        ]
        header = ["plain fused attention", "re-attention", "re-attention (best)"]
        memory = [f"peak MB, {way}" for way in ("plain", "formula", "re-attention")]
        parts.append(f"### {step.capitalize()}\n\n" + table(["time over the formula's", *header, *memory], rows))
    shapes = "; ".join(
        f"{name}: {shape['batch']} images of {shape['tokens']} tokens, width {shape['dim']}"
        for name, shape in record["shapes"].items()
    )
    return (
        f"{shapes}; {record['heads']} heads, float32, threads: {record['threads']}, {record['rounds']} rounds in turn. "
        "Of a whole block most of the time goes into linear layers, which all three ways share.\n\n"
        + "\n\n".join(parts)
    )


def deepvit_cifar10(record: dict[str, Any]) -> str:
    """Accuracy and similarity by depth."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in record["runs"]:
        found.setdefault((run["depth"], run["kind"]), []).append(run)
    rows = []
    for (depth, kind), runs in sorted(found.items()):
        similar = [run["collapse"]["mean_neighbour"] for run in runs]
        rows.append(
            [
                f"{kind}, {depth} blocks",
                spread([100 * run["top1"] for run in runs]),
                *(f"{mean(one[kind] for one in similar):.3f}" for kind in ("used", "used, centred")),
                "{:.3f}, {:.3f}".format(*halves([run["collapse"]["neighbours"]["used, centred"] for run in runs])),
                *(
                    f"{mean(one[kind] for one in similar):.3f}" if kind in similar[0] else "-"
                    for kind in ("softmax", "softmax, centred")
                ),
                f"{mean(mean(run['collapse']['entropy']) for run in runs):.3f}",
                f"{mean(run['collapse']['features_to_last'][0] for run in runs):.2f}",
            ]
        )
    used = ["maps used", "centred", "shallow, deep half"]
    header = ["top-1 %, 10,000 test images", *used, "softmax maps", "centred", "entropy"]
    return (
        f"CIFAR-10 images {record['image']}x{record['image']} in patches of {record['patch']}, {record['subset']} to "
        f"train on, {record['epochs']} epochs of AdamW at {record['lr']}, batch {record['batch']}. Similarity: mean "
        f"cosine of neighbouring blocks' maps by key, on {record['analyzed']} test images; centred: without the mean "
        "of each map, which all softmax maps share.\n\n" + table(["", *header, "features, first to last block"], rows)
    )


def halves(series: list[list[float]]) -> tuple[float, float]:
    """The mean of the first half of some series of one length, and that of the rest."""
    middle = len(series[0]) // 2
    return mean(mean(one[:middle]) for one in series), mean(mean(one[middle:]) for one in series)
