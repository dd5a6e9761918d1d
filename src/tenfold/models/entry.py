"""What the registry keeps for a name: its facts and the function that builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known about a model before it is built, all of it with the default options."""

    name: str
    """Registered name, such as "mobilenet_v2" or "timm:resnet50.a1_in1k"."""
    summary: str
    """One line about what it is."""
    source: str
    """Where it was published."""
    licence: str
    """SPDX identifier of the code's licence, or for a library's pretrained name, that of its weights."""
    input_shape: tuple[int, int, int]
    """The image it was designed for: channels, height, width."""
    num_classes: int
    """Outputs of the last layer."""
    params: int | None
    """Trainable numbers; None where nobody declares it."""
    macs: int | None
    """Multiply-adds of one image of `input_shape`; None where nobody declares it."""
    tags: tuple[str, ...] = ()
    """Words to search for: "imagenet", "cifar", "tiny", "mobile", "residual"."""


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    facts: ModelFacts
    builder: Callable[..., nn.Module]
    """Function whose keyword-only parameters are the model's options; all have defaults."""
