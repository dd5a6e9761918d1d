"""`tenfold predict`: what is on some images, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.values import ONNX_SUFFIX, parse_bits
from tenfold.errors import MissingDataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tenfold.export.prediction import Prediction

_FOLDER = Path("predictions")


def predict(
    file: Path,
    /,
    *images: Path,
    top: int = 3,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    engine: str = "auto",
    threads: int | None = None,
    bits: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Say what is on images or in clips; of a segmentation, draw where.

    An ONNX file runs without torch: it starts in a fraction of a second.

    Args:
        file: an artifact (.safetensors) or an .onnx file.
        images: image files, or folders of them; for a network of the task recognize videos, or folders of pictures,
            each of them one clip.
        top: how many answers for each image; of a segmentation the classes that cover most of it.
        out: folder for the pictures of a segmentation, NAME_mask.png and NAME_overlay.png; default: predictions.
        engine: runtime of an ONNX file: auto, onnxruntime or openvino.
        threads: CPU threads of the runtime; default: one a core.
        bits: which of its bit-widths to use, where a network has several, such as 4, or 4/8; default: the widest.
        as_json: print one JSON object with label and probability of the answers.
    """
    # numpy's threads for matrix products would start, find nothing to do, and spin: a fifth of the CPU time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if top < 1:
        raise UsageError(f"--top {top} is not allowed; it is at least 1.")
    width = parse_bits(bits) if bits else None
    if not images:
        raise UsageError("which images? Name at least one image file or folder: tenfold predict FILE IMAGE...")
    if file.suffix == ONNX_SUFFIX:
        from tenfold import export

        paths = _image_files(images, export.read_task(file))
        found = export.predict(file, paths, top=top, engine=engine, threads=threads, bits=width)
    else:
        found = _predict_artifact(file, images, top, width)
    drawn = _draw(found, out)
    if as_json:
        rows = [{**one.to_dict(), **files} for one, files in zip(found, drawn, strict=True)]
        write_json({"file": file, "predictions": rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(style="bold")
    table.add_column(justify="right")
    for one in found:
        for rank, (label, probability) in enumerate(one.answers):
            style = "" if rank == 0 else "dim"
            table.add_row("" if rank else str(one.image), label, f"{probability:.1%}", style=style)
    to_stdout(table)
    for files in drawn:
        for path in files.values():
            to_stderr(f"[dim]{path}[/]")


def _draw(found: Sequence[Prediction], out: Path | None) -> list[dict[str, Path]]:
    """Write the pictures of a segmentation; returns the files of each image, none for a classifier."""
    from tenfold.export.prediction import PixelPrediction

    pictures = [one for one in found if isinstance(one, PixelPrediction)]
    if out is not None and not pictures:
        raise UsageError("--out is for the pictures of a segmentation; this network gives labels only. Leave it out.")
    names = [one.image.stem for one in pictures]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"several images are named {twice!r}, and their pictures would overwrite each other. "
            "Predict them in several calls, each with an --out of its own."
        )
    written = {one.image: dict(zip(("mask", "overlay"), one.write(out or _FOLDER), strict=True)) for one in pictures}
    return [written.get(one.image, {}) for one in found]


def _image_files(places: Sequence[Path], task: Mapping[str, Any]) -> list[Path]:
    """The files of folders; but for a network that recognises clips a folder is one clip."""
    from tenfold.data.images import SUFFIXES

    if "frames" in task:
        return list(places)
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
            if not inside:
                raise MissingDataError(f"the folder {place} holds no images ({', '.join(sorted(SUFFIXES))}).")
            files += inside
        else:
            files.append(place)
    return files


def _predict_artifact(file: Path, images: Sequence[Path], top: int, width: tuple[int, int] | None) -> list[Prediction]:
    import torch

    from tenfold.cli.artifacts import open_artifact
    from tenfold.export.prediction import answers
    from tenfold.quant import set_bits

    network, header = open_artifact(file)
    if width is not None:
        set_bits(network, width)

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            outputs: NDArray[np.float32] = network(torch.from_numpy(inputs)).numpy()
        return outputs

    return answers(run, header["task"], _image_files(images, header["task"]), top)
