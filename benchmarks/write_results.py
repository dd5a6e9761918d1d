"""Write docs/results.md from the recorded results; no number in it is typed by hand.

python benchmarks/write_results.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from markdown_tables import spread, table, where
from write_compfeat import compfeat_sprites
from write_deepvit import deepvit_cifar10, reattention
from write_following import damaged_videos, following
from write_inpainting import erase, erase_kernels, inpainting, inpainting_speed, tsam_streaming
from write_searches import autospace_cifar10, ncp_own_tasks, ncp_predictors, ncp_search, ncp_speed

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"


def sat_cifar10(record: dict[str, Any]) -> str:
    """Accuracy of each method, mean and spread over seeds, for every setting that was tried."""
    parts = []
    for name, setting in record["settings"].items():
        found: dict[str, list[float]] = {}
        for run in record["runs"]:
            if run["setting"] == name:
                found.setdefault(run["method"], []).append(100 * run["top1"])
        rows = []
        for bits in ("float", "4", "3", "2"):
            plain = found.get("float" if bits == "float" else f"qat {bits}", [])
            scaled = found.get(f"sat {bits}", [])
            gain = f"{mean(scaled) - mean(plain):+.1f}" if plain and scaled else ""
            rows.append([bits if bits == "float" else f"{bits} bits", spread(plain), spread(scaled), gain])
        left = f" Left for the next: {setting['why_left']}" if "why_left" in setting else ""
        parts.append(
            f"### {name.capitalize()}\n\n`{setting['model']}`, images {setting['image_size']}x{setting['image_size']}, "
            f"{setting['subset']} training images, {setting['epochs']} epochs at rate {setting['lr']}, seeds "
            f"{', '.join(map(str, setting['seeds']))}.{left}\n\n"
            + table(["top-1 %, 10,000 test images", "DoReFa + PACT", "SAT + CG-PACT", "gain"], rows)
        )
    return "\n\n".join(parts)


def efficientnet_lite0(record: dict[str, Any]) -> str:
    """Accuracy on the 1000 pictures and changed answers."""
    rows = [
        [name, f"{row['top1']:.1f}", f"{row['top5']:.1f}", str(row["changed"])]
        for name, row in record["results"].items()
    ]
    return (
        "The pictures are a relative yardstick: most are probably training images of the weights.\n\n"
        + table(["", "top-1 %", "top-5 %", "answers changed of 1000"], rows)
        + '\n\nBits by sensitivity: FracBits with `start="sensitivity"` gives each layer the bits that its answers '
        "need, and then\nsearches for two steps only, in which bits hardly move: an allocation. Learned from there: 56 "
        "steps of search, bits at 300 times\nthe rate of the weights. Learned from the same bits everywhere, as the "
        "paper starts: ten steps, at 3000 times the rate."
    )


_NETWORKS = {"resnet18_cifar": "ResNet-18 for 32x32 images", "mobilenet_v2": "MobileNetV2 for 224x224 images"}


def qat_step(record: dict[str, Any]) -> str:
    """Ratios to the float step."""
    rows = [
        [
            name,
            f"{row['median_ratio']:.2f}",
            f"{row['minimum_ratio']:.2f}",
            f"{row['median_ms']:.0f}",
            f"{row['saved_mb']:.0f}",
        ]
        for name, row in record["results"].items()
    ]
    return (
        f"{_NETWORKS[record.get('network', 'resnet18_cifar')]}, batch {record['batch']}, channels-last, "
        f"threads: {record['threads']}, {record['rounds']} rounds in turn.\n\n"
        + table(["", "x float (median)", "x float (best)", "median ms", "kept for backward, MB"], rows)
    )


def recompute(record: dict[str, Any]) -> str:
    """Memory and time, activations kept or computed again."""
    rows = []
    for name, found in record["results"].items():
        whole = found["float"]["saved_mb"]
        for row, one in found.items():
            shares = [f"{one['saved_mb']:.0f}", f"{one['saved_mb'] / whole:.2f}"]
            rows.append([name, row, *shares, f"{one['median_ratio']:.2f}", f"{one['minimum_ratio']:.2f}"])
    return (
        f"Batch 16 of 32x32 images, and 8 of 224x224; channels-last, {record['bits']} bits, "
        f"{record['rounds']} rounds in turn.\n\n"
        + table(["", "", "kept for backward, MB", "x float", "step, x float (median)", "(best)"], rows)
    )


def export_speed(record: dict[str, Any]) -> str:
    """Speed of the fast profile beside the same runtime's float."""
    rows = [
        [
            f"{row['model']}, batch {row['batch']}",
            row["engine"],
            f"{row['float_ms']:.2f}",
            f"{row['fast_ms']:.2f}",
            f"{row['median_ratio']:.2f}",
            f"{row['minimum_ratio']:.2f}",
        ]
        for row in record["results"]
    ]
    return table(["", "runtime", "float ms", "fast ms", "float / fast (median)", "float / fast (best)"], rows)


def one_image(record: dict[str, Any]) -> str:
    """What one prediction costs a process."""
    rows = [[name, f"{row['cpu_seconds']:.2f}", f"{row['peak_mb']:.0f}"] for name, row in record["results"].items()]
    return table(["", "CPU seconds", "peak memory, MB"], rows)


def adabits_cifar10(record: dict[str, Any]) -> str:
    """Accuracy of each way of training at each width, mean and spread over seeds."""
    widths = sorted({width for run in record["runs"] for width in run["top1"]}, key=int, reverse=True)
    found: dict[str, dict[str, list[float]]] = {}
    for run in record["runs"]:
        name = re.sub(r"^individual \d", "individual", run["name"])
        for width, top1 in run["top1"].items():
            found.setdefault(name, {}).setdefault(width, []).append(100 * top1)
    rows = [[name, *(spread(by_width.get(width, [])) for width in widths)] for name, by_width in found.items()]
    return (
        f"`preresnet20_cifar`, images 16x16, 6000 training images, {record['epochs']} epochs at rate {record['lr']} "
        "for each width, started from SAT's float weights of the same seed. Top-1 % on 10,000 test images.\n\n"
        + table(["", *(f"{width} bits" for width in widths)], rows)
        + f"\n\n{record['earlier']}"
    )


def fracbits_cifar10(record: dict[str, Any]) -> str:
    """Accuracy and cost of uniform and learned bits under the same budgets."""
    found = by_name(record["runs"], "name")
    rows = []
    for name, runs in found.items():
        used = [max(run["used"].values()) for run in runs if run["used"]]
        rows.append(
            [
                name,
                spread([100 * run["top1"] for run in runs]),
                f"{mean(run['bitops'] for run in runs) / 1e6:.1f}",
                f"{mean(run['bytes'] for run in runs) / 1e3:.1f}",
                ", ".join(f"{100 * share:.1f}" for share in used) or "-",
            ]
        )
    return (
        f"Images 16x16, 6000 training images, {record['epochs']} epochs. `preresnet20_cifar` started from SAT's float "
        "weights of the same seed; MobileNetV2 is `mobilenet_v2_tiny`, started from plain float weights and quantized "
        "with one scale a kernel. Faster bits learn at ten times the rate of the weights.\n\n"
        + table(["", "top-1 %, 10,000 test images", "M BitOPs", "kB", "budget used, %"], rows)
    )


def integer_cifar10(record: dict[str, Any]) -> str:
    """Accuracy by engine and seed."""
    names = list(dict.fromkeys(run["name"] for run in record["runs"]))
    rows = []
    for name in names:
        runs = [run for run in record["runs"] if run["name"] == name]
        top1 = [100 * run["top1"] for run in runs]
        mean = f"{sum(top1) / len(top1):.2f}"
        rows.append([name, ", ".join(f"{one:.2f}" for one in top1), mean, f"{sum(run['seconds'] for run in runs):.0f}"])
    return (
        f"Pre-activation ResNet-20, 16x16 images, {record['bits']} bits, {record['epochs']} epochs each.\n\n"
        + table(["", "top-1 % by seed", "mean", "seconds in all"], rows)
    )


_ENGINE_NOTES = {
    "simulated": "All layers are simulated with real numbers here: a step with learned bits costs little more than a "
    "plain one.",
    "integer": "Here one width and several run on integers, which learned bits cannot: they stay simulated, and cost "
    "nearly\ntwice a plain step; on simulated layers, in the table above, little more than one.",
}


def bits_step(record: dict[str, Any]) -> str:
    """Ratios to the step at one width."""
    rows = [
        [
            name,
            f"{row['median_ratio']:.2f}",
            f"{row['minimum_ratio']:.2f}",
            f"{row['share_of_single_steps']:.2f}",
            f"{row['saved_mb']:.0f}",
        ]
        for name, row in record["results"].items()
    ]
    return (
        f"ResNet-18 for 32x32 images, batch {record['batch']}, channels-last, threads: {record['threads']}, "
        f"{record['rounds']} rounds in turn; widths {', '.join(map(str, record['widths']))}.\n\n"
        + table(
            [
                "",
                "x one width (median)",
                "x one width (best)",
                "share of as many single steps",
                "kept for backward, MB",
            ],
            rows,
        )
        + "\n\n"
        + _ENGINE_NOTES[record["engine"]]
    )


def switchable(record: dict[str, Any]) -> str:
    """Bytes of one file against several, and time at a width."""
    parts = []
    for row in record["results"]:
        times = [[name, f"{value:.2f}"] for name, value in row["median_ms"].items()]
        one, several = row["switchable_bytes"], row["separate_bytes"]
        parts.append(
            f"`{row['model']}`, images {row['side']}x{row['side']}, widths {', '.join(map(str, record['widths']))}: "
            f"{one / 1e3:.0f} kB in one file, {several / 1e3:.0f} kB in separate ones ({one / several:.0%}).\n\n"
            + table(["ONNX Runtime", "median ms"], times)
        )
    return "\n\n".join(parts)


def lightnl(record: dict[str, Any]) -> str:
    """Cost, time and accuracy of non-local blocks, and of what AutoNL finds."""
    costs = record["costs"]
    factors = {(row["side"], row["channels"]): row["factor"] for row in costs["places"]}
    first = costs["totals"]["conventional"]
    steps = [[name, f"{macs:,}", f"{first / macs:.1f}"] for name, macs in costs["totals"].items()]
    timed = [
        [
            f"{row['side']}x{row['side']}, {row['channels']} channels",
            f"{factors[row['side'], row['channels']]:.1f}",
            *(f"{row['ratio'][name]:.1f}" for name in ("conventional", "cheaper order")),
            f"{row['median_ms']['LightNL']:.3f}",
        ]
        for row in record["times"]
    ]
    found = by_name(record["runs"], "name")
    rows = [
        [
            name,
            spread([100 * run["top1"] for run in runs]),
            f"{mean(run['macs'] for run in runs) / 1e6:.2f}",
            f"{mean(run['params'] for run in runs) / 1e3:.1f}",
            ", ".join(str(run["lightnl"]) for run in runs),
        ]
        for name, runs in found.items()
    ]
    return (
        "A block behind each of MobileNetV2's 17 bottlenecks at 224x224, extra multiply-adds; the factor is one of the "
        "whole network.\n\n"
        + table(["", "multiply-adds", "conventional over it"], steps)
        + "\n\nTimes of one image and one block, one thread, over that of LightNL.\n\n"
        + table(["", "multiply-adds", "conventional", "cheaper order", "LightNL, ms"], timed)
        + f"\n\nCIFAR-10 images {record['side']}x{record['side']}, {record['subset']} to train on, {record['epochs']} "
        f"epochs from scratch; searches of {record['search_epochs']} epochs with a budget of "
        f"{record['budget'] / 1e6:.1f} M multiply-adds took {', '.join(map(str, record['search_seconds']))} s.\n\n"
        + table(["", "top-1 %, 10,000 test images", "M multiply-adds", "k params", "LightNL blocks"], rows)
    )


def atomnas_cifar10(record: dict[str, Any]) -> str:
    """Accuracy at the same multiply-adds, and what a search costs beside training what it found."""
    parts = []
    for budget in dict.fromkeys(run["budget"] for run in record["runs"]):
        found = by_name([run for run in record["runs"] if run["budget"] == budget], "kind")
        rows = [
            [
                kind,
                spread([100 * run["top1"] for run in runs]),
                f"{mean(run['macs'] for run in runs) / 1e6:.2f}",
                f"{mean(run['params'] for run in runs) / 1e3:.1f}",
            ]
            for kind, runs in found.items()
        ]
        times = search_times(found)
        parts.append(
            f"At most {budget} multiply-adds:\n\n"
            + table(["", "top-1 %, 10,000 test images", "M multiply-adds", "k params"], rows)
            + (times and f"\n\nCPU time of a search, training included, over that of training what it found: {times}.")
        )
    return (
        f"Images {record['image']}x{record['image']}, {record['subset']} to train on, {record['epochs']} epochs at "
        f"rate {record['lr']}; a search takes {record['search_share']:.0%} of them.\n\n" + "\n\n".join(parts)
    )


def search_times(runs: dict[str, list[dict[str, Any]]]) -> str:
    """The ratio for each seed of which both were timed on one machine."""
    alone = {run["seed"]: run["cpu_seconds"] for run in runs.get("found, from scratch", [])}
    searched = {run["seed"]: run["cpu_seconds"] for run in runs["atomnas"] if "cpu_seconds" in run}
    return ", ".join(f"{searched[seed] / alone[seed]:.2f}" for seed in sorted(searched) if seed in alone)


def atomnas_fracbits(record: dict[str, Any]) -> str:
    """Accuracy of one training for both budgets and of two, one after the other."""
    rows = [
        [
            kind,
            spread([100 * run["top1"] for run in runs]),
            f"{mean(run['macs'] for run in runs) / 1e6:.2f}",
            f"{mean(run['bytes'] for run in runs) / 1e3:.1f}",
            f"{mean(run['seconds'] for run in runs):.0f}",
        ]
        for kind, runs in by_name(record["runs"], "kind").items()
    ]
    size = f"{record['image']}x{record['image']}"
    return (
        f"Images {size}, {record['subset']} to train on, {record['epochs']} epochs in all at rate {record['lr']}; "
        f"{record['macs'] / 1e6:.2f} M multiply-adds and {record['bytes'] / 1e3:.0f} kB at most.\n\n"
        + table(["", "top-1 %, 10,000 test images", "M multiply-adds", "kB", "seconds"], rows)
        + f"\n\nTried before. {record['tried']}"
    )


def supernet_step(record: dict[str, Any]) -> str:
    """Time and peak memory beside the straightforward implementation."""
    rows = [
        [
            f"{row['state']} ({row['macs'] / 1e6:.0f} M), {row['kind']}",
            f"{row['median_ms']:.0f}",
            f"{row['median_ratio']:.2f}",
            f"{row['minimum_ratio']:.2f}",
            f"{row['peak_mb']}",
            f"{row['peak_ratio']:.2f}",
            f"{row['tensor_mb']}",
            f"{row['tensor_ratio']:.2f}",
        ]
        for row in record["results"]
    ]
    return (
        f"`atomnas_supernet`, images {record['side']}x{record['side']}, batch {record['batch']}, threads: "
        f"{record['threads']}, {record['rounds']} rounds in turn.\n\n"
        + table(["", "median ms", "ratio (median)", "ratio (best)", "peak MB", "ratio", "MB of tensors", "ratio"], rows)
    )


def by_name(runs: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of each value of a field, in the order of their first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(run[name], []).append(run)
    return found


def camvid(record: dict[str, Any]) -> str:
    """Mean IoU, cost, files and time of segmentation networks."""
    found = by_name(record["runs"], "name")
    rows = [
        [
            name,
            spread([100 * run["metrics"]["miou"] for run in runs]),
            f"{mean(100 * run['metrics']['pixel_accuracy'] for run in runs):.1f}",
            f"{runs[0]['cost']['bitops'] / 1e9:.2f}",
            f"{runs[0]['cost']['bytes'] / 1e3:.0f}",
        ]
        for name, runs in found.items()
    ]
    times = {(row["name"], row["profile"]): row for row in record["times"]}
    files = []
    for name, runs in found.items():
        for profile, file in runs[0]["files"].items():
            time = times.get((name, profile))
            files.append(
                [
                    f"{name}, `{profile}`",
                    f"{100 * file['miou']:.1f}",
                    f"{file['bytes'] / 1e3:.0f}",
                    f"{time['median_ms']:.2f}" if time else "-",
                    f"{time['speedup']:.2f}" if time else "-",
                ]
            )
    labels = [key.removeprefix("iou_") for key in record["runs"][0]["metrics"] if key.startswith("iou_")]
    each = [
        [label, *(f"{100 * (runs[0]['metrics'][f'iou_{label}'] or 0):.1f}" for runs in found.values())]
        for label in labels
    ]
    return (
        f"MobileNetV2 of width {record['width']} under LR-ASPP with {record['head_channels']} channels, 240x180 "
        f"pixels, from scratch: {record['float_epochs']} epochs in float, then {record['epochs']} for each of the "
        "others from there. 367 images to train on, 233 of the test part to judge by; not comparable with results at "
        "full size.\n\n"
        + table(["", "mean IoU %", "pixels right, %", "G BitOPs", "kB"], rows)
        + "\n\nExported files of the first seed in ONNX Runtime, one image, one thread, in turns.\n\n"
        + table(["", "mean IoU %", "file, kB", "median ms", "x float"], files)
        + "\n\nIntersection over union of each class, %.\n\n"
        + table(["", *found], each)
    )


def temporal_align(record: dict[str, Any]) -> str:
    """The aligned temporal shift beside PyTorch's operators."""
    rows = [[row["what"], row["step"], *beside(row, "plain_ms")] for row in record["results"]]
    return (
        f"A window of {record['frames']} frames; maps are those of 240x424 pixels in some layers, channels last; "
        f"{turns(record)}\n\n" + table(["", "", "grid_sample, ms", "ours, ms", "ratio (median)", "ratio (best)"], rows)
    )


def depthwise_backward(record: dict[str, Any]) -> str:
    """Gradients of depthwise convolutions beside PyTorch's."""
    rows = [
        [
            f"{row['channels']} channels, {row['side']}x{row['side']}, kernel {row['kernel']}, stride {row['stride']}",
            row["dtype"],
            *beside(row, "pytorch_ms"),
        ]
        for row in record["results"]
    ]
    return f"Batch {record['batch']}, channels last; {turns(record)}\n\n" + table(
        ["", "", "PyTorch, ms", "ours, ms", "ratio (median)", "ratio (best)"], rows
    )


def turns(record: dict[str, Any]) -> str:
    """How a kernel was timed."""
    kernels, threads, rounds = (record[name] for name in ("kernels", "threads", "rounds"))
    return f"native kernels for {kernels}, threads: {threads}, {rounds} rounds in turn."


def beside(row: dict[str, Any], other: str) -> list[str]:
    """Milliseconds of another way and of ours, and the ratios."""
    return [f"{row[name]:.2f}" for name in (other, "ours_ms", "median_ratio", "minimum_ratio")]


SECTIONS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("sat_cifar10", "SAT against plain DoReFa + PACT", sat_cifar10),
    ("adabits_cifar10", "AdaBits: one network at several bit-widths", adabits_cifar10),
    ("fracbits_cifar10", "FracBits against uniform bits", fracbits_cifar10),
    ("camvid", "Segmentation: CamVid in float, 8, 4 and learned bits", camvid),
    ("atomnas_cifar10", "AtomNAS against a narrower MobileNetV2 and uniform pruning", atomnas_cifar10),
    ("atomnas_fracbits", "AtomNAS and FracBits together, and one after the other", atomnas_fracbits),
    ("supernet_step", "One step of AtomNAS' supernet", supernet_step),
    ("lightnl", "LightNL against the conventional block, and AutoNL", lightnl),
    ("deepvit_cifar10", "DeepViT against plain vision transformers", deepvit_cifar10),
    ("reattention", "Re-attention beside plain attention", reattention),
    ("ncp_predictors", "Predictors on NAS-Bench-MR", ncp_predictors),
    ("ncp_search", "Searches at the same number of measurements", ncp_search),
    ("ncp_speed", "Searching: one after another, and side by side", ncp_speed),
    ("ncp_own_tasks", "A table of one's own, and a search in it", ncp_own_tasks),
    ("autospace_cifar10", "AutoSpace: an evolved space against a hand-made one", autospace_cifar10),
    ("inpainting", "Video inpainting", inpainting),
    ("inpainting_speed", "What `tenfold inpaint` costs a process", inpainting_speed),
    ("tsam_streaming", "TSAM in a stream and window by window", tsam_streaming),
    ("compfeat_sprites", "CompFeat against the single-frame detector", compfeat_sprites),
    ("following", "Objects followed without a network", following),
    ("damaged_videos", "300 damaged videos", damaged_videos),
    ("erase", "Erasing: how near to the truth, how fast, in what memory", erase),
    ("erase_kernels", "Erasing with the native kernels and without", erase_kernels),
    ("efficientnet_lite0", "EfficientNet-Lite0 after quantization", efficientnet_lite0),
    ("qat_step", "One step of quantization-aware training", qat_step),
    ("qat_step_mobilenet_v2", "The same of a depthwise network", qat_step),
    ("bits_step", "One step with learned bits, and with several", bits_step),
    ("bits_step_integer", "The same on integers", bits_step),
    ("recompute", "Activations computed again instead of kept", recompute),
    ("depthwise_backward", "Gradients of depthwise convolutions", depthwise_backward),
    ("temporal_align", "The aligned temporal shift of TSAM", temporal_align),
    ("integer_cifar10", "Training on integers ends where simulated training ends", integer_cifar10),
    ("switchable", "One file for several bit-widths", switchable),
    ("export_speed", "The `fast` export beside float", export_speed),
    ("one_image", "One image, one process", one_image),
)


_SCRIPTS = {"qat_step_mobilenet_v2": "qat_step", "bits_step_integer": "bits_step"}
"""Of results that are not called as their script."""


def main() -> None:
    """Write the page from every result that is recorded."""
    parts = [
        "# Results\n\nGenerated by `benchmarks/write_results.py` from `benchmarks/results/`; each script says how to "
        "repeat it.\nSpeeds are ratios of programs that took turns in one run."
    ]
    for name, title, write in SECTIONS:
        path = HERE / "results" / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            parts.append(
                f"## {title}\n\n`benchmarks/{_SCRIPTS.get(name, name)}.py`\n\n{write(record)}\n\n{where(record)}"
            )
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
