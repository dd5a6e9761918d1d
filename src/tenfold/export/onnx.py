"""Exporting a network to ONNX, with real integers in the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from tenfold.cost import mean_bits
from tenfold.cost import profile as count_cost
from tenfold.errors import CountError, ExportError, ShapeError, UnknownNameError
from tenfold.export.capture import capture
from tenfold.export.compact import TWO_BIT_OPSET, write_compact
from tenfold.export.fast import write_fast
from tenfold.export.graph import Codes, IntegerLayer, Network, tidy
from tenfold.export.integers import KernelWeight
from tenfold.export.machine import saturates
from tenfold.export.metadata import KEY
from tenfold.export.placing import place
from tenfold.export.ranges import observe_ranges
from tenfold.export.slim import slim
from tenfold.export.verify import Comparison, ExportReport, LayerReport, compare, count_nodes
from tenfold.files import written_whole
from tenfold.quant import QuantLayer, bits_text, describe, quantized_layers

ExportProfile = Literal["fast", "compact", "float"]

TOLERANCES: dict[str, float] = {"fast": 0.35, "compact": 0.1, "float": 0.1}
"""Largest relative error that one layer may show before an export is refused. A wrong graph shows 0.5 and more."""

_LARGEST_BYTES = 2**31 - 1
_IR_VERSION, _TWO_BIT_IR_VERSION = 10, 13
_METADATA_VERSION = 1


def export_onnx(
    network: nn.Module,
    path: str | Path,
    *,
    example: Tensor,
    profile: ExportProfile = "fast",
    task: Mapping[str, Any] | None = None,
    calibration: Tensor | None = None,
    any_cpu: bool | None = None,
    tolerance: float | None = None,
) -> ExportReport:
    """Write a network as an ONNX file, and check at once that it does the same.

    Args:
        network: quantized by `tenfold.quant`, or float (then the file is a plain one, whatever the profile).
        path: the file to write; an old one is replaced only if the new one passes the check.
        example: a batch of real images, prepared as in training, (B, C, H, W); the check runs on them.
        profile: "fast" for the 8-bit kernels of ONNX Runtime and OpenVINO; "compact" for the smallest file, computed as
            the network computes; "float" for real numbers.
        task: what `Task.describe` gives: labels and preprocessing, so that the file can be run on images.
        calibration: real images for the profile "fast", which rounds some values that the network does not, such as
            residual sums; default: the example.
        any_cpu: for "fast": keep weights so small that processors without VNNI, whose 8-bit products saturate, compute
            the same. Only layers with 8-bit weights and an 8-bit input lose by it (about one bit). Default: whether
            this machine is such a one.
        tolerance: largest relative error of one layer; default: see TOLERANCES.

    Returns:
        How faithful and how large the file is.

    Raises:
        UnknownNameError: if there is no such profile.
        ShapeError: if the example is no batch.
        ExportError: if the network has no ONNX form, or the file would compute something else.
        MissingExtraError: if ONNX Runtime is not installed.
        StorageError: if the file could not be written.
    """
    if profile not in get_args(ExportProfile):
        raise UnknownNameError("export profile", profile, get_args(ExportProfile))
    if example.dim() < 2 or not len(example):
        raise ShapeError(f"the example must be a batch, (B, C, H, W) with B at least 1; got {tuple(example.shape)}.")
    saturating = saturates()
    any_cpu = saturating if any_cpu is None else any_cpu
    images = example if calibration is None else calibration
    draft = _draft(tidy(capture(network, example)), network, profile, images, any_cpu)
    model = draft.network.model
    slim(model, everything=profile == "compact")
    two_bit = model.graph.opset_imports[""] == TWO_BIT_OPSET
    model.ir_version = _TWO_BIT_IR_VERSION if two_bit else _IR_VERSION
    metadata: dict[str, Any] = {
        "version": _METADATA_VERSION,
        "profile": profile,
        "task": dict(task or {}),
        "input_shape": list(example.shape[1:]),
        "any_cpu": not any(weight.saturates for weight in draft.weights.values()),
        "bits": dict(
            Counter(f"{bits_text(layer.w_bits)}/{bits_text(layer.a_bits)}" for _, layer in quantized_layers(network))
        ),
    }
    allowed = TOLERANCES[profile] if tolerance is None else tolerance
    found = compare(model, draft.network.quantizers, draft.codes, network, example, metadata)
    _refuse_if_wrong(found, allowed)
    # Such as OpenVINO and 2-bit integers; or a defect of a runtime that only this network shows.
    metadata["refused_by"] = [name for name, error in found.engines.items() if not error <= allowed]
    model.metadata_props[KEY] = json.dumps(metadata, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    content = _serialize(model)
    with written_whole(path) as part:
        part.write_bytes(content)
    return _report(Path(path), len(content), network, example, metadata, draft, found, count_nodes(model, metadata))


@dataclass
class _Draft:
    """A written graph, and what became of its parts."""

    network: Network
    codes: list[Codes]
    weights: dict[IntegerLayer, KernelWeight] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def _draft(captured: Network, network: nn.Module, profile: str, images: Tensor, any_cpu: bool) -> _Draft:
    if profile != "fast":
        reasons = {layer.name: f"the profile {profile} computes with real numbers" for layer in captured.layers}
        return _Draft(captured, write_compact(captured, real_weights=profile == "float"), reasons=reasons)
    image_layers = {name for name, scheme in describe(network).items() if scheme.pixels}
    pixel_layers = image_layers if _are_bytes(images) else set()  # else the image is normalized: its grid is calibrated
    plan = place(captured, pixel_layers=pixel_layers, any_cpu=any_cpu)
    ranges = observe_ranges(captured, images.detach().float().cpu().numpy())
    written = write_fast(captured, plan, ranges, any_cpu=any_cpu)
    reasons = {layer.name: reason for layer, reason in plan.reasons.items()}
    return _Draft(captured, written.codes, written.weights, reasons)


def _bits_of(layer: QuantLayer) -> str:
    return f"{bits_text(layer.w_bits)}/{bits_text(layer.a_bits)}"


def _are_bytes(images: Tensor) -> bool:
    """Whether the images are raw pixels, whole numbers from 0 to 255."""
    return bool(((images >= 0) & (images <= 255) & (images == images.round())).all()) and float(images.max()) > 1


def _refuse_if_wrong(found: Comparison, tolerance: float) -> None:
    errors = {f"the input of {name}": check.relative for name, check in found.codes.items()}
    errors["the output"] = found.outputs
    place, error = max(errors.items(), key=lambda item: item[1])
    if not error <= tolerance:
        raise ExportError(
            f"the exported graph would be wrong, so it was not written: {place} has an error of {error:.0%} of its "
            f"deviation, allowed are {tolerance:.0%}. Calibrate on real images (calibration=...), export with "
            "profile='compact', or allow more with tolerance=... if you know why."
        )


def _serialize(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString()
    if len(content) > _LARGEST_BYTES:
        raise ExportError(f"the file would have {len(content):,} bytes; one ONNX file holds at most 2 GiB.")
    return content


def _report(
    path: Path,
    file_bytes: int,
    network: nn.Module,
    example: Tensor,
    metadata: Mapping[str, Any],
    draft: _Draft,
    found: Comparison,
    nodes: dict[str, int],
) -> ExportReport:
    exact = {layer.name: bool(weight.exact.all()) for layer, weight in draft.weights.items()}
    rounded = "weights rounded to fit 8-bit kernels"
    layers = [
        LayerReport(
            name=name,
            w_bits=mean_bits(layer.w_bits),
            a_bits=mean_bits(layer.a_bits),
            runs="integer" if name in exact else "float",
            why=draft.reasons.get(name, "") if name not in exact else ("" if exact[name] else rounded),
            worst_steps=found.codes[name].worst_steps if name in found.codes else None,
            exact_codes=found.codes[name].exact if name in found.codes else None,
        )
        for name, layer in quantized_layers(network)
    ]
    checks = found.codes.values()
    worst = max(found.codes, key=lambda name: found.codes[name].relative, default="")
    return ExportReport(
        path=str(path),
        profile=str(metadata["profile"]),
        file_bytes=file_bytes,
        predicted_bytes=_predicted_bytes(network, example),
        worst_steps=max((check.worst_steps for check in checks), default=0.0),
        exact_codes=float(
            np.average([check.exact for check in checks], weights=[check.size for check in checks]) if checks else 1.0
        ),
        worst_layer=worst,
        worst_relative=found.codes[worst].relative if worst else 0.0,
        output_error=found.output_error,
        relative_error=found.relative_error,
        top1_agreement=found.top1_agreement,
        images=found.images,
        engines={name: error if np.isfinite(error) else None for name, error in found.engines.items()},
        any_cpu=bool(metadata["any_cpu"]),
        nodes=nodes,
        layers=layers,
    )


def _predicted_bytes(network: nn.Module, example: Tensor) -> int | None:
    try:
        return int(count_cost(network, tuple(example.shape[1:])).size_bytes)
    except CountError:
        return None
