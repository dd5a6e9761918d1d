"""`tenfold eval`: how good is an artifact or an ONNX file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tenfold.cli.artifacts import artifact_path, open_artifact
from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.values import ONNX_SUFFIX, parse_bits
from tenfold.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tenfold.tasks import Task


_NO_SHARES = ("loss", "psnr", "ssim", "warp_error", "lpips", "vfid")
"""How the names of metrics begin that are no parts of a whole."""


def evaluate(
    file: Path,
    /,
    *,
    data: str | None = None,
    batch_size: int = 64,
    engine: str = "auto",
    threads: int | None = None,
    bits: str | None = None,
    lpips: Annotated[bool, Parameter(negative=())] = False,
    i3d: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Measure how good a network is, on the evaluation part of some data.

    Images are prepared exactly as for the training; the file says how. An ONNX file runs without torch.

    Args:
        file: an artifact (.safetensors) or an .onnx file.
        data: a folder of images, torchvision:NAME, or a folder inside TENFOLD_DATA.
        batch_size: images at a time; an ONNX file segments them one by one.
        engine: runtime of an ONNX file: auto, onnxruntime or openvino.
        threads: CPU threads of the runtime; default: one a core.
        bits: which of its bit-widths to use, where a network has several, such as 4, or 4/8; default: the widest.
        lpips: of an inpainting network, also the LPIPS of frames, by torchvision's AlexNet (downloaded at first).
        i3d: of an inpainting network, also the VFID of windows, by this I3D as ONNX: windows (B, 3, T, H, W) in 0..1 to
            features.
        as_json: print one JSON object with the metrics (0 to 1).
    """
    file = artifact_path(file)
    judge = _judge_onnx if file.suffix == ONNX_SUFFIX else _judge_artifact
    width = parse_bits(bits) if bits else None
    options = {"batch_size": batch_size, "engine": engine, "threads": threads, "bits": width}
    options |= {"lpips": lpips, "i3d": i3d}
    result = {"file": str(file), "bytes": file.stat().st_size if file.is_file() else 0, **judge(file, data, options)}
    if as_json:
        write_json(result)
        return
    widest = max(map(len, result["metrics"]))
    for name, value in result["metrics"].items():
        shown = f"{value:.4f}" if name.startswith(_NO_SHARES) else "-" if math.isnan(value) else f"{value:.2%}"
        to_stdout(f"{name:{widest}} [bold]{shown}[/]")
    to_stderr(f"[dim]{result['images']} images, {result['engine']}[/]")


def _judge_onnx(file: Path, data: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    from tenfold import export

    task = export.read_task(file)
    if options["lpips"] or options["i3d"]:
        raise UsageError(_ARTIFACTS_OF_INPAINTING)
    batches = evaluation_batches(task, data, options["batch_size"])
    found = export.evaluate(file, batches, engine=options["engine"], threads=options["threads"], bits=options["bits"])
    return {"metrics": found.metrics, "images": found.images, "engine": found.engine}


def _judge_artifact(file: Path, data: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    from tenfold.cli.preparation import prepare_for_training

    prepare_for_training()
    from tenfold import train
    from tenfold.quant import set_bits

    network, header = open_artifact(file)
    if options["bits"] is not None:
        set_bits(network, options["bits"])
    task = task_of(header["task"], data)
    if options["lpips"] or options["i3d"]:
        _judge_by_perception(task, options["lpips"], options["i3d"])
    metrics = train.evaluate(network, task, batch_size=options["batch_size"])
    told = task.describe()["data"]
    return {
        "metrics": metrics,
        "images": told.get("eval_images", told.get("eval_windows", told.get("eval_clips"))),
        "engine": "torch",
    }


_ARTIFACTS_OF_INPAINTING = "--lpips and --i3d measure artifacts of the task inpaint. Leave them out."


def _judge_by_perception(task: Task, lpips: bool, i3d: Path | None) -> None:
    from tenfold.tasks.inpainting import Inpainting

    if not isinstance(task, Inpainting):
        raise UsageError(_ARTIFACTS_OF_INPAINTING)
    from tenfold.tasks.inpainting_perception import FrameDistance, WindowDistance

    task.judge_by(*[FrameDistance] * lpips, *([] if i3d is None else [lambda: WindowDistance(i3d)]))


def task_of(described: Mapping[str, Any], data: str | None) -> Task:
    """The task that a network learned, on some data; images are prepared as they were then.

    Raises:
        UsageError: if the data has other classes, or it is not known which data to take.
    """
    from tenfold import tasks

    task = tasks.reopen(described, data_of(described, data))
    check_labels(described, task.describe().get("labels", ()))
    return task


def evaluation_batches(
    task: Mapping[str, Any], data: str | None, batch_size: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The evaluation images or clips of some data with their targets, as the task's description wants them; no torch.

    Raises:
        UsageError: if the data has other classes than the task, or it is not known which data to take.
    """
    import numpy as np

    from tenfold.data import WholeImage, open_dataset, read_preprocess
    from tenfold.data.labelled_clips import open_labelled_clips
    from tenfold.data.masks import reopen_masked_images

    preprocess, place = read_preprocess(task["preprocess"]), data_of(task, data)
    if isinstance(preprocess, WholeImage):
        masked = reopen_masked_images(task, place)
        check_labels(task, masked.labels.names)
        for pair in masked.evaluation:
            image, mask = masked.read(pair, preprocess.channels)
            yield preprocess.normalize(preprocess.frame(image))[None], mask[None].astype(np.int64)
        return
    dataset = open_labelled_clips(place, task["frames"]) if "frames" in task else open_dataset(place)
    check_labels(task, dataset.labels)
    images = dataset.evaluation
    for first in range(0, len(images.targets), batch_size):
        rows = np.arange(first, min(first + batch_size, len(images.targets)))
        yield preprocess.normalize(images.framed(rows, preprocess)), images.targets[rows]


def data_of(task: Mapping[str, Any], data: str | None) -> str | None:
    """Which data to open: what was asked for, or none if the network learned on embedded or drawn data.

    Raises:
        UsageError: if nothing was asked for, and the network learned on something else.
    """
    from tenfold.data.catalog import DIGITS, SPRITES, WANDERING_DIGITS

    learned_on = task.get("data", {}).get("name")
    if data is None and learned_on not in (DIGITS, SPRITES, WANDERING_DIGITS):
        raise UsageError(f"which images? The network learned on {learned_on!r}; say where they are: --data FOLDER.")
    return data


def check_labels(task: Mapping[str, Any], labels: Any) -> None:
    """Refuse data whose classes are not those that the network tells apart.

    Raises:
        UsageError: naming the first class that differs.
    """
    wanted, got = list(task.get("labels") or []), list(labels)
    if wanted and wanted != got:
        differing = next((f"{a!r} and not {b!r}" for a, b in zip(got, wanted, strict=False) if a != b), "")
        raise UsageError(
            f"the data has other classes than the network: {len(got)} instead of {len(wanted)}"
            + (f", the first that differs is {differing}" if differing else "")
            + ". Give data with the same classes, under the same names."
        )
