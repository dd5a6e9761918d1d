"""`tenfold predict`: what is on some images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tenfold.cli.output import to_stdout, write_json
from tenfold.cli.values import ONNX_SUFFIX, parse_bits
from tenfold.errors import MissingDataError, UsageError

if TYPE_CHECKING:
    from tenfold.export.prediction import Prediction


def predict(
    file: Path,
    /,
    *images: Path,
    top: int = 3,
    engine: str = "auto",
    threads: int | None = None,
    bits: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Say what is on images.

    An ONNX file runs without torch: it starts in a fraction of a second.

    Args:
        file: an artifact (.safetensors) or an .onnx file.
        images: image files, or folders of them.
        top: how many answers for each image.
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
    paths = _image_files(images)
    if file.suffix == ONNX_SUFFIX:
        from tenfold import export

        found = export.predict(file, paths, top=top, engine=engine, threads=threads, bits=width)
    else:
        found = _predict_artifact(file, paths, top, width)
    if as_json:
        write_json({"file": file, "predictions": [one.to_dict() for one in found]})
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


def _image_files(places: Sequence[Path]) -> list[Path]:
    from tenfold.data.images import SUFFIXES

    if not places:
        raise UsageError("which images? Name at least one image file or folder: tenfold predict FILE IMAGE...")
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
    from tenfold.data import Preprocess, read_image
    from tenfold.export.prediction import Prediction
    from tenfold.quant import set_bits

    network, header = open_artifact(file)
    if width is not None:
        set_bits(network, width)
    preprocess = Preprocess.from_dict(header["task"]["preprocess"])
    labels = header["task"].get("labels") or []
    found = []
    for path in images:
        with torch.inference_mode():
            logits = network(torch.from_numpy(preprocess(read_image(path))[None]))[0]
        best = torch.softmax(logits.double(), 0).topk(min(top, len(logits)))
        names = [labels[k] if k < len(labels) else str(k) for k in best.indices.tolist()]
        found.append(Prediction(path, tuple(zip(names, best.values.tolist(), strict=True))))
    return found
