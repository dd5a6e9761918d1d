"""Classification: one label for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tenfold.data import Augmentation, Dataset, Draws, Preprocess, open_dataset, prefetch, stratified_order
from tenfold.errors import DataError
from tenfold.tasks.epochs import (
    Rows,
    check_positive,
    check_subset,
    evaluation_rows,
    training_rows,
)
from tenfold.tasks.preparation import Augment, check_choices, prepare
from tenfold.tasks.registry import register
from tenfold.tasks.task import Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

_FILE_SIZE = 224


class Classification(Task):
    """Learn the label of an image; judged by the share of images whose label is right.

    Args:
        dataset: the images.
        preprocess: from an image to what the network gets.
        augmentation: how training images are varied.
        subset: train on so many images only, the classes in proportion; None for all.

    Raises:
        UsageError: if `subset` is out of range.
        DataError: if there is nothing to train on or to evaluate with.
    """

    name = "classify"
    main_metric = "top1"

    def __init__(
        self, dataset: Dataset, preprocess: Preprocess, augmentation: Augmentation, *, subset: int | None = None
    ) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.input_shape = preprocess.input_shape
        count = len(dataset.train.targets)
        if not count or not len(dataset.evaluation.targets):
            raise DataError(f"the data set {dataset.name!r} has no images in its training or its evaluation part.")
        check_subset(subset, count)
        self._rows = np.arange(count)
        if subset is not None:
            self._rows = np.sort(stratified_order(dataset.train.targets)[:subset])

    @property
    def num_classes(self) -> int:
        """Outputs that the network needs."""
        return len(self.dataset.labels)

    @property
    def train_size(self) -> int:
        """Training images, after `subset`."""
        return len(self._rows)

    @property
    def eval_size(self) -> int:
        """Evaluation images, of all ranks together."""
        return len(self.dataset.evaluation.targets)

    def train_batches(
        self,
        *,
        epoch: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: inputs float32 (B, C, H, W), labels int64 (B,).

        Together the ranks see in one step what a single rank with a batch `world_size` times as large would see.

        Args:
            epoch: counted from 0; each has an order and variations of its own.
            batch_size: images that one rank gets in a step.
            seed: of the training.
            start: first step to give; those before cost nothing.
            rank: number of this process, from 0.
            world_size: number of processes.
            workers: threads that work ahead; the result does not depend on it.

        Raises:
            UsageError: if an argument is out of range.
            DataError: naming the file that cannot be read.
        """
        batches = training_rows(
            self._rows,
            epoch=epoch,
            batch_size=batch_size,
            seed=seed,
            start=start,
            rank=rank,
            world_size=world_size,
        )

        def make(rows: Rows) -> tuple[Tensor, Tensor]:
            images = self.dataset.train
            draws = Draws(seed, epoch, rows)
            pixels = images.varied(rows, self.preprocess, self.augmentation, draws)
            inputs, targets = self._tensors(pixels, images.targets[rows])
            self.augmentation.erase(inputs.numpy(), draws)
            return inputs, targets

        return prefetch(make, batches, workers)

    def eval_batches(
        self, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's evaluation images in order: every `world_size`-th, none twice, the last batch as it comes.

        Raises:
            UsageError: if an argument is out of range.
            DataError: naming the file that cannot be read.
        """
        batches = evaluation_rows(self.eval_size, batch_size=batch_size, rank=rank, world_size=world_size)

        def make(rows: Rows) -> tuple[Tensor, Tensor]:
            images = self.dataset.evaluation
            return self._tensors(images.framed(rows, self.preprocess), images.targets[rows])

        return prefetch(make, batches, workers)

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy, averaged over the batch.

        Args:
            outputs: logits (B, K).
            targets: labels int64 (B,), or the probability of each class (B, K), as mixup makes them.
            label_smoothing: share of the target spread over all classes, 0..1.
        """
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def metrics(self) -> MetricCollection:
        """Shares of images, 0..1: `top1`, whose label comes first; with ten classes or more also `top5`."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        ranks = (1, 5) if self.num_classes >= 10 else (1,)
        return MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(self.num_classes, top_k=k, average="micro", validate_args=False)
                for k in ranks
            }
        )

    def example(self, batch_size: int = 1) -> Tensor:
        """Training images of all classes in proportion, prepared as in evaluation: float32 (B, C, H, W).

        The same images each time; where there are too few they repeat.
        """
        check_positive(batch_size=batch_size)
        rows = self._rows[stratified_order(self.dataset.train.targets[self._rows])]
        pixels = self.dataset.train.framed(np.resize(rows, batch_size), self.preprocess)
        return torch.from_numpy(self.preprocess.normalize(pixels))

    def describe(self) -> dict[str, Any]:
        """A JSON object: task, labels, preprocess, num_outputs; and what the numbers were measured on."""
        return {
            "task": self.name,
            "labels": list(self.dataset.labels),
            "preprocess": self.preprocess.to_dict(),
            "num_outputs": self.num_classes,
            "data": {
                "name": self.dataset.name,
                "train_images": self.train_size,
                "eval_images": self.eval_size,
                "held_out": self.dataset.held_out,
                "skipped": list(self.dataset.skipped),
            },
        }

    def _tensors(self, pixels: NDArray[np.uint8], targets: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.preprocess.normalize(pixels)), torch.from_numpy(targets)


def _reopen(described: Mapping[str, Any], data: str | Path | None) -> Classification:
    prepared = dict(described["preprocess"])
    return classify(data=data, image_size=prepared.pop("size"), **prepared, augment="none")


@register("classify", reopen=_reopen)
def classify(
    *,
    data: str | Path | None = None,
    image_size: int | None = None,
    resize: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bilinear",
    channels: Literal[1, 3] | None = None,
    pixels: bool = False,
    augment: Augment = "auto",
    flip: bool | None = None,
    rand_augment: float = 0.0,
    erasing: float = 0.0,
    subset: int | None = None,
    eval_fraction: float | None = None,
    split_seed: int = 0,
    skip_bad: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Classification:
    """The classification task on some data.

    Args:
        data: None or "digits", "torchvision:NAME", a folder, or a folder's name inside TENFOLD_DATA.
        image_size: side of the network's input, in pixels; default: the images' own, 224 for files.
        resize: short side before the centre crop of evaluation; default: the image size for data of one size, and
            256/224 of it for files.
        mean: per channel, in 0..1; default: that of the training images for data of one size, ImageNet's for files.
        std: likewise.
        interpolation: filter of every resize.
        channels: 3 for RGB, 1 for grey; default: as the data is.
        pixels: feed raw pixels 0..255 instead of normalised ones (the convention of SAT).
        augment: "pad" (random crop after a border of an eighth), "resized" (random box, resized) or "none"; default:
            "pad" for data of one size, "resized" for files.
        flip: mirror half of the training images; default: yes, except for digits and where `augment` is "none".
        rand_augment: mean magnitude of RandAugment, 0..10, 9 in the recipes of vision transformers; 0 is off.
        erasing: probability that a box of a training image is filled with noise, 0..1.
        subset: number of training images to use, the classes in proportion.
        eval_fraction: part kept for evaluation where the data has no split of its own; 0 evaluates on the training
            images.
        split_seed: of that split; not the seed of the training, so that several seeds are judged on the same images.
        skip_bad: check all files first, and leave out those that cannot be read; `describe()` lists them.
        progress: called with the part done, 0..1, while an archive is decoded for the first time.

    Raises:
        UsageError: if an option has a value that is not allowed.
        DataError: if the data is missing, damaged, or laid out in another way.
    """
    check_choices(image_size, augment)
    dataset = open_dataset(
        data, eval_fraction=eval_fraction, split_seed=split_seed, skip_bad=skip_bad, progress=progress
    )
    preprocess, augmentation = prepare(
        dataset,
        file_size=_FILE_SIZE,
        image_size=image_size,
        resize=resize,
        mean=mean,
        std=std,
        interpolation=interpolation,
        channels=channels,
        pixels=pixels,
        augment=augment,
        flip=flip,
        rand_augment=rand_augment,
        erasing=erasing,
    )
    return Classification(dataset, preprocess, augmentation, subset=subset)
