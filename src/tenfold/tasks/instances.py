"""Video instances: find the objects of a video, mask them, and follow them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tenfold.data import Draws, prefetch
from tenfold.data.dense import side_by_side
from tenfold.errors import DataError, UsageError
from tenfold.tasks.epochs import Rows, check_positive, check_subset, evaluation_rows, training_rows
from tenfold.tasks.found_tracks import FoundTrack, gather_tracks
from tenfold.tasks.instance_batches import ClipInputs, ClipTargets, as_pixels, draw_item, stack_items
from tenfold.tasks.instance_sources import ClipSource, source_facts
from tenfold.tasks.task import Picture, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Found = Sequence[Mapping[int, FoundTrack]]
"""For each clip what was found, by identity."""

_ILLUSTRATIONS, _SHOWN_FRAMES = 4, 5
_COLOURS = np.array(
    [[230, 60, 60], [60, 200, 80], [70, 110, 250], [240, 200, 50], [200, 70, 220], [50, 210, 220],
     [250, 140, 40], [150, 250, 150], [250, 150, 190]], np.float32,
)  # fmt: skip


class VideoInstances(Task):
    """Learn to find and follow objects; judged by the average precision of tracks of masks.

    A network for it gives losses where it is called with `ClipInputs`, and has `start` and `step` as CompFeat does.

    Args:
        train: sources of clips to learn from; every clip gives one item in an epoch.
        evaluation: sources of clips to judge by.
        size: height and width of all frames.
        supports: frames around the current one that an item has.
        dropped: chance of each of these to be marked as not there.
        flip: mirror half of the items.
        subset: train on so many clips only.
        facts: what `describe` tells of the data.

    Raises:
        UsageError: if the sources have different classes, or `subset` is out of range.
        DataError: if there is nothing to train on or to judge by.
    """

    name = "track"
    main_metric = "ap"
    per_pixel = False
    takes = "frame"

    def __init__(
        self,
        train: Sequence[ClipSource],
        evaluation: Sequence[ClipSource],
        *,
        size: tuple[int, int],
        supports: int = 2,
        dropped: float = 0.15,
        flip: bool = True,
        subset: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if not train or not evaluation:
            raise DataError("there are no clips to learn from, or none to judge by. Give sprites, stills or data.")
        self.classes = list(train[0].classes)
        for source in (*train, *evaluation):
            if list(source.classes) != self.classes:
                raise UsageError(
                    f"{source.name} has {len(source.classes)} classes ({', '.join(list(source.classes)[:3])}, …), but "
                    f'{train[0].name} has {len(self.classes)}. Mix sources with classes="object", which makes all '
                    "objects one class."
                )
        check_positive(supports=supports)
        if not 0 <= dropped < 1:
            raise UsageError(f"dropped is {dropped}; allowed is 0 up to below 1.")
        self.train, self.evaluation = list(train), list(evaluation)
        self.size, self.supports, self.dropped, self.flip = size, supports, dropped, flip
        self.input_shape = (3, *size)
        self._facts = dict(facts or {})
        self._ends = list(accumulate(len(source) for source in self.train))
        self._judged_ends = list(accumulate(len(source) for source in self.evaluation))
        count = self._ends[-1]
        check_subset(subset, count)
        self._rows = np.sort(Draws(0, 0, np.arange(count)).order()[:subset])

    @property
    def train_size(self) -> int:
        """Items in an epoch, after `subset`."""
        return len(self._rows)

    @property
    def eval_size(self) -> int:
        """Clips to judge by, of all ranks together."""
        return self._judged_ends[-1]

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
    ) -> Iterator[tuple[ClipInputs, Tensor]]:
        """Batches of one epoch; the truth goes into the network, so that targets are the numbers of the clips only.

        Args:
            epoch: counted from 0; each has an order of its own, and synthetic clips of its own.
            batch_size: items that one rank gets in a step.
            seed: of the training.
            start: first step to give; those before cost nothing.
            rank: number of this process, from 0.
            world_size: number of processes.
            workers: threads that work ahead; the result does not depend on it.

        Raises:
            UsageError: if an argument is out of range.
            DataError: naming the file that cannot be read.
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

        def make(rows: Rows) -> tuple[ClipInputs, Tensor]:
            return self._items(rows, epoch, seed), torch.from_numpy(rows.astype(np.int64))

        return prefetch(make, batches, workers)

    def eval_batches(
        self, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[Tensor, ClipTargets]]:
        """This rank's clips to judge by, in order, one a batch whatever the batch size: frames (1, T, C, H, W).

        Raises:
            UsageError: if an argument is out of range.
            DataError: naming the file that cannot be read.
        """
        check_positive(batch_size=batch_size)
        rows = evaluation_rows(self.eval_size, batch_size=1, rank=rank, world_size=world_size)
        return prefetch(lambda one: self._judged(int(one[0])), rows, workers)

    def infer(self, network: nn.Module, inputs: Tensor) -> Found:
        """Run a network over clips (B, T, C, H, W), frame by frame."""
        return [self._follow(network, clip) for clip in inputs]

    def loss(self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """In training the sum of the network's losses; of found tracks, how much of the true ones is missing.

        The latter is the mean over true objects of one minus the overlap in space and time with the found track that
        overlaps it most, whatever its class and score.

        Args:
            outputs: losses, or what `infer` gave.
            targets: of the batch.
            label_smoothing: must be 0.
        """
        if isinstance(outputs, Tensor):
            return outputs.sum()
        missing = []
        for found, masks, labels in zip(outputs, targets.masks.cpu().numpy(), targets.labels.tolist(), strict=True):
            for label, track in zip(labels, masks.astype(bool), strict=True):
                if label >= 0:
                    missing.append(1 - max((_overlap(one, track) for one in found.values()), default=0.0))
        return torch.tensor(missing or [0.0]).mean()

    def metrics(self) -> MetricCollection:
        """See `tenfold.tasks.instance_metrics.TrackPrecision`."""
        from torchmetrics import MetricCollection

        from tenfold.tasks.instance_metrics import TrackPrecision

        return MetricCollection([TrackPrecision(self.classes)])

    def example(self, batch_size: int = 1) -> Tensor:
        """Single training frames, 0..1, (B, C, H, W); the same each time, repeated where there are too few."""
        check_positive(batch_size=batch_size)
        rows = np.resize(Draws(0, 0, self._rows).order(), batch_size)
        return self._items(rows, 0, 0).frames[:, 0]

    def illustrate(self, network: nn.Module) -> Sequence[Picture]:
        """Strips of frames of clips: the truth above, what is found below, one colour for each identity."""
        pictures = []
        for row in np.linspace(0, self.eval_size - 1, min(_ILLUSTRATIONS, self.eval_size)).round().astype(int).tolist():
            frames, targets = self._judged(row)
            with torch.no_grad():
                found = self._follow(network, frames[0].to(next(network.parameters()).device))
            true = {number: dict(enumerate(one)) for number, one in enumerate(targets.masks[0].numpy().astype(bool))}
            shown = np.linspace(0, frames.shape[1] - 1, min(_SHOWN_FRAMES, frames.shape[1])).round().astype(int)
            strips = [
                _strip(frames[0], sides, shown.tolist())
                for sides in (true, {identity: one.masks for identity, one in found.items()})
            ]
            source, _ = _place(row, self._judged_ends)
            caption = f"{self.evaluation[source].name} {row}: above the true objects, below what was found and followed"
            pictures.append(Picture(caption, Image.fromarray(np.concatenate([np.asarray(one) for one in strips]))))
        return pictures

    def describe(self) -> dict[str, Any]:
        """A JSON object: task, size of frames, classes, and what was learned from."""
        return {
            "task": self.name,
            "frame_size": list(self.size),
            "num_outputs": len(self.classes),
            "labels": self.classes,
            "supports": self.supports,
            "dropped": self.dropped,
            "flip": self.flip,
            **self._facts,
            "data": {
                **self._facts.get("data", {}),
                "train": source_facts(self.train),
                "evaluation": source_facts(self.evaluation),
                "train_clips": self.train_size,
                "eval_clips": self.eval_size,
            },
        }

    def _items(self, rows: NDArray[np.int64], epoch: int, seed: int) -> ClipInputs:
        items = []
        for row in rows.tolist():
            source, place = _place(row, self._ends)
            clip = self.train[source].read(place, epoch)
            rng = np.random.default_rng([seed % 2**63, epoch, row])
            items.append(draw_item(clip, self.supports, self.dropped, self.flip, rng))
        return stack_items(items)

    def _judged(self, row: int) -> tuple[Tensor, ClipTargets]:
        source, place = _place(row, self._judged_ends)
        clip = self.evaluation[source].read(place, None)
        seen = clip.masks.any((0, 2, 3))  # who is hidden all the time cannot be found
        masks, labels = clip.masks[:, seen], clip.labels[seen]
        if not len(labels):  # a tensor without any row would look like a batch without clips
            masks = np.zeros((len(clip.frames), 1, *clip.frames.shape[1:3]), np.bool_)
            labels = np.array([-1])
        moved = np.ascontiguousarray(np.moveaxis(masks, 1, 0)).astype(np.uint8)
        targets = ClipTargets(
            torch.from_numpy(moved)[None], torch.from_numpy(labels.astype(np.int64))[None], torch.tensor([row])
        )
        return as_pixels(clip.frames)[None], targets

    def _follow(self, network: Any, clip: Tensor) -> dict[int, FoundTrack]:
        height, width = clip.shape[-2:]
        state = network.start(height, width)
        detections = []
        for frame in clip:
            found, state = network.step(frame[None], state)
            detections.append(found)
        return gather_tracks(detections, height, width)


def _place(row: int, ends: Sequence[int]) -> tuple[int, int]:
    """Which source a row belongs to, and its number there."""
    source = bisect_right(ends, row)
    return source, row - (ends[source - 1] if source else 0)


def _overlap(found: FoundTrack, true: NDArray[np.bool_]) -> float:
    shared = sum(int((true[frame] & mask).sum()) for frame, mask in found.masks.items())
    total = int(true.sum()) + sum(int(mask.sum()) for mask in found.masks.values())
    return shared / (total - shared) if total > shared else 0.0


def _strip(frames: Tensor, tracks: Mapping[int, Mapping[int, NDArray[np.bool_]]], shown: Sequence[int]) -> Image.Image:
    """Some frames side by side, with masks by identity."""
    drawn = []
    for frame in shown:
        pixels = (frames[frame].clamp(0, 1) * 255).permute(1, 2, 0).cpu().numpy()  # (H, W, C)
        for number, (_, masks) in enumerate(sorted(tracks.items())):
            if frame in masks:
                inside = masks[frame]
                pixels[inside] = 0.4 * pixels[inside] + 0.6 * _COLOURS[number % len(_COLOURS)]
        drawn.append(Image.fromarray(np.rint(pixels).astype(np.uint8)))
    return side_by_side(drawn)
