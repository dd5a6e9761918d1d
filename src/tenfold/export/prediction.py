"""Answers and scores of an ONNX file; none of this imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.clip_sources import middles, open_clip_source
from tenfold.data.dense import Run, coloured_mask, enlarged, overlay, pixel_scores
from tenfold.data.images import load_image
from tenfold.data.label_sets import IGNORE, IOU_PREFIX
from tenfold.data.preprocess import WholeImage, read_preprocess
from tenfold.errors import ArtifactError, DataError, TenfoldError
from tenfold.export.engine import open_engine
from tenfold.export.metadata import read_metadata
from tenfold.export.width_choice import Bits
from tenfold.files import written_whole

_TOP5_FROM = 10
"""Classes from which on five answers say something."""
_FEW = 8
"""Up to so many images a process is over before it pays to prepare the weights."""


@dataclass(frozen=True)
class Prediction:
    """The best answers to one image.

    Attributes:
        image: the file.
        answers: (label, probability) from the most to the least probable.
    """

    image: Path
    answers: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"image": str(self.image), "answers": [{"label": a, "probability": p} for a, p in self.answers]}


@dataclass(frozen=True)
class PixelPrediction(Prediction):
    """The class of every pixel of one image; `answers` are the shares of the image, largest first.

    Attributes:
        classes: uint8 (H, W), of the image's own size.
        colours: (red, green, blue) of each class.
    """

    classes: NDArray[np.uint8]
    colours: tuple[tuple[int, int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the classes of the pixels."""
        return {"image": str(self.image), "answers": [{"label": a, "share": s} for a, s in self.answers]}

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write NAME_mask.png, whose values are the classes and whose palette their colours, and NAME_overlay.png.

        Raises:
            StorageError: if a file could not be written.
        """
        mask = coloured_mask(self.classes, self.colours)
        pictures = {"mask": mask, "overlay": overlay(load_image(self.image), self.classes, self.colours)}
        files = []
        for kind, picture in pictures.items():
            files.append(folder / f"{self.image.stem}_{kind}.png")
            with written_whole(files[-1]) as part:
                picture.save(part, format="PNG")
        return files[0], files[1]


@dataclass(frozen=True)
class Scores:
    """How good an ONNX file is.

    Attributes:
        metrics: of a classifier `top1` and, with ten classes or more, `top5`: shares of images whose label is among the
            first answers. Of a segmentation `miou`, `pixel_accuracy` and `iou_NAME` of each class. All 0 to 1.
        images: how many images were judged.
        engine: the runtime that ran it.
    """

    metrics: dict[str, float]
    images: int
    engine: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def read_task(path: str | Path) -> dict[str, Any]:
    """The task that an ONNX file was made for: labels, preprocessing, number of outputs.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or was not exported by Tenfold with a task.
    """
    task = read_metadata(path).get("task")
    if not isinstance(task, dict) or "preprocess" not in task:
        raise ArtifactError(
            f"{path} does not say how to prepare images for it. Export it with `tenfold export` from an artifact."
        )
    return task


def predict(
    path: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    engine: str = "auto",
    threads: int | None = None,
    bits: Bits | None = None,
) -> list[Prediction]:
    """What is on some images, by an exported file.

    Args:
        path: the ONNX file.
        images: image files, one at least; each is run on its own.
        top: how many answers for each.
        engine: see `open_engine`.
        threads: see `open_engine`.
        bits: see `open_engine`.

    Raises:
        DataError: if an image cannot be read; the message names it.
        TenfoldError: as `open_engine` and `read_task` raise.
    """
    if not images:
        raise DataError("there are no images to predict; name at least one file.")
    task, runner = read_task(path), open_engine(path, engine, threads, bits, lean=len(images) <= _FEW)
    return answers(runner.run, task, images, top)


def answers(run: Run, task: Mapping[str, Any], images: Sequence[str | Path], top: int) -> list[Prediction]:
    """What a network says of some images.

    Args:
        run: the network, from inputs (B, C, H, W) to outputs.
        task: what `Task.describe` gave.
        images: image files, each run on its own; if the network recognises clips, videos or folders of pictures, too.
        top: how many answers for each.

    Raises:
        DataError: if an image cannot be read; the message names it.
    """
    preprocess, labels = read_preprocess(task["preprocess"]), task.get("labels") or []
    predictions: list[Prediction] = []
    for image in map(Path, images):
        if "frames" in task:
            frames = open_clip_source(image).read(middles(task["frames"]))
            scores = np.mean([run(preprocess.normalize(preprocess.frame(one))[None])[0] for one in frames], 0)
            predictions.append(Prediction(image, _best(softmax(scores), labels, top)))
            continue
        pixels = load_image(image, preprocess.channels)
        inputs = preprocess.normalize(preprocess.frame(pixels))
        if isinstance(preprocess, WholeImage):
            scores = enlarged(pixel_scores(run, inputs, preprocess.input_shape[1:]), (pixels.height, pixels.width))
            classes = scores.argmax(0).astype(np.uint8)
            shares = np.bincount(classes.reshape(-1), minlength=len(scores)) / classes.size
            colours = tuple(map(tuple, task["colours"]))
            predictions.append(PixelPrediction(image, _best(shares, labels, top), classes, colours))
        else:
            (logits,) = run(inputs[None])
            predictions.append(Prediction(image, _best(softmax(logits), labels, top)))
    return predictions


def _best(shares: NDArray[np.float64], labels: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    best = [k for k in np.argsort(-shares, kind="stable")[:top] if shares[k] > 0]
    return tuple((labels[k] if k < len(labels) else str(k), float(shares[k])) for k in best)


def evaluate(
    path: str | Path,
    batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]],
    *,
    engine: str = "auto",
    threads: int | None = None,
    bits: Bits | None = None,
) -> Scores:
    """How good an exported file is on prepared images.

    Args:
        path: the ONNX file.
        batches: images (B, C, H, W) with labels (B,); or frames of clips (B * T, C, H, W) with labels (B,); or, for a
            segmentation, images with the class of each pixel (B, H', W'), IGNORE where there is none.
        engine: see `open_engine`.
        threads: see `open_engine`.
        bits: see `open_engine`.

    Raises:
        DataError: if there is no image.
        TenfoldError: as `open_engine` raises.
    """
    runner = open_engine(path, engine, threads, bits)
    ranks, total, matrix = np.zeros(0, np.int64), 0, None
    for images, targets in batches:
        images, total = np.ascontiguousarray(images, np.float32), total + len(targets)
        if targets.ndim == 1:
            outputs = runner.run(images)
            if len(targets) < len(outputs):  # the frames of clips, in a row
                outputs = outputs.reshape(len(targets), -1, *outputs.shape[1:]).mean(1)
            ranks = np.concatenate([ranks, _ranks(outputs, targets)])
            continue
        window = (runner.input_shape[2] or images.shape[2], runner.input_shape[3] or images.shape[3])
        for image, truth in zip(images, targets, strict=True):
            scores = enlarged(pixel_scores(runner.run, image, window), truth.shape)
            found = _confusion(scores.argmax(0), truth, len(scores))
            matrix = found if matrix is None else matrix + found
    if not total:
        raise DataError("there are no images to evaluate on.")
    labels = read_metadata(path).get("task", {}).get("labels") or []
    if matrix is not None:
        return Scores(_shares(matrix, labels), total, runner.name)
    counted = {"top1": 1, "top5": 5} if len(labels) >= _TOP5_FROM else {"top1": 1}
    return Scores({name: float((ranks < first).mean()) for name, first in counted.items()}, total, runner.name)


def _ranks(outputs: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of the right label among the answers to each image, from 0."""
    if outputs.ndim != 2:
        raise TenfoldError(f"a classifier gives (B, classes); this file gives {outputs.shape}.")
    order = np.argsort(-outputs, axis=1, kind="stable")
    return (order == targets[:, None]).argmax(1)


def _confusion(found: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Pixels by true (row) and found class, without ignored ones."""
    counted = truth != IGNORE
    pairs = truth[counted] * classes + found[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _shares(matrix: NDArray[np.int64], labels: Sequence[str]) -> dict[str, float]:
    """The metrics of the task `segment`, from its confusion matrix."""
    hits, union = matrix.diagonal(), matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    each = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    names = [labels[k] if k < len(labels) else str(k) for k in range(len(each))]
    return {
        "miou": float(np.nanmean(each)),
        "pixel_accuracy": float(hits.sum() / max(1, matrix.sum())),
        **{f"{IOU_PREFIX}{name}": float(value) for name, value in zip(names, each, strict=True)},
    }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
