"""What a training of inpainting minimises: reconstruction, and with VGG's weights, likeness of features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor

from tenfold.errors import UnknownNameError, UsageError
from tenfold.tasks.inpainting_batches import WindowTargets
from tenfold.tasks.inpainting_losses import (
    l1_by_area,
    l2_by_area,
    masked_reconstruction,
    perceptual,
    reconstruction,
    style,
)

if TYPE_CHECKING:  # torchvision takes seconds to import
    from tenfold.tasks.perceptual import VggFeatures

Error = Literal["l1", "l2", "release"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of the network's answer.

    Args:
        error: "l1" or "l2": absolute or squared errors of the pixels to be filled by their number, plus `outside` times
            that of all others by theirs; "release": the TSAM authors' mean absolute error of composited frames, plus
            `masked` times that of the holes, both over all pixels.
        outside: see `error`; also lets the network say how it would repair what was copied.
        masked: see `error`; 6 in the authors' second stage.
        perceptual: weight of the difference of VGG's features, 1 with the authors.
        style: weight of the difference of their correlations, 2 with the authors.
        vgg: the weights for these two, a .safetensors file of torchvision's vgg16.

    Raises:
        UnknownNameError: if the error is not known.
        UsageError: if a weight is not allowed, or there is no file for a weight that needs it.
    """

    error: Error = "l1"
    outside: float = 0.1
    masked: float = 0.0
    perceptual: float = 0.0
    style: float = 0.0
    vgg: str | None = None

    def __post_init__(self) -> None:
        if self.error not in get_args(Error):
            raise UnknownNameError("error", self.error, get_args(Error))
        for name in ("outside", "masked", "perceptual", "style"):
            value = getattr(self, name)
            if not 0 <= value <= 1000:
                raise UsageError(f"{name} is {value}; allowed is 0 to 1000.")
        if self.masked and self.error != "release":
            raise UsageError(f'masked is {self.masked}: only error = "release" has it; the others weigh holes by area.')
        if (self.perceptual or self.style) and self.vgg is None:
            raise UsageError(
                "perceptual and style losses need VGG's weights: vgg=FILE, a .safetensors file of torchvision's vgg16; "
                "or set both to 0."
            )

    def __call__(self, answer: Tensor, targets: WindowTargets) -> Tensor:
        """The loss, 0-d.

        Args:
            answer: what the network gave, (B, T, 3, H, W).
            targets: of the batch.
        """
        known = (~targets.rest).to(answer.dtype)
        if self.error == "release":
            made = targets.composited(answer)
            loss = reconstruction(made, targets.truth)
            if self.masked:
                loss = loss + self.masked * masked_reconstruction(made, targets.truth, known)
        else:
            by_area = l1_by_area if self.error == "l1" else l2_by_area
            loss = by_area(targets.painted(answer), targets.truth, known, outside=self.outside)
        if self.perceptual or self.style:
            features = self._features.to(answer.device)
            made, truth = features(targets.composited(answer)), features(targets.truth)
            loss = loss + self.perceptual * perceptual(made, truth) + self.style * style(made, truth)
        return loss

    def to_dict(self) -> dict[str, Any]:
        """All but the place of the file."""
        told = asdict(self)
        del told["vgg"]
        return told

    @cached_property
    def _features(self) -> VggFeatures:
        from tenfold.tasks.perceptual import VggFeatures

        assert self.vgg is not None
        return VggFeatures(self.vgg)
