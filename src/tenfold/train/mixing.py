"""Mixup and cutmix: a batch mixed with itself, and its targets with it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from tenfold.train.config import TrainConfig

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create_mixing(config: TrainConfig, num_outputs: int) -> Mixing | None:
    """Build what `config` asks for, or None if it asks for neither.

    Returns:
        A function from inputs (B, C, H, W) and int64 targets (B,) to mixed inputs and soft float targets
        (B, num_outputs). It draws from torch's global generator, whose state is part of every checkpoint.
    """
    choices: list[Mixing] = []
    if config.mixup > 0:
        choices.append(v2.MixUp(alpha=config.mixup, num_classes=num_outputs))
    if config.cutmix > 0:
        choices.append(v2.CutMix(alpha=config.cutmix, num_classes=num_outputs))
    if not choices:
        return None
    return choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
