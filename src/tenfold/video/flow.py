"""Optical flow behind one call: who estimates it, where it can be trusted, and what it is inside a hole.

A flow from frame a to frame b says that pixel p of a is seen at p + flow(p) in b. It is float32 (2, H, W): channel 0 is
x (right), 1 is y (down), in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.data.holes import dilated
from tenfold.errors import DataError, MissingDataError, ShapeError, UnknownNameError, UsageError, require
from tenfold.video.harmonic import filled_smoothly, harmonic_fill

Frame = NDArray[np.uint8]
"""One frame, uint8 (H, W, 3), RGB."""
Flow = NDArray[np.float32]
"""Displacements, float32 (2, H, W)."""

DIS_PRESETS = ("ultrafast", "fast", "medium")
RAFT_NETWORKS = ("raft_small", "raft_large")
_DIS_LEAST_SIDE = 16
_RAFT_MULTIPLE, _RAFT_LEAST_SIDE = 8, 128
_FLOW_TOLERANCE = 3e-2
_COLOUR_TOLERANCE = 2.0


class FlowEstimator(Protocol):
    """Anything that finds the flow between two frames of one size, such as `DisFlow` or `RaftFlow`."""

    def __call__(self, first: Frame, second: Frame) -> Flow:
        """The flow from the first frame to the second."""


class DisFlow:
    """Dense inverse search (arXiv 1603.03590) on the CPU, by OpenCV: about 10 ms for 240 x 424 with the preset medium.

    Args:
        preset: one of DIS_PRESETS, from fast to exact.

    Raises:
        UnknownNameError: if the preset is not known.
        MissingExtraError: if OpenCV is not installed.
    """

    def __init__(self, preset: str = "medium") -> None:
        if preset not in DIS_PRESETS:
            raise UnknownNameError("preset of DIS flow", preset, DIS_PRESETS)
        self._cv2 = require("cv2", "video")
        self._preset = DIS_PRESETS.index(preset)

    def __call__(self, first: Frame, second: Frame) -> Flow:
        """See FlowEstimator; frames smaller than 16 pixels a side are padded."""
        _check_pair(first, second)
        height, width = first.shape[:2]
        spare = ((0, max(0, _DIS_LEAST_SIDE - height)), (0, max(0, _DIS_LEAST_SIDE - width)))
        grey = [np.pad(self._cv2.cvtColor(one, self._cv2.COLOR_RGB2GRAY), spare, "edge") for one in (first, second)]
        # OpenCV's object forgets its preset for good when it has seen a small frame, so each pair gets a new one.
        flow = self._cv2.DISOpticalFlow_create(self._preset).calc(*grey, None)[:height, :width]
        return np.ascontiguousarray(np.moveaxis(flow, -1, 0), np.float32)


class RaftFlow:
    """RAFT (arXiv 2003.12039) of torchvision, with weights that the user brings.

    Args:
        network: one of RAFT_NETWORKS.
        weights: a .safetensors file with torchvision's parameter names.
        device: where it runs, such as "cpu" or "cuda".
        updates: iterations; more are slower and more exact.

    Raises:
        UnknownNameError: if the network is not known.
        MissingDataError: if there is no such file.
        DataError: if the file is damaged, or does not fit the network.
    """

    def __init__(self, network: str, weights: str | Path, *, device: str = "cpu", updates: int = 12) -> None:
        if network not in RAFT_NETWORKS:
            raise UnknownNameError("RAFT network", network, RAFT_NETWORKS)
        if updates < 1:
            raise UsageError(f"{updates} updates of RAFT are not allowed; give at least 1.")
        self._device, self._updates = device, updates
        self._network = _load_raft(network, Path(weights)).to(device)

    def __call__(self, first: Frame, second: Frame) -> Flow:
        """See FlowEstimator; frames are padded to what RAFT needs."""
        import torch

        _check_pair(first, second)
        height, width = first.shape[:2]
        padded = [max(_RAFT_LEAST_SIDE, -(-side // _RAFT_MULTIPLE) * _RAFT_MULTIPLE) for side in (height, width)]
        spare = ((0, padded[0] - height), (0, padded[1] - width), (0, 0))
        pair = [
            torch.from_numpy(np.pad(one, spare, "edge")).permute(2, 0, 1)[None].to(self._device).float() / 127.5 - 1
            for one in (first, second)
        ]
        with torch.inference_mode():
            flow = self._network(*pair, num_flow_updates=self._updates)[-1][0, :, :height, :width]
        return np.ascontiguousarray(flow.float().cpu().numpy())


def _load_raft(network: str, path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchvision.models import optical_flow

    if not path.is_file():
        raise MissingDataError(
            f"there are no RAFT weights at {path}; give a .safetensors file of torchvision's {network}."
        )
    made = getattr(optical_flow, network)(weights=None)
    try:
        made.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise DataError(
            f"{path} does not hold the weights of torchvision's {network} as safetensors ({error}). Save them with "
            "safetensors.torch.save_file(network.state_dict(), path)."
        ) from error
    return made.eval()


def make_estimator(name: str, weights: str | Path | None = None, device: str = "cpu") -> FlowEstimator:
    """A flow estimator by name.

    Args:
        name: "dis" (the preset medium), "dis:PRESET", "raft_small" or "raft_large".
        weights: of RAFT.
        device: of RAFT.

    Raises:
        UnknownNameError: if the name is not known.
        UsageError: if RAFT has no weights, or DIS has.
    """
    kind, _, preset = name.partition(":")
    if kind == "dis":
        if weights is not None:
            raise UsageError("DIS flow takes no weights; leave them out, or name raft_small or raft_large.")
        return DisFlow(preset or "medium")
    if name in RAFT_NETWORKS:
        if weights is None:
            raise UsageError(f"{name} needs weights: a .safetensors file of torchvision's network.")
        return RaftFlow(name, weights, device=device)
    raise UnknownNameError("flow estimator", name, ["dis", *(f"dis:{one}" for one in DIS_PRESETS), *RAFT_NETWORKS])


@dataclass(frozen=True, eq=False)
class PairFlow:
    """The flow between two frames, both ways, complete inside holes.

    Args:
        forward: from the earlier frame to the later, (2, H, W).
        backward: from the later frame to the earlier, (2, H, W).
    """

    forward: Flow
    backward: Flow

    @cached_property
    def valid_forward(self) -> NDArray[np.bool_]:
        """Where `forward` can be trusted, bool (H, W)."""
        return consistent(self.forward, self.backward)

    @cached_property
    def valid_backward(self) -> NDArray[np.bool_]:
        """Where `backward` can be trusted, bool (H, W)."""
        return consistent(self.backward, self.forward)


def pair_flow(
    estimator: FlowEstimator,
    earlier: Frame,
    later: Frame,
    unknown_earlier: NDArray[np.bool_],
    unknown_later: NDArray[np.bool_],
) -> PairFlow:
    """The flow of what lies behind the holes, both ways.

    Flow is unknown where it starts *or ends* in what is unknown, and is completed there smoothly. (To complete only
    what starts in a hole, as is usual, costs 3 dB inside holes as thick as objects.)

    Args:
        estimator: finds flow between frames.
        earlier: a frame; its holes `smoothed`.
        later: the next frame, likewise.
        unknown_earlier: its hole and what is near to it, bool (H, W).
        unknown_later: likewise.

    Raises:
        ShapeError: if sizes differ.
    """
    if unknown_earlier.shape != earlier.shape[:2] or unknown_later.shape != later.shape[:2]:
        raise ShapeError(
            f"frames of {earlier.shape[:2]} and {later.shape[:2]} with holes of {unknown_earlier.shape} and "
            f"{unknown_later.shape}; all must be of one size."
        )
    forward, backward = _finite(estimator(earlier, later)), _finite(estimator(later, earlier))
    return PairFlow(
        harmonic_fill(forward, unknown_earlier | lands_in(forward, unknown_later), _FLOW_TOLERANCE),
        harmonic_fill(backward, unknown_later | lands_in(backward, unknown_earlier), _FLOW_TOLERANCE),
    )


def smoothed(frame: Frame, hole: NDArray[np.bool_]) -> Frame:
    """A frame with its hole filled smoothly, so that no edge of the hole is taken for one of the scene."""
    if not hole.any():
        return frame
    return filled_smoothly(frame, hole, _COLOUR_TOLERANCE)


def consistent(flow: Flow, reverse: Flow) -> NDArray[np.bool_]:
    """Where a flow and the one the other way undo each other, and lead to a point in the frame.

    |F + G(p + F)|^2 < 0.01 (|F|^2 + |G(p + F)|^2) + 0.5.
    Source: Sundaram, Brox, Keutzer 2010, equation 5.

    Args:
        flow: F, (2, H, W).
        reverse: G, (2, H, W).

    Returns:
        bool (H, W).
    """
    return returns(flow, grid(flow.shape[1:]) + flow, reverse)


def returns(step: Flow, place: Flow, reverse: Flow) -> NDArray[np.bool_]:
    """The check of `consistent` for any pixels.

    Args:
        step: displacements of the pixels, (2, ...).
        place: where they lead to, (2, ...).
        reverse: the flow the other way, (2, H, W).

    Returns:
        bool (...).
    """
    back = sample(reverse, place)
    error = ((step + back) ** 2).sum(0)
    agreed: NDArray[np.bool_] = error < 0.01 * ((step**2).sum(0) + (back**2).sum(0)) + 0.5
    return agreed & within(place, reverse.shape[1:])


def grid(size: tuple[int, ...]) -> Flow:
    """The position (x, y) of each pixel of a frame of (height, width), (2, H, W)."""
    return np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0]))).astype(np.float32)


def within(place: Flow, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether positions (2, ...) lie between the centres of a frame's outer pixels."""
    x, y = place
    return (x >= 0) & (y >= 0) & (x <= size[1] - 1) & (y <= size[0] - 1)


def sample(values: NDArray[np.float32], place: Flow) -> NDArray[np.float32]:
    """Values (C, H, W) at positions (2, ...), bilinearly; positions outside get the border's, (C, ...)."""
    height, width = values.shape[1:]
    x, y = (np.clip(one, 0, limit - 1) for one, limit in zip(place, (width, height), strict=True))
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left).astype(np.float32), (y - top).astype(np.float32)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    flat = values.reshape(len(values), -1)
    upper = flat[:, top * width + left] * (1 - across) + flat[:, top * width + right] * across
    lower = flat[:, bottom * width + left] * (1 - across) + flat[:, bottom * width + right] * across
    sampled: NDArray[np.float32] = upper * (1 - down) + lower * down
    return sampled


def lands_in(flow: Flow, region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the pixel nearest to where a flow leads lies in a region, bool (H, W)."""
    height, width = region.shape
    x, y = np.rint(grid(region.shape) + flow)
    landed: NDArray[np.bool_] = region[
        np.clip(y, 0, height - 1).astype(np.int64), np.clip(x, 0, width - 1).astype(np.int64)
    ]
    return landed


def near_hole(hole: NDArray[np.bool_], rim: int | None = None) -> NDArray[np.bool_]:
    """A hole with the pixels around it whose flow it disturbs.

    Args:
        hole: bool (H, W).
        rim: how many pixels; None chooses by the hole's thickness, 1 for thin curves and up to 10 for what is as thick
            as an object (found on DAVIS clips at 128 x 224).
    """
    if not hole.any():
        return hole
    if rim is None:
        edge = sum(int((hole[low] != hole[high]).sum()) for low, high in _SIDES)
        thickness = 2 * int(hole.sum()) / max(edge, 1)
        rim = round(min(max(0.75 * (thickness - 4), 1), 10))
    return dilated(hole, rim)


_SIDES = ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))


def _finite(flow: Flow) -> Flow:
    """Displacements that no frame can hold become such as lead out of it, which no check will trust."""
    bound = np.float32(4 * max(flow.shape))
    return np.clip(np.nan_to_num(flow, nan=float(bound), posinf=float(bound), neginf=-float(bound)), -bound, bound)


def _check_pair(first: Frame, second: Frame) -> None:
    for frame in (first, second):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ShapeError(f"a frame is {frame.dtype} {frame.shape}; needed is uint8 (H, W, 3).")
    if first.shape != second.shape:
        raise ShapeError(f"the frames have the shapes {first.shape} and {second.shape}; they must be the same.")
