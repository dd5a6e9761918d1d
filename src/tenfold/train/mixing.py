"""Mixup and cutmix: a batch mixed with itself, and its targets with it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from tenfold.errors import UsageError
from tenfold.tasks import Task
from tenfold.train.config import TrainConfig

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create_mixing(config: TrainConfig, task: Task) -> Mixing | None:
    """Build what `config` asks for, or None if it asks for neither.

    Returns:
        A function from inputs (B, C, H, W) and int64 targets (B,) to mixed inputs and soft float targets
        (B, num_outputs). It draws from torch's global generator, whose state is part of every checkpoint.

    Raises:
        UsageError: if the task's targets are no labels of whole images.
    """
    if not config.mixup and not config.cutmix:
        return None
    if task.per_pixel:
        raise UsageError(
            f"mixup = {config.mixup:g} and cutmix = {config.cutmix:g}: they mix labels of whole images, and the task "
            f"{task.name!r} has one for each pixel. Set both to 0."
        )
    if task.images_per_answer > 1:
        raise UsageError(
            f"mixup = {config.mixup:g} and cutmix = {config.cutmix:g}: they mix images that have a label each, and in "
            f"the task {task.name!r} {task.images_per_answer} images have one together. Set both to 0."
        )
    num_outputs = int(task.describe()["num_outputs"])
    choices: list[Mixing] = []
    if config.mixup > 0:
        choices.append(v2.MixUp(alpha=config.mixup, num_classes=num_outputs))
    if config.cutmix > 0:
        choices.append(v2.CutMix(alpha=config.cutmix, num_classes=num_outputs))
    return choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
