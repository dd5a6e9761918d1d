"""The sections of the results page about searches over many candidates."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from markdown_tables import spread, table

_NAMES = {
    "blend": "**blend** (the default)",
    "gp": "gp",
    "catboost": "catboost",
    "lightgbm": "lightgbm",
    "mlp": "mlp (the authors' recipe)",
}
_MARKS = (50, 100, 200, 500)


def ncp_predictors(record: dict[str, Any]) -> str:
    """Rank correlation and error of each predictor on each task, beside the published ones."""
    tasks = list(next(iter(record["published"].values())))
    withheld = {run["task"] for run in record["runs"] if run["withheld"]}
    header = ["Kendall / Spearman / mean error", *(f"{task}{' *' if task in withheld else ''}" for task in tasks)]
    rows = [
        [name, *("/".join(f"{number:.3f}" for number in found[task]) for task in tasks)]
        for name, found in record["published"].items()
    ]
    seeds: set[int] = set()
    honest = []
    for kind, name in _NAMES.items():
        cells = []
        for task in tasks:
            runs = [run for run in record["runs"] if run["task"] == task and run["kind"] == kind]
            seeds |= {run["seed"] for run in runs}
            keys = ("kendall", "spearman", "mean_error")
            cells.append("/".join(f"{mean(run[key] for run in runs):.3f}" for key in keys) if runs else "")
        rows.append([name, *cells])
        runs = [run for run in record["runs"] if run["kind"] == kind]
        honest.append(
            [
                name,
                f"{100 * mean(run['within_1'] for run in runs):.0f} %",
                f"{100 * mean(run['within_2'] for run in runs):.0f} %",
                f"{mean(run['cpu_seconds'] for run in runs):.1f}",
            ]
        )
    return (
        "Rows above `blend` were measured elsewhere, with other people's programs. Seeds of ours: "
        f"{', '.join(map(str, sorted(seeds)))} (fewer where a run was not finished). * The 502 rows are not in the "
        "table: a fifth of the others was set aside for ours, so these columns do not compare.\n\n"
        + table(header, rows)
        + "\n\nHow often the truth lies within the deviations that are stated (honest: 68 % and 95 %), and what a fit "
        "costs:\n\n" + table(["", "within one", "within two", "CPU seconds"], honest)
    )


def ncp_search(record: dict[str, Any]) -> str:
    """Best network against measurements; what found codes are worth."""
    names = list(dict.fromkeys(run["name"] for run in record["curves"]))
    rows = []
    for name in names:
        curves = [run["best"] for run in record["curves"] if run["name"] == name]
        rows.append([name, *(_spread([one[at - 1] for one in curves if len(one) >= at]) for at in _MARKS)])
    parts = [
        f"### NAS-Bench-201, ImageNet16-120: the best is {record['optimum']:.2f} %\n\n"
        "Accuracy of the best network after so many measurements.\n\n"
        + table(["", *map(str, _MARKS)], rows)
        + "\n\n![Regret against measurements](images/ncp_regret.png)"
    ]
    rows = []
    for count in sorted({run["count"] for run in record["one_go"]}):
        runs = [run for run in record["one_go"] if run["count"] == count]
        rows.append(
            [str(count), *(_spread([run[key] for run in runs]) for key in ("best_of_table", "found", "estimate"))]
        )
    parts.append(
        "In one go, without measuring again, the predictor's promise is not kept: that is what rounds are for.\n\n"
        + table(["random codes measured", "best of them", "found", "promised"], rows)
    )
    if record["multires"]:
        parts.append(_on_nas_bench_mr(record["multires"]))
    return "\n\n".join(parts)


def ncp_speed(record: dict[str, Any]) -> str:
    """What doing things side by side saves, and what a fit costs."""
    rows = [
        [
            name,
            f"{row['straight_ms'] / 1000:.2f}",
            f"{row['ours_ms'] / 1000:.2f}",
            f"{row['median_ratio']:.2f}",
            f"{100 * row['same_codes']:.0f} %" if "same_codes" in row else "",
        ]
        for name, row in record["results"].items()
    ]
    fits = [[kind, f"{seconds:.1f}"] for kind, seconds in record["fit_seconds"].items()]
    return (
        f"One thread, {record['rounds']} rounds in turn, {record['rows']} rows of {record['task']}. mlp is the "
        "authors' perceptron, gp our Gaussian process.\n\n"
        + table(["", "one after another, s", "side by side, s", "ratio", "same codes visited"], rows)
        + "\n\n"
        + table(["fit of", "CPU seconds"], fits)
    )


def ncp_own_tasks(record: dict[str, Any]) -> str:
    """What a hundred measurements give, drawn at random or proposed, on three tasks of this machine."""
    tasks = [name for name in ("classify", "segment", "recognize") if name in record["runs"][0]]
    rows = []
    for name, code in record["finalists"].items():
        runs = [run for run in record["runs"] if run["code"] == code]
        cells = [_spread([100 * run[task] for run in runs]) for task in tasks]
        rows.append([name, *cells, f"{runs[0]['macs'] / 1e6:.2f}"])
    best = {name: max(record[name]["scores"]) for name in ("random", "proposed")}
    return (
        "CIFAR-10 (4000 images), CamVid at 64x85, clips of wandering digits; networks of 8 or 16 channels, trained "
        f"for a minute. Of {len(record['random']['scores'])} measurements each, the best sum of the three metrics, in "
        f"spreads of the random codes, is {best['random']:.2f} at random and {best['proposed']:.2f} proposed.\n\n"
        "![The best sum so far](images/ncp_own_tasks.png)\n\nTrained anew with other seeds, in %:\n\n"
        + table(["", *tasks, "M MACs"], rows)
    )


def autospace_cifar10(record: dict[str, Any]) -> str:
    """Networks found in the evolved space, in the hand-made one, and by lot."""
    rows = []
    for kind in dict.fromkeys(run["kind"] for run in record["runs"]):
        runs = [run for run in record["runs"] if run["kind"] == kind]
        rows.append(
            [
                kind,
                spread([100 * run["top1"] for run in runs]),
                f"{mean(run['macs'] for run in runs) / 1e6:.2f}",
                f"{mean(run['params'] for run in runs) / 1e3:.0f}",
                f"{mean(run['search_seconds'] for run in runs) / 60:.0f}",
            ]
        )
    size = record["size"]
    return (
        f"Images {size['image']}x{size['image']}, {size['subset']:,} to train on; searches of {size['search_epochs']} "
        f"epochs within {size['macs'] / 1e6:.1f} M multiply-adds, {size['train_epochs']} epochs anew for what is "
        "found. Minutes are of a machine that was busy with other work.\n\n"
        + table(["space", "top-1 %, 10,000 test images", "M MACs", "thousand parameters", "minutes of search"], rows)
    )


_WAYS = ("start", "best of the table", "authors' way", "found")


def _on_nas_bench_mr(runs: list[dict[str, Any]]) -> str:
    """What found codes are worth on their own tasks, and on all others."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run["tasks"]), []).append(run)
    rows, across = [], []
    for tasks, found in groups.items():
        for task in tasks:
            cells = [_spread([run["judged"][way][task] for run in found]) for way in _WAYS]
            cells.insert(2, _spread([run["random_best"][task] for run in found]))
            near = [_spread([run["measured"][way]["nearest"][task] for run in found]) for way in _WAYS[2:]]
            promised = [
                _spread([run["promised"][way] for run in found]) if task == tasks[0] else "" for way in _WAYS[2:]
            ]
            rows.append([f"{' + '.join(tasks)}: {task}", *cells, *near, *promised])
        macs = mean(run["macs"]["found"] for run in found) / 1e9
        everywhere = [
            f"{mean(run['judged']['found'][task] for run in found):.2f}" for task in found[0]["judged"]["found"]
        ]
        across.append([" + ".join(tasks), f"{macs:.2f}", *everywhere])
    start = runs[0]["judged"]["start"]
    across.append(
        ["the authors' start", f"{runs[0]['macs']['start'] / 1e9:.2f}", *(f"{v:.2f}" for v in start.values())]
    )
    seeds = {len(found) for found in groups.values()}
    seconds = [mean(run["cpu_seconds"][way] for run in runs) for way in _WAYS[2:]]
    return (
        "### NAS-Bench-MR: codes that no one has trained, judged by predictors that the search did not use\n\n"
        "The budget of ours is the multiply-adds of what the authors' way finds, or of its start if those are more. "
        f"Seeds: {max(seeds)} of single tasks, {min(seeds)} of several. A search takes {seconds[0]:.0f} CPU seconds in "
        f"the authors' way (one perceptron, one start) and {seconds[1]:.0f} in ours (three predictors, 16 starts, five "
        "weights of the cost).\n\n"
        + table(
            [
                "judged", "start", "best of the table", "best of 200 random", "authors' way", "found",
                "measured near authors'", "measured near found", "authors' promised", "found promised",
            ],
            rows,
        )
        + "\n\nAcross tasks: what is found for one is judged on all.\n\n"
        + table(["found for", "G MACs", *start], across)
    )  # fmt: skip


def _spread(values: list[float]) -> str:
    """Mean and deviation over seeds."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else "".join(f"{one:.2f}" for one in values)
