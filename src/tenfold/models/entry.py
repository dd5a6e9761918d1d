"""What the registry keeps for a name: its facts and the function that builds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from tenfold.errors import ShapeError

Takes = Literal["image", "frame", "window"]
"""What a network takes: images (B, C, H, W), the frames of a video one after another, or a window of a video with its
masks and flows.

A network that takes something other than images has a method `example_inputs(shape)` that gives all arguments of its
`forward` for one frame of a shape.
"""


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
    """The image or frame it was designed for: channels, height, width."""
    num_classes: int | None
    """Outputs of the last layer; None where they are no classes."""
    params: int | None
    """Trainable numbers; None where nobody declares it."""
    macs: int | None
    """Multiply-adds of one image or frame of `input_shape`; None where nobody declares it."""
    tags: tuple[str, ...] = ()
    """Words to search for: "imagenet", "cifar", "tiny", "mobile", "residual"."""
    takes: Takes = "image"
    """What it takes."""

    def check_input(self, shape: Sequence[int]) -> None:
        """See that an image or frame has the numbers that the network asks for.

        Raises:
            ShapeError: if they are not channels, height and width, or the channels are fixed and others.
        """
        if len(shape) != 3:
            needed = "channels, height and width"
        elif self.takes != "image" and shape[0] != self.input_shape[0]:
            needed = f"{self.input_shape[0]} channels, height and width"
        else:
            return
        raise ShapeError(
            f"{self.name} takes {needed}, such as {'x'.join(map(str, self.input_shape))}; got "
            f"{'x'.join(map(str, shape))}."
        )


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    facts: ModelFacts
    builder: Callable[..., nn.Module]
    """Function whose keyword-only parameters are the model's options; all have defaults."""
