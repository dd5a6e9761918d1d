"""Batch norms measured anew before each evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.methods.method import Method, register
from tenfold.quant import measure_norms
from tenfold.quant.constant_channels import each_width


@register
@dataclass(kw_only=True)
class NormCalibration(Method):
    """Set the statistics of all batch norms to plain averages over training batches, whenever the network is judged.

    For networks whose running statistics lag behind: those of batch norms over attention maps do, and those that belong
    to a weight average.

    Source: the DeepViT authors measure 50 batches after each epoch (`deepvit.md` section 5).
    """

    name: ClassVar[str] = "norm_calibration"

    batches: int = 50
    """Training batches to average over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batches < 1:
            raise UsageError(f"batches is {self.batches}; allowed is a whole number from 1.")

    def prepare_evaluation(self, network: nn.Module, batches: Iterator[Tensor]) -> None:
        """Measure the norms, at each bit-width if there are several."""
        images = list(islice(batches, self.batches))
        for _ in each_width(network):
            measure_norms(network, images)

    def finish(self, network: nn.Module, batches: Iterator[Tensor]) -> nn.Module:
        """Measure the norms of what leaves."""
        self.prepare_evaluation(network, batches)
        return network
