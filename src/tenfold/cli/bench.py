"""`tenfold bench`: exported files timed side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.values import parse_widths

if TYPE_CHECKING:
    from rich.table import Table

    from tenfold.export.benchmark import BenchRow


def bench(
    *files: Path,
    batch: int = 1,
    rounds: int = 7,
    engine: str = "all",
    threads: int | None = None,
    bits: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Time ONNX files in turns, so that a busy machine slows all of them alike.

    The first file is what the others are compared with: tenfold bench float.onnx quantized.onnx

    Args:
        files: ONNX files.
        batch: images a call.
        rounds: turns of each file in each runtime.
        engine: all, auto, onnxruntime or openvino.
        threads: CPU threads; default: one a core.
        bits: bit-widths of the files that have several, such as 8,6,4; default: the widest.
        as_json: print one JSON object with the timings in milliseconds.
    """
    from tenfold import export

    rows: Sequence[BenchRow]
    if bits:
        from tenfold.export.width_benchmark import bench_widths

        widths = parse_widths(bits)
        rows = bench_widths(files, widths, batch=batch, rounds=rounds, engine=engine, threads=threads)
    else:
        rows = export.bench(files, batch=batch, rounds=rounds, engine=engine, threads=threads)
    if as_json:
        write_json({"rows": [row.to_dict() for row in rows]})
        return
    to_stdout(bench_table(rows))
    disturbed = sum(row.timing.disturbed for row in rows)
    if disturbed:
        to_stderr(f"[dim]{disturbed} bursts were left out because other programs took the processor meanwhile.[/]")


def bench_table(rows: Sequence[BenchRow]) -> Table:
    """Timings with bars; shorter is faster."""
    from rich.table import Table
    from rich.text import Text

    from tenfold.cli.profile import bar
    from tenfold.cost.units import format_amount

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("File", style="bold", overflow="fold")
    table.add_column("Runtime", style="dim", no_wrap=True)
    table.add_column("Bytes", justify="right", no_wrap=True)
    table.add_column("Median", justify="right", no_wrap=True)
    table.add_column("Best", justify="right", style="dim", no_wrap=True)
    table.add_column("Spread", justify="right", style="dim", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("Speed", justify="right", no_wrap=True)
    slowest = max((row.timing.median_ms for row in rows), default=1.0)
    for row in rows:
        faster = Text(f"{row.speedup:.2f}x", "green" if row.speedup > 1.05 else "yellow" if row.speedup < 0.95 else "")
        table.add_row(
            _name(row),
            row.engine,
            format_amount(row.size_bytes, "B"),
            f"{row.timing.median_ms:.3g} ms",
            f"{row.timing.minimum_ms:.3g}",
            f"{row.timing.spread_ms:.2g}",
            Text(bar(row.timing.median_ms, slowest, cells=8), "cyan"),
            faster,
        )
    return table


def _name(row: BenchRow) -> str:
    from tenfold.export.width_benchmark import WidthRow
    from tenfold.export.width_choice import width_text

    width = row.bits if isinstance(row, WidthRow) else None
    return row.path.name if width is None else f"{row.path.name} at {width_text(width)} bits"
