"""A step of a network that follows objects in video, as an ONNX file: the state is a row of tensors of fixed sizes.

The file holds all that looks at pixels. Giving identities is a handful of comparisons behind it, which
`tenfold.video.exported_step` does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_flatten_with_path, tree_unflatten

from tenfold.errors import ExportError, ShapeError
from tenfold.export.capture import OPSET, quiet_exporter
from tenfold.export.metadata import KEY
from tenfold.export.session import open_session
from tenfold.files import written_whole

FRAME = "frame"
PROFILE = "video-step"


class _Flat(nn.Module):
    """A look at a frame, from and to a flat row of tensors."""

    def __init__(self, network: Any, spec: Any) -> None:
        super().__init__()
        self.network, self.spec = network, spec

    def forward(self, frame: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_flatten(self.network.look(frame, tree_unflatten(leaves, self.spec)))[0])


def export_step(
    network: Any,
    path: str | Path,
    *,
    height: int,
    width: int,
    frames: Tensor | None = None,
    facts: Mapping[str, Any] | None = None,
    tolerance: float = 1e-3,
) -> float:
    """Write the step of a network, and check the file against the network over some frames.

    Args:
        network: with `start`, `look` and `step`, such as CompFeat; it is put into eval mode.
        path: of the file.
        height: of the frames in pixels; the file takes frames of this size only.
        width: of the frames in pixels.
        frames: to check with, 0..1, (T, C, H, W); default: three of noise.
        facts: JSON values to keep in the file, such as the names of classes.
        tolerance: largest difference of any output, relative to 1 or to the output's largest value.

    Returns:
        The largest difference that was seen.

    Raises:
        ShapeError: if the frames have another size.
        ExportError: if torch cannot translate the network, or the file gives something else than the network.
        MissingExtraError: if the packages for ONNX are not installed.
        StorageError: if the file cannot be written.
    """
    network.eval()
    state = network.start(height, width)
    channels = network.mean.shape[0]
    if frames is None:
        frames = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    if frames.ndim != 4 or frames.shape[1:] != (channels, height, width):
        raise ShapeError(
            f"frames to check with are {tuple(frames.shape)}; needed are (T, {channels}, {height}, {width})."
        )
    leaves, spec = tree_flatten(state)
    with torch.no_grad():
        outputs = tree_flatten_with_path(network.look(frames[:1], state))[0]
    states = [f"state.{_name(keys)}" for keys, _ in tree_flatten_with_path(state)[0]]
    names = [_name(keys) for keys, _ in outputs]
    try:
        with torch.no_grad(), quiet_exporter():
            program = torch.onnx.export(
                _Flat(network, spec),
                (frames[:1], *leaves),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[FRAME, *states],
                output_names=names,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch cannot translate this {type(network).__name__} into ONNX: {error}") from error
    assert program is not None
    described = {
        "profile": PROFILE,
        "input_shape": [channels, height, width],
        "rule": dataclasses.asdict(network.rule),
        "support_stride": network.settings.support_stride,
        **(facts or {}),
    }
    program.model.metadata_props[KEY] = json.dumps(described, allow_nan=False)
    with written_whole(path) as part:
        program.save(str(part))
        gap = _difference(network, part, frames, names)
        if not gap <= tolerance:
            raise ExportError(
                f"the file would give something else than the network, so it was not written: a difference of "
                f"{gap:.2g}, allowed is {tolerance:.2g}. Check with frames of a real video (frames=...), since in "
                "noise many detections are equally good; or allow more, if you know why."
            )
    return gap


def state_inputs(state: Any) -> dict[str, np.ndarray[Any, Any]]:
    """A state as the file takes it, by the names of its inputs."""
    return {f"state.{_name(keys)}": leaf.detach().cpu().numpy() for keys, leaf in tree_flatten_with_path(state)[0]}


def _difference(network: Any, path: Path, frames: Tensor, names: list[str]) -> float:
    """The largest difference of an output, over the frames one after another."""
    session = open_session(path, {})
    taken = {one.name for one in session.get_inputs()}
    state = network.start(*frames.shape[-2:])
    worst = 0.0
    for frame in frames:
        feed = {FRAME: frame[None].numpy(), **state_inputs(state)}
        found = session.run(names, {name: value for name, value in feed.items() if name in taken})
        with torch.no_grad():
            expected = tree_flatten(network.look(frame[None], state))[0]
        for one, other in zip(found, expected, strict=True):
            wanted = other.numpy()
            finite = np.isfinite(wanted)
            if one.shape != wanted.shape or not np.array_equal(finite, np.isfinite(one)):
                return float("inf")
            if finite.any():
                gap = np.abs(one[finite].astype(np.float64) - wanted[finite]).max()
                worst = max(worst, float(gap / max(1.0, np.abs(wanted[finite]).max())))
        _, state = network.step(frame[None], state)
    return worst


def _name(keys: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in keys)
