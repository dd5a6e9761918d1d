"""`tenfold export`: an ONNX file with integers inside, checked against the network at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tenfold.cli.artifacts import artifact_path, open_artifact
from tenfold.cli.example_frames import example_frames, frame_size, takes_frames
from tenfold.cli.example_windows import example_windows, takes_windows
from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.values import ONNX_SUFFIX, parse_bits
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from tenfold.export import ExportReport

ProfileName = Literal["fast", "compact", "float", "switchable"]
_MOST_FRAMES = 8


def export(
    artifact: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    profile: ProfileName | None = None,
    bits: str | None = None,
    data: str | None = None,
    images: int = 64,
    frame: Annotated[str | None, Parameter(name="--frame-size")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Turn a trained artifact into an ONNX file, run it, and compare it with the network.

    Args:
        artifact: an artifact (.safetensors), or the run folder that holds it.
        out: the file to write; default: beside the artifact, named after the profile, and the bits if they are given.
        profile: fast (the default): int8 kernels in ONNX Runtime and OpenVINO. compact: the smallest file. float: no
            integers. switchable: all bit-widths of a network in one file, as small as compact; chosen when it runs. A
            network that follows objects in video becomes one step of it, compact (then the default) or float.
        bits: the bit-width to export, of a network that adabits trained, such as 4, or 4/8; default: the widest. Not
            for switchable, which holds all of them.
        data: images to compare on; default: the embedded digits if the network learned on them, else random ones.
        images: how many images, or frames of video, to compare on.
        frame: WIDTHxHEIGHT of the frames of such a step, such as 432x240; default: those that it learned on.
        as_json: print one JSON object with the fidelity report.
    """
    if out is not None and out.suffix != ONNX_SUFFIX:
        raise UsageError(f"--out {out} must end in {ONNX_SUFFIX}.")
    width = parse_bits(bits) if bits else None
    if width is not None and profile == "switchable":
        raise UsageError(
            f"--bits {bits} chooses one bit-width, and a switchable file holds all. Leave --bits out, or say --profile "
            "compact or fast."
        )
    network, header = open_artifact(artifact)
    if width is not None:
        from tenfold.quant import set_bits

        set_bits(network, width)
    if takes_frames(header):
        path = out or artifact_path(artifact).with_name(_file_name("step", width))
        told = _export_step(network, header["task"], path, profile or "compact", data, images, frame)
        if as_json:
            write_json(told)
        else:
            to_stdout(str(path))
        return
    if frame is not None:
        raise UsageError("--frame-size is for networks that follow objects in video; images have the size they had.")
    profile = profile or "fast"
    path = out or artifact_path(artifact).with_name(_file_name(profile, width))
    report = _export_whole(network, header, path, profile, data, images)
    if as_json:
        write_json({"file": path, "profile": profile, **report.to_dict()})
        return
    to_stdout(str(path))
    to_stderr(fidelity_table({path.name: report}))


def _file_name(kind: str, width: tuple[int, int] | None) -> str:
    """The name of a file that nobody has named: one for each width."""
    from tenfold.export.width_choice import width_text

    bits = "" if width is None else f"-{width_text(width).replace('/', '-')}bit"
    return f"{kind}{bits}{ONNX_SUFFIX}"


def export_artifact(
    artifact: str | Path, path: str | Path, profile: ProfileName, *, data: str | None = None, images: int = 64
) -> ExportReport:
    """Export one artifact; see `tenfold.export.export_onnx` for the errors."""
    return _export_whole(*open_artifact(artifact), path, profile, data, images)


def _export_whole(
    network: Any, header: Mapping[str, Any], path: str | Path, profile: ProfileName, data: str | None, images: int
) -> ExportReport:
    from tenfold.export import export_onnx

    task = header["task"]
    if takes_windows(header):
        from tenfold.models import PackedWindow

        example = example_windows(network, task, data, images)
        return export_onnx(PackedWindow(network), path, example=example, profile=profile, task=task)
    return export_onnx(network, path, example=example_images(task, data, images), profile=profile, task=task)


def _export_step(
    network: Any, task: Mapping[str, Any], path: Path, profile: str, data: str | None, images: int, frame: str | None
) -> dict[str, Any]:
    """Export one step of a network that follows objects in video, and tell of it."""
    from tenfold.cost.units import format_amount
    from tenfold.export import export_step
    from tenfold.quant import quantized_layers

    if profile not in ("compact", "float"):
        raise UsageError(
            f"--profile {profile} is for networks that take images: it rounds values that decide which objects are "
            "found. A step of a network that follows objects is written compact or float."
        )
    height, width = frame_size(task, frame)
    frames = example_frames(task, data, min(images, _MOST_FRAMES), (height, width))
    facts = {"task": dict(task), "labels": task.get("labels") or ["object"]}
    error = export_step(network, path, height=height, width=width, profile=profile, frames=frames, facts=facts)
    size, layers = path.stat().st_size, len(list(quantized_layers(network)))
    to_stderr(
        f"one step of {width} x {height}, {format_amount(size, 'B')}, {layers} layers with integers, error {error:.2g} "
        f"over {len(frames)} frames",
        f"[dim]next: tenfold segment clip.mp4 --network {path} -o tracks.json[/]",
    )
    return {
        "file": path, "profile": profile, "width": width, "height": height, "file_bytes": size,
        "quantized_layers": layers, "error": error, "frames": len(frames),
    }  # fmt: skip


def example_images(task: Mapping[str, Any], data: str | None, count: int) -> Tensor:
    """Images to run a network on: real ones where they can be had, else random ones with a word about it."""
    import torch

    from tenfold.cli.evaluate import task_of
    from tenfold.data import read_preprocess

    try:
        example: Any = task_of(task, data).example(batch_size=count)
        return example
    except UsageError:
        if data is not None:
            raise
    to_stderr("[yellow]Compared on random images, since the training images are not at hand. Give --data FOLDER.[/]")
    preprocess = read_preprocess(task["preprocess"])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, *preprocess.input_shape), generator=generator, dtype=torch.uint8)
    return torch.from_numpy(preprocess.normalize(pixels.numpy()))


def fidelity_table(reports: Mapping[str, ExportReport]) -> Table:
    """How faithful and how large exported files are, a row a file, and one for each of its bit-widths."""
    from rich.table import Table

    from tenfold.cost.units import format_amount
    from tenfold.export.width_choice import width_text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("File", style="bold", overflow="fold")
    for heading in ("Bytes", "Predicted", "Integer layers", "Worst code error", "Output error", "Same answer"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, report in reports.items():
        integer = sum(layer.runs == "integer" for layer in report.layers)
        table.add_row(
            name,
            format_amount(report.file_bytes, "B"),
            "" if report.predicted_bytes is None else format_amount(report.predicted_bytes, "B"),
            f"{integer} of {len(report.layers)}" if report.layers else "",
            f"{report.worst_steps:.2g} steps" if report.layers else "",
            f"{report.relative_error:.2%}",
            "" if report.top1_agreement is None else f"{report.top1_agreement:.1%}",
        )
        for width in report.widths:
            table.add_row(
                f"  at {width_text((width.w_bits, width.a_bits))} bits",
                *("", "", ""),
                f"{width.worst_steps:.2g} steps",
                f"{width.relative_error:.2%}",
                "" if width.top1_agreement is None else f"{width.top1_agreement:.1%}",
                style="dim",
            )
    return table
