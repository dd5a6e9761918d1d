"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tenfold.data import Draws, MaskedImages, WholeImage, open_masked_images, prefetch
from tenfold.data.dense import overlay, side_by_side
from tenfold.data.label_sets import IGNORE
from tenfold.data.masks import Pair, reopen_masked_images
from tenfold.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, check_side
from tenfold.errors import DataError, ShapeError, UsageError
from tenfold.tasks.epochs import (
    Rows,
    check_positive,
    check_subset,
    evaluation_rows,
    training_rows,
)
from tenfold.tasks.pixel_scores import at_size, windowed_scores
from tenfold.tasks.registry import register
from tenfold.tasks.scale_crop import ScaleCrop
from tenfold.tasks.task import Picture, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

_ILLUSTRATIONS = 4


class Segmentation(Task):
    """Learn the class of every pixel; judged by the mean intersection over union at the masks' own size.

    Args:
        dataset: images with masks.
        preprocess: from an image to what the network gets.
        augmentation: how training pairs are varied; its crop is what the network sees in training.
        subset: train on so many pairs only; None for all.

    Raises:
        UsageError: if `subset` is out of range.
        ShapeError: if a training image is smaller than the crop.
    """

    name = "segment"
    main_metric = "miou"
    per_pixel = True

    def __init__(
        self, dataset: MaskedImages, preprocess: WholeImage, augmentation: ScaleCrop, *, subset: int | None = None
    ) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.input_shape = preprocess.input_shape
        count = len(dataset.train)
        check_subset(subset, count)
        self._rows = np.sort(Draws(0, 0, np.arange(count)).order()[:subset])
        for row in self._rows:
            pair = dataset.train[row]
            width, height = preprocess.frame_size(pair.width, pair.height)
            augmentation.check(height, width, str(pair.image))

    @property
    def num_classes(self) -> int:
        """Scores of each pixel that the network needs."""
        return len(self.dataset.labels.names)

    @property
    def train_size(self) -> int:
        """Training images, after `subset`."""
        return len(self._rows)

    @property
    def eval_size(self) -> int:
        """Evaluation images, of all ranks together."""
        return len(self.dataset.evaluation)

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
        """Batches of one epoch: inputs float32 (B, C, h, w) and classes int64 (B, h, w), h x w being the crop.

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
            DataError: naming the file that cannot be read, or the mask that holds an unknown label.
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
        fill = [255 * mean for mean in self.preprocess.mean]

        def make(rows: Rows) -> tuple[Tensor, Tensor]:
            pairs = []
            for row in rows:
                image, mask = self._framed(self.dataset.train[row])
                draws = Draws(seed, epoch, np.array([row]))
                pairs.append(self.augmentation(torch.tensor(image), torch.from_numpy(mask), fill, draws))
            images, masks = zip(*pairs, strict=True)
            pixels = self.preprocess.normalize(torch.stack(images).numpy())
            return torch.from_numpy(pixels), torch.stack(masks).long()

        return prefetch(make, batches, workers)

    def eval_batches(
        self, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's evaluation images in order, whole, with their masks at the masks' own size.

        A batch ends early where the next image has another size.

        Raises:
            UsageError: if an argument is out of range.
            DataError: as `train_batches`.
        """
        # Cut into batches below, since only images of one size can stand together.
        singles = evaluation_rows(self.eval_size, batch_size=1, rank=rank, world_size=world_size)
        check_positive(batch_size=batch_size)

        def make(rows: list[int]) -> tuple[Tensor, Tensor]:
            read = [self.dataset.read(self.dataset.evaluation[row], self.preprocess.channels) for row in rows]
            pixels = np.stack([self.preprocess.frame(image) for image, _ in read])
            masks = np.stack([mask for _, mask in read]).astype(np.int64)
            return torch.from_numpy(self.preprocess.normalize(pixels)), torch.from_numpy(masks)

        return prefetch(make, self._of_one_size(singles, batch_size), workers)

    def infer(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Scores (B, K, h, w) of prepared images: at the stride of the network, or of every pixel from windows."""
        return windowed_scores(network, inputs, self.input_shape[1:])

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy, averaged over all pixels of the batch that have a class; 0 if none has.

        Args:
            outputs: scores (B, K, h, w); they are enlarged to the targets.
            targets: classes int64 (B, H, W), IGNORE where there is none.
            label_smoothing: share of the target spread over all classes, 0..1.
        """
        scores = at_size(outputs, targets.shape[-2:])
        total = F.cross_entropy(scores, targets, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="sum")
        return total / (targets != IGNORE).sum().clamp(min=1)

    def metrics(self) -> MetricCollection:
        """Shares, 0..1: `miou`, `pixel_accuracy` and `iou_NAME` of each class, NaN for one that does not occur."""
        from torchmetrics import MetricCollection

        from tenfold.tasks.segmentation_metrics import IntersectionOverUnion

        return MetricCollection([IntersectionOverUnion(self.dataset.labels.names)])

    def example(self, batch_size: int = 1) -> Tensor:
        """Training images of the size that the network sees in evaluation: float32 (B, C, H, W).

        The same images each time; where there are too few they repeat. Of larger images it is the window in the middle.
        """
        check_positive(batch_size=batch_size)
        rows = np.resize(Draws(0, 0, self._rows).order(), batch_size)
        _, height, width = self.input_shape
        pixels = []
        for row in rows:
            image, _ = self._framed(self.dataset.train[row])
            top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
            pixels.append(image[:, top : top + height, left : left + width])
        return torch.from_numpy(self.preprocess.normalize(np.stack(pixels)))

    def illustrate(self, network: nn.Module) -> Sequence[Picture]:
        """Evaluation images, each beside its truth and the network's answer."""
        colours = self.dataset.labels.colours
        device = next(network.parameters()).device
        pictures = []
        for row in np.linspace(0, self.eval_size - 1, min(_ILLUSTRATIONS, self.eval_size)).round().astype(int):
            pair = self.dataset.evaluation[row]
            image, mask = self.dataset.read(pair, self.preprocess.channels)
            inputs = torch.from_numpy(self.preprocess.normalize(self.preprocess.frame(image))[None])
            with torch.no_grad():
                scores = at_size(self.infer(network, inputs.to(device)), mask.shape)
            found = scores[0].argmax(0).to("cpu", torch.uint8).numpy()
            row_of_three = side_by_side([image, overlay(image, mask, colours), overlay(image, found, colours)])
            pictures.append(Picture(pair.image.name, row_of_three))
        return pictures

    def describe(self) -> dict[str, Any]:
        """A JSON object: task, labels, colours, preprocess, num_outputs; and what the numbers were measured on."""
        return {
            "task": self.name,
            **self.dataset.labels.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "num_outputs": self.num_classes,
            "data": {
                "name": self.dataset.name,
                "train_images": self.train_size,
                "eval_images": self.eval_size,
                "held_out": self.dataset.held_out,
                "part": self.dataset.part,
            },
        }

    def _framed(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """An image uint8 (C, H, W) and its mask (H, W), both brought to the size of the preprocess."""
        image, mask = self.dataset.read(pair, self.preprocess.channels)
        pixels = self.preprocess.frame(image)
        if mask.shape != pixels.shape[1:]:
            size = (pixels.shape[2], pixels.shape[1])
            mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        return pixels, np.array(mask)

    def _of_one_size(self, singles: Iterator[Rows], batch_size: int) -> Iterator[list[int]]:
        batch: list[int] = []
        for (row,) in (one.tolist() for one in singles):
            pair = self.dataset.evaluation[row]
            other = self.dataset.evaluation[batch[0]] if batch else pair
            if len(batch) == batch_size or (pair.width, pair.height) != (other.width, other.height):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch


def _reopen(described: Mapping[str, Any], data: str | Path | None) -> Segmentation:
    preprocess = WholeImage.from_dict(described["preprocess"])
    dataset = reopen_masked_images(described, data)
    return Segmentation(dataset, preprocess, ScaleCrop(height=preprocess.height, width=preprocess.width))


@register("segment", reopen=_reopen)
def segment(
    *,
    data: str | Path | None = None,
    image_size: int | Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    windows: bool = False,
    scale: Sequence[float] = (0.5, 2.0),
    flip: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: Literal["bicubic", "bilinear"] = "bilinear",
    pixels: bool = False,
    labels: str | Sequence[str] | None = None,
    subset: int | None = None,
    eval_fraction: float | None = None,
    split_seed: int = 0,
    eval_part: str | None = None,
) -> Segmentation:
    """The segmentation task on some data.

    Args:
        data: a folder, or a folder's name inside TENFOLD_DATA: train/ and val/ with images/ and masks/ in each, images/
            and masks/ alone, or Cityscapes' leftImg8bit/ and gtFine/.
        image_size: what every image is resized to, [height, width], or the short side in pixels of the shape that most
            images have; default: the images' own size.
        crop: [height, width] of the training crop; default: the whole image.
        windows: evaluate by overlapping windows of the crop's size over the image at its own size, instead of the whole
            image at once.
        scale: zoom of training images, from and to.
        flip: mirror half of the training images.
        mean: per channel, in 0..1.
        std: likewise.
        interpolation: filter of every resize.
        pixels: feed raw pixels 0..255 instead of normalised ones (the convention of SAT).
        labels: names of the classes, or "camvid" or "cityscapes"; default: labels.txt in the folder.
        subset: number of training images to use.
        eval_fraction: part kept for evaluation where the data has no split of its own; 0 evaluates on the training
            images.
        split_seed: of that split; not the seed of the training.
        eval_part: the folder beside train/ to judge by, such as "test"; default: val/ if it is there.

    Raises:
        UsageError: if an option has a value that is not allowed.
        ShapeError: if a size is not allowed, or an image is smaller than the crop.
        DataError: if the data is missing, damaged, or laid out in another way.
    """
    dataset = open_masked_images(
        data, labels=labels, eval_fraction=eval_fraction, split_seed=split_seed, eval_part=eval_part
    )
    if windows and crop is None:
        raise UsageError("windows=true needs the size of the windows: crop=[HEIGHT, WIDTH].")
    if windows and image_size is not None:
        raise UsageError("windows=true takes images at their own size; leave image_size out.")
    cut = None if crop is None else _sides("crop", crop)
    sides = cut if cut is not None and windows else _frame(dataset, image_size)
    cut = cut or sides
    preprocess = WholeImage(
        height=sides[0],
        width=sides[1],
        windows=windows,
        mean=tuple(mean),
        std=tuple(std),
        interpolation=interpolation,
        pixels=pixels,
    )
    augmentation = ScaleCrop(height=cut[0], width=cut[1], scale=tuple(scale), flip=flip)  # type: ignore[arg-type]
    return Segmentation(dataset, preprocess, augmentation, subset=subset)


def _frame(dataset: MaskedImages, image_size: int | Sequence[int] | None) -> tuple[int, int]:
    """Height and width to which images are resized."""
    if image_size is not None and not isinstance(image_size, int):
        return _sides("image_size", image_size)
    shapes = Counter((pair.height, pair.width) for pair in (*dataset.train, *dataset.evaluation))
    if image_size is None:
        if len(shapes) > 1:
            raise DataError(
                f"the images of {dataset.name} have {len(shapes)} different sizes, such as "
                f"{' and '.join(f'{w} x {h}' for h, w in sorted(shapes)[:2])}. Say to what size they shall be brought "
                "(--image-size SHORT_SIDE, or --set task.image_size=[HEIGHT,WIDTH]), or windows=true with a crop."
            )
        return _sides("image_size", next(iter(shapes)))
    check_side("image_size", image_size)
    ((height, width), _), *_ = shapes.most_common(1)
    return round(height * image_size / min(height, width)), round(width * image_size / min(height, width))


def _sides(name: str, value: Sequence[int]) -> tuple[int, int]:
    sides = tuple(value)
    if len(sides) != 2:
        raise ShapeError(f"{name} is {list(value)}; needed is [height, width] in pixels.")
    for side in sides:
        check_side(name, side)
    return sides[0], sides[1]
