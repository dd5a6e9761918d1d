"""Exporting a network to ONNX, with real integers in the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from tenfold.cost import mean_bits
from tenfold.cost import profile as count_cost
from tenfold.errors import CountError, ExportError, ShapeError, UnknownNameError, UsageError
from tenfold.export.capture import INPUT, capture, takes_windows
from tenfold.export.compact import bits_by_kernel, set_format, write_compact
from tenfold.export.fast import write_fast
from tenfold.export.graph import Codes, IntegerLayer, Network, Quantizer, tidy
from tenfold.export.integers import KernelWeight
from tenfold.export.machine import saturates
from tenfold.export.metadata import KEY
from tenfold.export.placing import place
from tenfold.export.probe import Check
from tenfold.export.ranges import observe_ranges
from tenfold.export.slim import slim
from tenfold.export.switchable import refuse_if_not_nested, write_switchable
from tenfold.export.verify import Comparison, ExportReport, LayerReport, WidthReport, compare, count_nodes
from tenfold.export.width_choice import WIDTH_INPUT
from tenfold.export.widths import capture_widths, settle
from tenfold.files import written_whole
from tenfold.quant import (
    QuantPart,
    QuantProduct,
    available_bits,
    bits_text,
    describe,
    quantized_layers,
    quantized_parts,
)
from tenfold.quant.switching import width_text

ExportProfile = Literal["fast", "compact", "float", "switchable"]

TOLERANCES: dict[str, float] = {"fast": 0.35, "compact": 0.1, "float": 0.1, "switchable": 0.1}
"""Largest relative error that one layer may show before an export is refused. A wrong graph shows 0.5 and more."""

_LARGEST_BYTES = 2**31 - 1
_METADATA_VERSION = 1
_WINDOW = 8
"""Frames given at a time to a network that takes windows."""


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
            the network computes; "float" for real numbers; "switchable" for all bit-widths of a network that the
            method adabits trained, in one file, where the others take the width that is set now.
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
        UsageError: for "switchable", if the network has one bit-width only.
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
    if profile == "switchable":
        draft = _draft_switchable(network, example)
    else:
        images = example if calibration is None else calibration
        draft = _draft(tidy(capture(network, example)), network, profile, images, any_cpu)
    model, network = draft.model, draft.widest
    slim(model, everything=profile in ("compact", "switchable"))
    set_format(model)
    metadata: dict[str, Any] = {
        "version": _METADATA_VERSION,
        "profile": profile,
        "task": dict(task or {}),
        "input_shape": list(example.shape[1:]),
        "any_cpu": not draft.saturates and not any(weight.saturates for weight in draft.weights.values()),
        "bits": dict(
            Counter(f"{bits_text(layer.w_bits)}/{bits_text(layer.a_bits)}" for _, layer in quantized_layers(network))
        ),
    }
    predicted = _predicted_bytes(network, example)
    allowed = TOLERANCES[profile] if tolerance is None else tolerance
    each = [
        compare(model, one.quantizers, one.codes, one.network, example, metadata, one.choice) for one in draft.variants
    ]
    for one, checked in zip(draft.variants, each, strict=True):
        _refuse_if_wrong(checked, allowed, one.name)
    found = Comparison.worst_of(each)
    widths = [_report_width(width, checked) for width, checked in zip(draft.widths, each, strict=False)]
    if widths:
        metadata["widths"] = [list(width) for width in draft.widths]
        metadata["fidelity"] = [
            {"worst_steps": width.worst_steps, "top1_agreement": width.top1_agreement} for width in widths
        ]
        metadata["predicted_bytes"] = predicted
    # Such as OpenVINO and 2-bit integers; or a defect of a runtime that only this network shows.
    metadata["refused_by"] = [name for name, error in found.engines.items() if not error <= allowed]
    model.metadata_props[KEY] = json.dumps(metadata, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    content = _serialize(model)
    with written_whole(path) as part:
        part.write_bytes(content)
    nodes = count_nodes(model, metadata)
    return _report(Path(path), (len(content), predicted), network, metadata, draft, found, nodes, widths)


@dataclass
class _Variant:
    """One way to run a graph, and the network that it must equal then."""

    network: nn.Module
    quantizers: Sequence[Quantizer]
    codes: Sequence[Codes]
    choice: dict[str, np.ndarray] = field(default_factory=dict)
    name: str = ""


@dataclass
class _Draft:
    """A written graph, and what became of its parts."""

    model: ir.Model
    variants: list[_Variant]
    reasons: dict[str, str]
    weights: dict[IntegerLayer, KernelWeight] = field(default_factory=dict)
    products: Collection[str] = ()
    saturates: bool = False
    widths: Sequence[tuple[int, int]] = ()

    @property
    def widest(self) -> nn.Module:
        """The network, at its widest width if it has several."""
        return max(zip(self.widths or [(0, 0)], self.variants, strict=True), key=lambda pair: pair[0])[1].network


def _draft(captured: Network, network: nn.Module, profile: str, images: Tensor, any_cpu: bool) -> _Draft:
    if profile != "fast":
        codes = write_compact(captured, bits_by_kernel(network), real_weights=profile == "float")
        return _Draft(captured.model, [_Variant(network, captured.quantizers, codes)], _in_float(network, profile))
    image_layers = {name for name, scheme in describe(network).items() if scheme.pixels}
    pixel_layers = image_layers if _are_bytes(images) else set()  # else the image is normalized: its grid is calibrated
    plan = place(captured, pixel_layers=pixel_layers, any_cpu=any_cpu)
    together = _WINDOW if takes_windows(network) else 1
    pixels = images.detach().float().cpu().numpy()
    ranges = observe_ranges(captured, ({INPUT: pixels[at : at + together]} for at in range(0, len(pixels), together)))
    written = write_fast(captured, plan, ranges, any_cpu=any_cpu)
    reasons = {layer.name: reason for layer, reason in plan.reasons.items()}
    variants = [_Variant(network, captured.quantizers, written.codes)]
    return _Draft(captured.model, variants, reasons, written.weights, set(plan.products), written.saturates)


def _draft_switchable(network: nn.Module, example: Tensor) -> _Draft:
    widths = available_bits(network)
    if not widths:
        raise UsageError(
            "the profile switchable holds several bit-widths, and this network has one only. Train it with the method "
            "adabits to get several, or choose the profile compact or fast."
        )
    settled = [settle(network, position) for position in range(len(widths))]
    layers = [dict(quantized_layers(one)) for one in settled]
    refuse_if_not_nested(layers)  # before the capture, which takes long
    captured = capture_widths(settled, example)
    codes = write_switchable(captured, layers)
    variants = [
        _Variant(
            one,
            graph.quantizers,
            its_codes,
            {WIDTH_INPUT: np.array(position)},
            f" at {width_text(widths[position])} bits",
        )
        for position, (one, graph, its_codes) in enumerate(zip(settled, captured, codes, strict=True))
    ]
    return _Draft(captured[0].model, variants, _in_float(network, "switchable"), widths=widths)


def _in_float(network: nn.Module, profile: str) -> dict[str, str]:
    reason = f"the profile {profile} computes with real numbers"
    return {name: reason for name, _ in quantized_parts(network)}


def _are_bytes(images: Tensor) -> bool:
    """Whether the images are raw pixels, whole numbers from 0 to 255."""
    return bool(((images >= 0) & (images <= 255) & (images == images.round())).all()) and float(images.max()) > 1


def _refuse_if_wrong(found: Comparison, tolerance: float, width: str) -> None:
    errors = {f"the input of {name}": check.relative for name, check in found.codes.items()}
    errors["the output"] = found.outputs
    place, error = max(errors.items(), key=lambda item: item[1])
    if not error <= tolerance:
        raise ExportError(
            f"the exported graph would be wrong{width}, so it was not written: {place} has an error of {error:.0%} of "
            f"its deviation, allowed are {tolerance:.0%}. Calibrate on real images (calibration=...), export with "
            "profile='compact', or allow more with tolerance=... if you know why."
        )


def _serialize(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString()
    if len(content) > _LARGEST_BYTES:
        raise ExportError(f"the file would have {len(content):,} bytes; one ONNX file holds at most 2 GiB.")
    return content


def _report(
    path: Path,
    size: tuple[int, int | None],
    network: nn.Module,
    metadata: Mapping[str, Any],
    draft: _Draft,
    found: Comparison,
    nodes: dict[str, int],
    widths: list[WidthReport],
) -> ExportReport:
    exact = {layer.name: bool(weight.exact.all()) for layer, weight in draft.weights.items()}
    exact |= dict.fromkeys(draft.products, True)
    layers = [_report_part(name, part, exact, draft.reasons, found) for name, part in quantized_parts(network)]
    worst = max(found.codes, key=lambda name: found.codes[name].relative, default="")
    return ExportReport(
        path=str(path),
        profile=str(metadata["profile"]),
        file_bytes=size[0],
        predicted_bytes=size[1],
        worst_steps=found.all_codes.worst_steps,
        exact_codes=found.all_codes.exact,
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
        widths=widths,
    )


def _report_part(
    name: str, part: QuantPart, exact: Mapping[str, bool], reasons: Mapping[str, str], found: Comparison
) -> LayerReport:
    """What is said of a layer or product; `exact` names those that run in integers, and whether nothing is rounded."""
    rounded = "weights rounded to fit 8-bit kernels"
    operands = (f"{name} left", f"{name} right") if isinstance(part, QuantProduct) else (name,)
    checks = [found.codes[one] for one in operands if one in found.codes]
    check = Check.worst_of(checks) if checks else None
    why = "its operands are not both on 8-bit grids" if isinstance(part, QuantProduct) else ""
    return LayerReport(
        name=name,
        w_bits=mean_bits(part.w_bits),
        a_bits=mean_bits(part.a_bits),
        runs="integer" if name in exact else "float",
        why=reasons.get(name, why) if name not in exact else ("" if exact[name] else rounded),
        worst_steps=None if check is None else check.worst_steps,
        exact_codes=None if check is None else check.exact,
    )


def _report_width(width: tuple[int, int], found: Comparison) -> WidthReport:
    return WidthReport(
        w_bits=width[0],
        a_bits=width[1],
        worst_steps=found.all_codes.worst_steps,
        exact_codes=found.all_codes.exact,
        output_error=found.output_error,
        relative_error=found.relative_error,
        top1_agreement=found.top1_agreement,
    )


def _predicted_bytes(network: nn.Module, example: Tensor) -> int | None:
    try:
        return int(count_cost(network, tuple(example.shape[1:])).size_bytes)
    except CountError:
        return None
