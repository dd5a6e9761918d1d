"""`tenfold demo`: the whole way once, on scikit-learn's digits, in a few minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tenfold.cli.output import plain, to_stderr, to_stdout, write_json
from tenfold.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from tenfold.export import ExportReport
    from tenfold.export.benchmark import BenchRow
    from tenfold.train import FitResult

FLOAT_RECIPE, QUANTIZED_RECIPE = "convnet_tiny_float_digits", "convnet_tiny_sat_4bit_digits"

LARGEST_LOSS = 0.01
"""The quantized network may lose so much top-1."""
LARGEST_SIZE = 1 / 6
"""The quantized file may have so much of the float file's bytes."""


@dataclass(frozen=True)
class Judged:
    """One exported file: what the export found, and how good it is in the runtime."""

    path: Path
    report: ExportReport
    top1: float


def demo(
    part: Literal["network", "erase"] = "network",
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("runs/demo"),
    picture: Path | None = None,
    quick: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Train a float network and its 4-bit twin, export both, run them in ONNX Runtime, and write a report.

    Checks at the end that the twin is within a point of the float network, in a sixth of its bytes. `tenfold demo
    erase` renders a clip instead, erases what moves in it, and says how near that comes to the truth.

    Args:
        part: network, or erase.
        out: folder for all of it; a number is added if it is there already.
        picture: of erase: also draw frames before and after to this file (.png or .jpg).
        quick: train for seconds only, or erase a shorter clip; then the quality is not checked.
        as_json: print one JSON object with accuracy, bytes and speed of the files.
    """
    from tenfold.cli.preparation import prepare_for_training
    from tenfold.errors import require

    if part == "erase":
        from tenfold.cli.demo_erase import demo_erase

        demo_erase(_unused(out), picture, quick=quick, as_json=as_json)
        return
    if picture is not None:
        raise UsageError("--picture goes with `tenfold demo erase`; the network's demo draws a report.")
    for package in ("sklearn", "onnx", "onnxruntime"):
        require(package, "demo")
    prepare_for_training()
    from tenfold import export

    start = time.perf_counter()
    folder = _unused(out)
    _say("1", "Training the float network on digits")
    before = _train(FLOAT_RECIPE, folder / "float", quick=quick)
    _say("2", "Training its 4-bit twin with SAT, from the float weights")
    after = _train(QUANTIZED_RECIPE, folder / "4bit", quick=quick, weights=before.artifact)
    _say("3", "Exporting to ONNX, and comparing each file with its network")
    files = [
        _export(before, folder / "float.onnx", "float"),
        _export(after, folder / "4bit-compact.onnx", "compact"),
        _export(after, folder / "4bit-fast.onnx", "fast"),
    ]
    _say("4", "Timing the files in turns")
    rows = export.bench([file.path for file in files], engine="onnxruntime")
    report = _write_report(after, files, rows, folder)
    seconds = time.perf_counter() - start
    if as_json:
        write_json({"folder": folder, "report": folder / "report.html", "seconds": seconds, **_facts(report)})
    else:
        to_stdout(_summary(files, rows))
    _check(files, accuracy=not quick)
    to_stderr(f"\n[green]Done in {seconds:.0f} s.[/] Open the report: [bold]{folder / 'report.html'}[/]")
    to_stderr(f"[dim]Next: tenfold predict {files[1].path} IMAGE, or tenfold fit --data FOLDER --model mobilenet_v2[/]")


def _say(number: str, what: str) -> None:
    to_stderr(f"\n[bold cyan]{number}/4[/] [bold]{what}[/]")


def _unused(folder: Path) -> Path:
    number = 1
    candidate = folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _train(recipe_name: str, run: Path, *, quick: bool, weights: Path | None = None) -> FitResult:
    from tenfold import train
    from tenfold.cli.recipes import find_recipe
    from tenfold.cli.resolve import make_budget, make_methods, make_network, make_task
    from tenfold.cli.starting_weights import start_from

    recipe = train.load_recipe(find_recipe(recipe_name), quick=quick)
    task = make_task(recipe)
    network = make_network(recipe, task)
    float_metrics = start_from(network, weights) if weights else None
    command = ["tenfold", "fit", "--recipe", recipe_name, "--out", str(run)]
    if weights:
        command += ["--weights", str(weights)]
    return train.fit(
        network,
        task,
        make_methods(recipe),
        make_budget(recipe),
        config=recipe.train,
        run_dir=run,
        float_metrics=float_metrics,
        command=command + ["--quick"] * quick,
    )


def _export(result: FitResult, path: Path, profile: Any) -> Judged:
    from tenfold import export
    from tenfold.cli.evaluate import evaluation_batches
    from tenfold.cli.export import export_artifact

    report = export_artifact(result.artifact, path, profile)
    to_stderr(f"  {report}")
    batches = evaluation_batches(export.read_task(path), None, 64)
    return Judged(path, report, export.evaluate(path, batches, engine="onnxruntime").metrics["top1"])


def _write_report(result: FitResult, files: Sequence[Judged], rows: Sequence[BenchRow], folder: Path) -> dict[str, Any]:
    """The twin's report, with the files and their speed."""
    from tenfold.files import write_text
    from tenfold.train.report import write_report

    exports = [
        {
            "file": file.path.name,
            "profile": file.report.profile,
            "bytes": file.report.file_bytes,
            "predicted_bytes": file.report.predicted_bytes,
            "worst_steps": file.report.worst_steps if file.report.layers else None,
            "top1_agreement": file.report.top1_agreement,
            "top1": file.top1,
        }
        for file in files
    ]
    timed = [
        {
            "file": row.path.name,
            "engine": row.engine,
            "median_ms": row.timing.median_ms,
            "minimum_ms": row.timing.minimum_ms,
            "spread_ms": row.timing.spread_ms,
        }
        for row in rows
    ]
    report = {**result.report, "command": ["tenfold", "demo"], "exports": exports, "bench": timed}
    write_text(folder / "report.json", json.dumps(plain(report), indent=2) + "\n")
    write_report(report, folder / "report.html")
    return report


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("metrics", "cost", "exports", "bench")}


def _summary(files: Sequence[Judged], rows: Sequence[BenchRow]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from tenfold.cost.units import format_amount

    first = files[0]
    table = Table(title=Text("\nWhat came out", "bold"), title_justify="left", box=None, pad_edge=False)
    table.add_column("File", style="bold", header_style="dim")
    for heading in ("Top-1", "Bytes", "Smaller", "Median", "Faster"):
        table.add_column(heading, justify="right", header_style="dim", no_wrap=True)
    for file, row in zip(files, rows, strict=True):
        size = file.report.file_bytes
        table.add_row(
            file.path.name,
            f"{file.top1:.1%}",
            format_amount(size, "B"),
            "" if file is first else Text(f"{first.report.file_bytes / size:.1f}x", "green"),
            f"{row.timing.median_ms:.3g} ms",
            "" if file is first else Text(f"{row.speedup:.2f}x", "green" if row.speedup > 1 else "yellow"),
        )
    return table


def _check(files: Sequence[Judged], *, accuracy: bool) -> None:
    """What the demo promises.

    Raises:
        TrainingError: if it does not hold.
    """
    first, smallest = files[0], files[1]
    share = smallest.report.file_bytes / first.report.file_bytes
    if share > LARGEST_SIZE:
        raise TrainingError(
            f"{smallest.path} has {share:.0%} of the bytes of {first.path}; promised is {LARGEST_SIZE:.0%} at most. "
            "This is a mistake in Tenfold; please report it with the output of `tenfold doctor`."
        )
    for file in files[1:]:
        if accuracy and first.top1 - file.top1 > LARGEST_LOSS:
            raise TrainingError(
                f"{file.path} has {file.top1:.1%} top-1, {first.path} {first.top1:.1%}; one point less is promised. "
                "This is a mistake in Tenfold; please report it with the output of `tenfold doctor`."
            )
