"""Answers and accuracy of an ONNX file; none of this imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import read_image
from tenfold.data.preprocess import Preprocess
from tenfold.errors import ArtifactError, DataError, TenfoldError
from tenfold.export.engine import Engine, open_engine
from tenfold.export.metadata import read_metadata
from tenfold.export.width_choice import Bits

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
class Accuracy:
    """How often an ONNX file is right.

    Attributes:
        top1: share of images whose first answer is right, 0 to 1.
        top5: share of images with the right one among five answers.
        images: how many images were judged.
        engine: the runtime that ran it.
    """

    top1: float
    top5: float
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
    """What is on some images, by an exported classifier.

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
    preprocess = Preprocess.from_dict(task["preprocess"])
    labels = task.get("labels") or []
    predictions = []
    for image in map(Path, images):
        (logits,) = runner.run(preprocess(read_image(image))[None])
        probabilities = softmax(logits)
        best = np.argsort(-probabilities, kind="stable")[:top]
        names = [labels[k] if k < len(labels) else str(k) for k in best]
        predictions.append(Prediction(image, tuple(zip(names, probabilities[best].tolist(), strict=True))))
    return predictions


def evaluate(
    path: str | Path,
    batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]],
    *,
    engine: str = "auto",
    threads: int | None = None,
    bits: Bits | None = None,
) -> Accuracy:
    """Accuracy of an exported classifier on prepared images.

    Args:
        path: the ONNX file.
        batches: images (B, C, H, W) and labels (B,).
        engine: see `open_engine`.
        threads: see `open_engine`.
        bits: see `open_engine`.

    Raises:
        DataError: if there is no image.
        TenfoldError: as `open_engine` raises.
    """
    runner = open_engine(path, engine, threads, bits)
    hits, total = np.zeros(2, np.int64), 0
    for outputs, targets in _outputs(runner, batches):
        order = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
        right = order == targets[:, None]
        hits += right[:, 0].sum(), right.any(1).sum()
        total += len(targets)
    if not total:
        raise DataError("there are no images to evaluate on.")
    return Accuracy(float(hits[0] / total), float(hits[1] / total), total, runner.name)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _outputs(
    runner: Engine, batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    for images, targets in batches:
        outputs = runner.run(np.ascontiguousarray(images, np.float32))
        if outputs.ndim != 2:
            raise TenfoldError(f"a classifier gives (B, classes); this file gives {outputs.shape}.")
        yield outputs, np.asarray(targets)
