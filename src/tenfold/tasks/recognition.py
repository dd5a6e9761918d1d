"""Recognition: one label for each clip, from the scores of some of its frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from tenfold.batches import call
from tenfold.data import Augmentation, Dataset, Preprocess
from tenfold.data.labelled_clips import open_labelled_clips
from tenfold.errors import UsageError
from tenfold.tasks.classification import Classification
from tenfold.tasks.epochs import check_positive
from tenfold.tasks.preparation import Augment, check_choices, prepare
from tenfold.tasks.registry import register

_FILE_SIZE = 112
_MOST_FRAMES = 64


class Recognition(Classification):
    """Learn the label of a clip; its scores are the mean of its frames' scores.

    So any network that classifies images recognises clips, and an exported one takes a frame. A batch of B clips is
    B * T images, the T frames of a clip in a row.

    Source: temporal segment networks, arXiv 1608.00859; the video tasks of NAS-Bench-MR, arXiv 2103.13253.

    Args:
        dataset: whose images are `LabelledClips`.
        preprocess: from a frame to what the network gets.
        augmentation: how training clips are varied, all frames of one alike.
        frames: T, of each clip.
        subset: train on so many clips only, the classes in proportion; None for all.

    Raises:
        UsageError: if `subset` is out of range.
        DataError: if there is nothing to train on or to evaluate with.
    """

    name = "recognize"

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        augmentation: Augmentation,
        frames: int,
        *,
        subset: int | None = None,
    ) -> None:
        super().__init__(dataset, preprocess, augmentation, subset=subset)
        self.images_per_answer = frames

    def eval_batches(
        self, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's evaluation clips in order, about `batch_size` frames at a time."""
        check_positive(batch_size=batch_size)
        clips = max(1, batch_size // self.images_per_answer)
        return super().eval_batches(batch_size=clips, rank=rank, world_size=world_size, workers=workers)

    def infer(self, network: nn.Module, inputs: Any) -> Tensor:
        """Scores (B, K) of clips from their frames (B * T, C, H, W)."""
        return self._of_clips(call(network, inputs))

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy of the clips' mean scores.

        Args:
            outputs: scores of frames (B * T, K), or of clips (B, K).
            targets: labels int64 (B,).
            label_smoothing: share of the target spread over all classes, 0..1.
        """
        scores = outputs if len(outputs) == len(targets) else self._of_clips(outputs)
        return super().loss(scores, targets, label_smoothing=label_smoothing)

    def example(self, batch_size: int = 1) -> Tensor:
        """Frames of training clips, prepared as in evaluation: float32 (B, C, H, W)."""
        check_positive(batch_size=batch_size)
        return super().example(-(-batch_size // self.images_per_answer))[:batch_size]

    def describe(self) -> dict[str, Any]:
        """As of a classification, and `frames` of a clip."""
        return {**super().describe(), "frames": self.images_per_answer}

    def _of_clips(self, scores: Tensor) -> Tensor:
        return scores.unflatten(0, (-1, self.images_per_answer)).mean(1)


def _reopen(described: Mapping[str, Any], data: str | Path | None) -> Recognition:
    prepared = dict(described["preprocess"])
    return recognize(data=data, frames=described["frames"], image_size=prepared.pop("size"), **prepared, augment="none")


@register("recognize", reopen=_reopen)
def recognize(
    *,
    data: str | Path | None = None,
    frames: int = 4,
    image_size: int | None = None,
    resize: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bilinear",
    channels: Literal[1, 3] | None = None,
    pixels: bool = False,
    augment: Augment = "auto",
    flip: bool | None = None,
    subset: int | None = None,
    eval_fraction: float = 0.2,
    split_seed: int = 0,
    damage: Literal["refuse", "skip"] = "refuse",
) -> Recognition:
    """The recognition task on some clips.

    Args:
        data: None or "wandering digits" for clips that are made here; a folder with a folder of clips a class, perhaps
            in train/ and val/; or a folder's name inside TENFOLD_DATA. A clip is a video file, or a folder of numbered
            pictures.
        frames: T, of each clip, 1..64.
        image_size: side of the network's input, in pixels; default: 32 for the digits, 112 for files.
        resize: short side before the centre crop of evaluation; default: 128/112 of the image size for files.
        mean: per channel, in 0..1; default: that of the clips for the digits, ImageNet's for files.
        std: likewise.
        interpolation: filter of every resize.
        channels: 3 for RGB, 1 for grey; default: as the data is.
        pixels: feed raw pixels 0..255 instead of normalised ones.
        augment: "pad" (random crop after a border of an eighth), "resized" (random box, resized) or "none"; default:
            "pad" for the digits, "resized" for files.
        flip: mirror half of the training clips; default: yes, except for digits and where `augment` is "none".
        subset: number of training clips to use, the classes in proportion.
        eval_fraction: part kept for evaluation where the data has no split of its own; 0 evaluates on all clips.
        split_seed: of that split; not the seed of the training.
        damage: "refuse" damaged videos, or "skip" what cannot be decoded of them.

    Raises:
        UsageError: if an option has a value that is not allowed.
        DataError: if the data is missing, damaged, or laid out in another way.
    """
    if not 1 <= frames <= _MOST_FRAMES:
        raise UsageError(f"frames is {frames}; allowed is 1 to {_MOST_FRAMES} of a clip.")
    if not 0 <= eval_fraction < 1:
        raise UsageError(f"eval_fraction is {eval_fraction}; allowed is 0 up to below 1.")
    if damage not in ("refuse", "skip"):
        raise UsageError(f"damage is {damage!r}; allowed are 'refuse' and 'skip'.")
    check_choices(image_size, augment)
    dataset = open_labelled_clips(data, frames, eval_fraction=eval_fraction, split_seed=split_seed, damage=damage)
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
    )
    return Recognition(dataset, preprocess, augmentation, frames, subset=subset)
