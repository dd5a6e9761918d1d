"""How good a class for each pixel is: intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from tenfold.data.label_sets import IGNORE, IOU_PREFIX
from tenfold.tasks.pixel_scores import at_size


class IntersectionOverUnion(MulticlassJaccardIndex):
    """Intersection over union from the confusion matrix of all pixels of all images, ignored ones left out.

    `compute` gives `miou`, the mean over the classes that occur in truth or answer; `pixel_accuracy`; and `iou_NAME` of
    each class, NaN where it does not occur. All are shares, 0..1.

    Args:
        labels: names of the classes.
    """

    def __init__(self, labels: Sequence[str], **options: Any) -> None:
        super().__init__(
            len(labels), average="none", ignore_index=IGNORE, zero_division=torch.nan, validate_args=False, **options
        )
        self.labels = list(labels)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch.

        Args:
            outputs: scores (B, K, h, w), enlarged to the targets.
            targets: classes int64 (B, H, W), IGNORE where there is none.
        """
        super().update(at_size(outputs, targets.shape[-2:]).argmax(1), targets)

    def compute(self) -> dict[str, Tensor]:
        """The shares by name."""
        each, matrix = super().compute(), self.confmat
        return {
            "miou": each.nanmean(),
            "pixel_accuracy": matrix.diag().sum() / matrix.sum(),
            **{IOU_PREFIX + label: value for label, value in zip(self.labels, each, strict=True)},
        }
