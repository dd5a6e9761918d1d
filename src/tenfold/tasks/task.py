"""What every task offers to the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from PIL import Image
from torch import Tensor, nn

from tenfold.batches import Inputs, Targets, call
from tenfold.tasks.epochs import batches_per_epoch

if TYPE_CHECKING:  # torchmetrics takes two seconds to import, and only an evaluation needs it
    from torchmetrics import MetricCollection


class Picture(NamedTuple):
    """A drawing of what a network does, for the report."""

    caption: str
    image: Image.Image


class Task(Protocol):
    """What a network is for: data, loss, metrics, and the description that travels with the artifact.

    A batch of training is a pure function of (seed, epoch, batch number, rank, world size): it does not depend on the
    number of workers, on what ran before, or on any global random state, and touches none.

    Inputs are one tensor, or a tuple (a NamedTuple) of tensors, which become the arguments of the network; targets are
    one tensor or a tuple. The first axis of every tensor is the batch.

    A class that inherits from this one gets what suits a task with one answer for each image.
    """

    name: str
    input_shape: tuple[int, int, int]
    """(C, H, W) of one image as the network gets it."""
    main_metric: str
    """Key of `metrics()` that decides which network is best; larger is better."""
    per_pixel: bool = False
    """Whether the network answers for each pixel, and not once for each image."""
    images_per_answer: int = 1
    """Images in a row that have one answer together, such as the frames of a clip; `infer` and `loss` join them."""
    takes: str = "image"
    """What the network takes: an "image", or a "window" of a video with its masks and flows."""

    @property
    def train_size(self) -> int:
        """Items in one epoch of training: images, windows or clips."""

    def batches_per_epoch(self, batch_size: int, world_size: int = 1) -> int:
        """Training steps in one epoch: whole batches only, but one batch where there are fewer items.

        Args:
            batch_size: items that one rank gets in a step.
            world_size: number of ranks.
        """
        return batches_per_epoch(self.train_size, batch_size, world_size)

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
    ) -> Iterator[tuple[Inputs, Targets]]:
        """Inputs, such as images (B, C, H, W), and targets of each step, from step `start`; others cost nothing."""

    def eval_batches(
        self, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[Inputs, Targets]]:
        """This rank's share of the evaluation images; the shares have no image in common and leave none out."""

    def infer(self, network: nn.Module, inputs: Any) -> Any:
        """Outputs for inputs of evaluation, which may be larger than what the network sees at once."""
        return call(network, inputs)

    def loss(self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """A scalar to minimise, of what the network or `infer` gave."""

    def metrics(self) -> MetricCollection:
        """Fresh metrics, to be updated with (outputs, targets)."""

    def example(self, batch_size: int = 1) -> Inputs:
        """Real inputs, prepared as in evaluation, such as (B, C, H, W)."""

    def illustrate(self, network: nn.Module) -> Sequence[Picture]:
        """Pictures of what a network in eval mode answers to some evaluation images; none where they tell nothing."""
        return ()

    def describe(self) -> dict[str, Any]:
        """A JSON object that tells how to use the network: labels, preprocessing, number of outputs."""
