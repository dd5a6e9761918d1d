"""Networks behind one call, whichever runtime they are in: from `NetworkInputs` to painted frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import ArtifactError, ShapeError
from tenfold.video.network_filling import NetworkInputs, RunNetwork

if TYPE_CHECKING:
    from torch import nn

PACKED_CHANNELS = 11
"""All that is said of a frame, in the order of `NetworkInputs`."""


def run_module(network: nn.Module, device: str = "cpu") -> RunNetwork:
    """A network of PyTorch that takes windows, such as `tenfold.build("tsam_small")`.

    Args:
        network: in evaluation mode from now on.
        device: where it runs, such as "cpu" or "cuda".
    """
    import torch

    network = network.to(device).eval()

    def run(inputs: NetworkInputs) -> NDArray[np.float32]:
        with torch.inference_mode():
            painted = network(*(torch.from_numpy(one).to(device) for one in inputs))
        made: NDArray[np.float32] = painted.float().cpu().numpy()
        return made

    return run


def run_file(path: str | Path, engine: str = "onnxruntime", threads: int | None = None) -> RunNetwork:
    """A network that `tenfold export` wrote as an ONNX file; torch is not needed.

    Args:
        path: the file.
        engine: see `tenfold.export.open_engine`.
        threads: likewise.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or takes images and no windows of a video.
        MissingExtraError: if the runtime is not installed.
    """
    from tenfold.export import open_engine

    opened = open_engine(path, engine, threads)
    shape = opened.input_shape
    if len(shape) != 4 or shape[1] != PACKED_CHANNELS:
        raise ArtifactError(
            f"{path} takes inputs of {' x '.join('any' if one is None else str(one) for one in shape)}, so it fills no "
            f"video. Export a network that does, such as one trained from tsam_small: its frames have "
            f"{PACKED_CHANNELS} channels."
        )

    def run(inputs: NetworkInputs) -> NDArray[np.float32]:
        return np.stack([opened.run(packed(inputs, row)) for row in range(len(inputs.frames))])

    return run


def packed(inputs: NetworkInputs, row: int = 0) -> NDArray[np.float32]:
    """A window as exported networks take it, frames in the place of images: see `tenfold.models.PackedWindow`.

    Args:
        inputs: of one or more windows.
        row: which of them.

    Returns:
        float32 (T, 11, H, W); what the last frame says of a next one means nothing.

    Raises:
        ShapeError: if there is no frame.
    """
    if inputs.frames.shape[1] < 1:
        raise ShapeError(f"a window of shape {inputs.frames.shape} has no frame; it needs at least one.")
    maps = [one[row] for one in inputs]
    frames = len(maps[0])
    return np.concatenate([np.pad(one, ((0, frames - len(one)), (0, 0), (0, 0), (0, 0))) for one in maps], 1)
