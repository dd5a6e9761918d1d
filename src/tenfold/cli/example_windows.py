"""Windows of video to run a network on, for `tenfold export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tenfold.cli.output import to_stderr

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tenfold.models import NetworkArguments

_FRAMES = 8


def takes_windows(header: Mapping[str, Any]) -> bool:
    """Whether the network of an artifact takes windows of a video instead of images."""
    from tenfold import models

    described = header.get("architecture")
    return described is not None and models.facts(described["name"]).takes == "window"


def example_windows(network: nn.Module, task: Mapping[str, Any], data: str | None, count: int) -> Tensor:
    """Packed frames: of training windows where they can be had, else of simulated video, with a word about it.

    Args:
        network: takes windows.
        task: what the artifact says of it.
        data: where the training data is.
        count: about how many frames.

    Returns:
        (T, 11, H, W), see `tenfold.models.PackedWindow`.
    """
    from tenfold import tasks
    from tenfold.models import PackedWindow

    if data is not None:
        reopened: Any = tasks.reopen(task, data)
        length = reopened.example().frames.shape[1]
        return PackedWindow.pack(reopened.example(batch_size=max(1, count // length)))
    to_stderr("[yellow]Compared on simulated video, since the training data is not at hand. Give --data FOLDER.[/]")
    size = tuple(task.get("frame_size") or (96, 96))
    return PackedWindow.pack(_simulated(max(1, count // _FRAMES), (size[0], size[1])))


def _simulated(windows: int, size: tuple[int, int]) -> NetworkArguments:
    """Cameras that move over coloured noise of a few pixels' grain, with holes at rest."""
    import numpy as np
    import torch
    from PIL import Image

    from tenfold.data import simulate_clip
    from tenfold.data.shape_holes import shape_masks
    from tenfold.models import NetworkArguments

    rng = np.random.default_rng(0)
    made = []
    for _ in range(windows):
        noise = rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
        still = Image.fromarray(noise).resize((2 * size[1], 2 * size[0]), Image.Resampling.BICUBIC)
        clip = simulate_clip([still], _FRAMES, *size, rng)
        known = ~shape_masks(_FRAMES, *size, rng, drifting=False)[:, None]
        frames = np.moveaxis(clip.frames, -1, 1) / np.float32(255) * known
        invalid = (~clip.visible_fwd[:, None], ~clip.visible_bwd[:, None])
        maps = (frames, known, np.zeros_like(known), clip.flow_fwd, clip.flow_bwd, *invalid)
        made.append([torch.from_numpy(np.asarray(one, np.float32)) for one in maps])
    return NetworkArguments(*(torch.stack(one) for one in zip(*made, strict=True)))
