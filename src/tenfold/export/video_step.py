"""A step of a network that follows objects in video, as an ONNX file: the state is a row of tensors of fixed sizes.

The file holds all that looks at pixels. Giving identities is a handful of comparisons behind it, which
`tenfold.video.exported_step` does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_flatten_with_path, tree_unflatten

from tenfold.errors import ExportError, ShapeError, UnknownNameError
from tenfold.export.capture import freeze, translate
from tenfold.export.compact import bits_by_kernel, set_format, write_compact
from tenfold.export.graph import Codes, Quantizer, tidy
from tenfold.export.machine import session_settings
from tenfold.export.metadata import KEY
from tenfold.export.onnx import TOLERANCES
from tenfold.export.probe import Array, Probe, Watched, watch
from tenfold.export.slim import slim
from tenfold.export.verify import session_of
from tenfold.files import written_whole
from tenfold.quant import quantized_layers

FRAME = "frame"
PROFILE = "video-step"
StepProfile = Literal["compact", "float"]

_TOLERANCE = 1e-3
_OF_DETECTIONS = ("boxes", "labels", "scores", "masks", "valid", "templates", "fit")
_OTHER_LABEL = 1e6


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
    profile: StepProfile = "compact",
    frames: Tensor | None = None,
    facts: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> float:
    """Write the step of a network, and check the file against the network over some frames.

    Args:
        network: with `start`, `look` and `step`, such as CompFeat, quantized or not; it is put into eval mode.
        path: of the file.
        height: of the frames in pixels; the file takes frames of this size only.
        width: of the frames in pixels.
        profile: "compact" keeps quantized weights as integers, "float" writes real numbers; both compute alike.
        frames: to check with, 0..1, (T, C, H, W); default: three of noise.
        facts: JSON values to keep in the file, such as the names of classes.
        tolerance: largest error of any output (root mean square over a frame, relative to 1 or to the output's largest
            value), and of any quantized layer (relative to its deviation), each layer on exact inputs. Default: 0.001,
            and that of `TOLERANCES` for a quantized network.

    Returns:
        The largest error that was seen.

    Raises:
        UnknownNameError: if there is no such profile.
        ShapeError: if the frames have another size.
        ExportError: if torch cannot translate the network, or the file gives something else than the network.
        MissingExtraError: if the packages for ONNX are not installed.
        StorageError: if the file cannot be written.
    """
    if profile not in get_args(StepProfile):
        raise UnknownNameError("profile of a step", profile, get_args(StepProfile))
    network.eval()
    state = network.start(height, width)
    channels = network.mean.shape[0]
    if frames is None:
        frames = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    if frames.ndim != 4 or not len(frames) or frames.shape[1:] != (channels, height, width):
        raise ShapeError(
            f"frames to check with are {tuple(frames.shape)}; needed are (T, {channels}, {height}, {width})."
        )
    leaves, spec = tree_flatten(state)
    with torch.no_grad():
        outputs = tree_flatten_with_path(network.look(frames[:1], state))[0]
    states = [f"state.{_name(keys)}" for keys, _ in tree_flatten_with_path(state)[0]]
    names = [_name(keys) for keys, _ in outputs]
    frozen, arguments = _Flat(freeze(network), spec), (frames[:1], *leaves)
    model = translate(frozen, arguments, type(network).__name__, input_names=[FRAME, *states], output_names=names)
    quantizers: list[Quantizer] = []
    codes: list[Codes] = []
    if quantized := any(quantized_layers(network)):
        captured = tidy(model)
        codes = write_compact(captured, bits_by_kernel(network), real_weights=profile == "float")
        quantizers = captured.quantizers
    slim(model)
    set_format(model)
    described = {
        "profile": PROFILE,
        "weights": profile,
        "input_shape": [channels, height, width],
        "rule": dataclasses.asdict(network.rule),
        "support_stride": network.settings.support_stride,
        **(facts or {}),
    }
    model.metadata_props[KEY] = json.dumps(described, allow_nan=False)
    error = _error(network, model, quantizers, codes, frames, names)
    allowed = (TOLERANCES["compact"] if quantized else _TOLERANCE) if tolerance is None else tolerance
    if not error <= allowed:
        raise ExportError(
            f"the file would give something else than the network, so it was not written: an error of {error:.2g}, "
            f"allowed is {allowed:.2g}. Check with frames of a real video (frames=...), since in noise many "
            "detections are equally good; or allow more, if you know why."
        )
    with written_whole(path) as part:
        ir.save(model, part)
    return error


def state_inputs(state: Any) -> dict[str, Array]:
    """A state as the file takes it, by the names of its inputs."""
    return {f"state.{_name(keys)}": leaf.detach().cpu().numpy() for keys, leaf in tree_flatten_with_path(state)[0]}


def _error(
    network: Any,
    model: ir.Model,
    quantizers: Sequence[Quantizer],
    codes: Sequence[Codes],
    frames: Tensor,
    names: Sequence[str],
) -> float:
    """The largest error of an output or of a layer, over the frames one after another, each from the network's state.

    Every layer gets the codes that it gets in the network, see `Probe`.
    """
    state = network.start(*frames.shape[-2:])

    def seen(frame: Tensor) -> Watched:
        return watch(network, lambda: network.look(frame[None], state))

    probe = Probe(model, quantizers, codes, seen(frames[0]))
    session = session_of(probe.model, session_settings({"profile": PROFILE}))
    taken, outputs = ([one.name for one in some] for some in (session.get_inputs(), session.get_outputs()))
    worst = 0.0
    for frame in frames:
        truth = seen(frame)
        feed = {FRAME: frame[None].numpy(), **state_inputs(state), **probe.feeds(truth)}
        values = session.run(outputs, {name: value for name, value in feed.items() if name in taken})
        found = dict(zip(outputs, values, strict=True))
        errors = [check.relative for check in probe.codes(found, truth).values()]
        worst = max([worst, _outputs_error(found, dict(zip(names, truth.outputs, strict=True))), *errors])
        _, state = network.step(frame[None], state)
    return worst


def _outputs_error(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """The largest error of an output: root mean square, relative to 1 or to the output's largest value."""
    order, worst = _same_order(found, wanted), 0.0
    for name, expected in wanted.items():
        got = found[name][order] if name in _OF_DETECTIONS else found[name]
        finite = np.isfinite(expected)
        if got.shape != expected.shape or not np.array_equal(finite, np.isfinite(got)):
            return float("inf")
        if finite.any():
            gap = got[finite].astype(np.float64) - expected[finite]
            worst = max(worst, float(np.sqrt(np.square(gap).mean()) / max(1.0, np.abs(expected[finite]).max())))
    return worst


def _same_order(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> list[int]:
    """For each wanted detection the place of the found one that is most like it: equal scores have no order."""
    far = np.abs(found["boxes"][None] - wanted["boxes"][:, None]).sum(-1)
    far = np.where(found["labels"][None] == wanted["labels"][:, None], far, far + _OTHER_LABEL)
    order: list[int] = []
    for row in far:
        row[order] = np.inf
        order.append(int(row.argmin()))
    return order


def _name(keys: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in keys)
