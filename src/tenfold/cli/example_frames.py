"""Frames of a video to run a network on, for `tenfold export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tenfold.cli.output import to_stderr
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT_SIZE = (240, 432)


def takes_frames(header: Mapping[str, Any]) -> bool:
    """Whether the network of an artifact follows objects through the frames of a video."""
    from tenfold import models

    described = header.get("architecture")
    return described is not None and models.facts(described["name"]).takes == "frame"


def frame_size(task: Mapping[str, Any], wanted: str | None) -> tuple[int, int]:
    """Height and width of the frames that a file shall take: those wanted, else those that the network learned on.

    Raises:
        UsageError: if `wanted` is not WIDTHxHEIGHT.
    """
    if wanted is None:
        height, width = task.get("frame_size") or _DEFAULT_SIZE
        return int(height), int(width)
    sides = wanted.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 1 <= int(side) <= 8192 for side in sides):
        raise UsageError(f"--frame-size {wanted} is not WIDTHxHEIGHT, such as 432x240, with sides of 1 to 8192 pixels.")
    return int(sides[1]), int(sides[0])


def example_frames(task: Mapping[str, Any], data: str | None, count: int, size: tuple[int, int]) -> Tensor:
    """Frames of one clip to compare on: such as the network was judged by, else drawn sprites.

    Args:
        task: what the artifact says of it.
        data: where the training data is.
        count: how many frames at most.
        size: height and width that they shall have.

    Returns:
        0..1, (T, C, H, W).
    """
    from torch.nn.functional import interpolate

    from tenfold import tasks

    try:
        reopened: Any = tasks.reopen(task, data)
    except (KeyError, UsageError):
        if data is not None:
            raise
        to_stderr("[yellow]Compared on drawn sprites, since the training data is not at hand. Give --data FOLDER.[/]")
        reopened = tasks.create("track", sprites=1, eval_clips=1, eval_frames=count)
    frames: Tensor = next(reopened.eval_batches(batch_size=1))[0][0, :count]
    if frames.shape[-2:] != size:
        frames = interpolate(frames, size, mode="bilinear", antialias=True).clamp(0, 1)
    return frames
