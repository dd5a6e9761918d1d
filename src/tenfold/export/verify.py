"""Checking an exported graph against the network it came from, in the runtime, before it is written.

Two questions are asked. *Is the graph right?* Each layer gets the very codes that it gets in the network, and the codes
it gives are compared: so an error is seen where it arises. Comparing outputs alone would not tell: in a deep low-bit
network one code that falls to the other side of a tie changes many others after it, in PyTorch as well. *And what does
it do as a whole?* The outputs of the file are compared too, and reported.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from tenfold.errors import ExportError, MissingExtraError
from tenfold.export.capture import INPUT, takes_windows
from tenfold.export.graph import Codes, Quantizer
from tenfold.export.machine import needs_precision, openvino_settings, session_settings
from tenfold.export.probe import Array, Check, Probe, array, relative_error, watch
from tenfold.export.session import open_session, openvino_core

_CODE_IMAGES, _OUTPUT_IMAGES = 4, 64


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer of an exported network.

    Attributes:
        name: of the module.
        w_bits: bits of the weights; 32 for float; the mean where kernels differ.
        a_bits: bits of the input.
        runs: "integer", or "float".
        why: what keeps it in float, or what was rounded; "" if all is exact.
        worst_steps: largest error of its quantized input, in steps of its quantizer, given exact inputs to the layers
            before it; None if it has no quantizer.
        exact_codes: share of that input's values with less than a quarter of a step of error; None likewise.
    """

    name: str
    w_bits: float
    a_bits: float
    runs: str
    why: str = ""
    worst_steps: float | None = None
    exact_codes: float | None = None


@dataclass(frozen=True, kw_only=True)
class WidthReport:
    """How faithful a file is at one bit-width (`w_bits`, `a_bits`); the rest means what it means in `ExportReport`."""

    w_bits: int
    a_bits: int
    worst_steps: float
    exact_codes: float
    output_error: float
    relative_error: float
    top1_agreement: float | None


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """How faithful an exported file is, and how large.

    Attributes:
        path: the file.
        profile: "fast", "compact", "float" or "switchable".
        file_bytes: its size.
        predicted_bytes: what the cost model says of weights and biases; None if it cannot count this network.
        worst_steps: largest error of any quantized activation, in steps of its quantizer, each layer on exact inputs.
        exact_codes: share of all quantized values with less than a quarter of a step of error.
        worst_layer: where the relative error is largest.
        worst_relative: that error: root mean square, as a share of the deviation of the values.
        output_error: largest error of the outputs, in their own units, the whole file at work.
        relative_error: root mean square error of the outputs, as a share of their deviation.
        top1_agreement: share of images (of a segmentation: of pixels) with the same arg-max; None if the outputs are no
            classes.
        images: how many images were compared.
        engines: by runtime, the largest relative error of any layer on exact inputs; None if the runtime cannot run the
            file. One whose error is too large may not run it.
        any_cpu: whether the file gives the same results on processors whose 8-bit products saturate.
        nodes: how often each operator occurs in the graph that ONNX Runtime makes of the file.
        layers: every layer with quantized weights.
        widths: for "switchable", each bit-width for itself; all that stands above is then the worst of any width, save
            `w_bits` and `a_bits` of the layers, which are those of the widest.
    """

    path: str
    profile: str
    file_bytes: int
    predicted_bytes: int | None
    worst_steps: float
    exact_codes: float
    worst_layer: str
    worst_relative: float
    output_error: float
    relative_error: float
    top1_agreement: float | None
    images: int
    engines: dict[str, float | None]
    any_cpu: bool
    nodes: dict[str, int]
    layers: list[LayerReport]
    widths: list[WidthReport] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        predicted = "" if self.predicted_bytes is None else f" (predicted {self.predicted_bytes:,})"
        integer = sum(layer.runs == "integer" for layer in self.layers)
        agreement = "" if self.top1_agreement is None else f", same top-1 on {self.top1_agreement:.1%}"
        return (
            f"{self.path}: {self.profile}, {self.file_bytes:,} bytes{predicted}; {integer} of {len(self.layers)} "
            f"quantized layers run in integers; worst code error {self.worst_steps:.2f} steps, {self.exact_codes:.2%} "
            f"of codes exact; output error {self.relative_error:.2%}{agreement} ({self.images} images)"
        )


@dataclass(frozen=True)
class Comparison:
    """What the comparison found.

    Attributes:
        codes: by layer name.
        outputs: relative error of the outputs when each layer gets exact codes.
        output_error: largest error of the first output, the whole graph at work.
        relative_error: its root mean square error as a share of its deviation.
        top1_agreement: None if the outputs are no classes.
        images: how many were compared.
        engines: by runtime, the largest relative error of any layer on exact codes.
    """

    codes: dict[str, Check]
    outputs: float
    output_error: float
    relative_error: float
    top1_agreement: float | None
    images: int
    engines: dict[str, float]

    @property
    def all_codes(self) -> Check:
        """Those of all layers as one."""
        return Check.worst_of(list(self.codes.values()) or [Check(0.0, 1.0, 1, 0.0)])

    @classmethod
    def worst_of(cls, found: Sequence[Comparison]) -> Comparison:
        """Several comparisons of one graph, such as at several bit-widths, as one."""
        agreements = [one.top1_agreement for one in found if one.top1_agreement is not None]
        return cls(
            {name: Check.worst_of([one.codes[name] for one in found]) for name in found[0].codes},
            max(one.outputs for one in found),
            max(one.output_error for one in found),
            max(one.relative_error for one in found),
            min(agreements, default=None),
            found[0].images,
            {name: max(one.engines[name] for one in found) for name in found[0].engines},
        )


def compare(
    model: ir.Model,
    quantizers: Sequence[Quantizer],
    codes: Sequence[Codes],
    network: nn.Module,
    example: Tensor,
    metadata: dict[str, Any],
    choice: Mapping[str, Array] | None = None,
) -> Comparison:
    """Run the graph in ONNX Runtime, and the network in PyTorch, on the same images.

    Args:
        model: as it will be written.
        quantizers: the activation quantizers that were in it.
        codes: how each is written now.
        network: the network it came from.
        example: real images, (B, C, H, W).
        metadata: what the file will say of itself.
        choice: the inputs besides the images, if there are any. They are given at the call, and then once more as
            constants of the graph: runtimes may compute either in another way, and users may do either.
    """
    settings, choice = session_settings(metadata), dict(choice or {})
    network = copy.deepcopy(network).cpu().float().eval()
    seen = example[:_CODE_IMAGES]
    truth = watch(network, lambda: network(seen.detach().float().cpu()))
    probe = Probe(model, quantizers, codes, truth)
    forced = {INPUT: array(seen), **probe.feeds(truth)}
    forms = [(probe.model, {**forced, **choice})]
    if choice:
        forms.append((_with_constants(probe.model, choice), forced))
    results = [probe.compare(_run_onnxruntime(form, settings, feeds), truth) for form, feeds in forms]
    checks = {name: Check.worst_of([codes[name] for codes, _ in results]) for name in results[0][0]}
    local = max(outputs for _, outputs in results)
    engines = {"onnxruntime": _worst(checks, local)}
    if find_spec("openvino") and not needs_precision(metadata):
        there = [_run_openvino(form, openvino_settings(metadata), feeds) for form, feeds in forms]
        engines["openvino"] = max(np.inf if one is None else _worst(*probe.compare(one, truth)) for one in there)
    found, wanted = [], []
    session = session_of(model, settings)
    images = example[:_OUTPUT_IMAGES]
    for batch in images.split(8):
        found.append(_execute(session, {INPUT: array(batch), **choice})[0])
        wanted.append(_answers(network, batch))
    outputs, answers = np.concatenate(found), np.concatenate(wanted)
    if outputs.shape != answers.shape:
        raise ExportError(f"the exported graph gives outputs of shape {outputs.shape}, the network {answers.shape}.")
    # One answer an image, or one a pixel; or painted frames.
    has_classes = answers.ndim in (2, 4) and answers.shape[1] > 1 and not takes_windows(network)
    return Comparison(
        checks,
        local,
        float(np.abs(outputs - answers).max(initial=0)),
        relative_error(outputs, answers),
        float((outputs.argmax(1) == answers.argmax(1)).mean()) if has_classes else None,
        len(images),
        engines,
    )


def _answers(network: nn.Module, images: Tensor) -> Array:
    """The first output of a network."""
    return watch(None, lambda: network(images.detach().float().cpu())).outputs[0]


def _with_constants(model: ir.Model, values: Mapping[str, Array]) -> ir.Model:
    """A copy of a graph whose inputs of these names are constants."""
    model = model.clone()
    for value in [value for value in model.graph.inputs if value.name in values]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(values[value.name], name=value.name)
        model.graph.register_initializer(value)
    return model


def _worst(checks: dict[str, Check], outputs: float) -> float:
    return max([outputs, *(check.relative for check in checks.values())])


def _run_onnxruntime(model: ir.Model, settings: dict[str, str], feeds: dict[str, Array]) -> dict[str, Array]:
    names = [value.name for value in model.graph.outputs]
    return dict(zip(names, _execute(session_of(model, settings), feeds), strict=True))


def _execute(session: Any, feeds: dict[str, Array]) -> list[Array]:
    try:
        return list(session.run(None, feeds))
    except Exception as error:  # its errors are plain Exceptions of many names
        raise ExportError(
            f"ONNX Runtime fails on the exported graph: {error}. Does the network give finite numbers of sane size on "
            "the example?"
        ) from error


def _run_openvino(model: ir.Model, settings: dict[str, Any], feeds: dict[str, Array]) -> dict[str, Array] | None:
    """The outputs by name; None if OpenVINO cannot run the model, as it cannot where there are 2-bit integers."""
    core = openvino_core()
    names = [value.name for value in model.graph.outputs]
    try:
        read = core.read_model(ir.to_proto(model).SerializeToString())
        compiled = core.compile_model(read, "CPU", settings)
        return dict(zip(names, compiled(feeds).values(), strict=True))
    except RuntimeError:
        return None


def session_of(model: ir.Model, settings: dict[str, str], optimized: Path | None = None) -> Any:
    """Open a graph in ONNX Runtime.

    Raises:
        ExportError: if it refuses the graph.
        MissingExtraError: if it is not installed.
    """
    try:
        return open_session(ir.to_proto(model).SerializeToString(), settings, optimized=optimized)
    except MissingExtraError:
        raise
    except Exception as error:  # its errors are plain Exceptions of many names
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"ONNX Runtime refuses the exported graph: {reason.strip()}") from error


def count_nodes(model: ir.Model, metadata: dict[str, Any]) -> dict[str, int]:
    """How often each operator occurs in the graph that ONNX Runtime makes of a model, the most frequent first."""
    with TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session_of(model, session_settings(metadata), optimized)
        graph = ir.load(optimized).graph
        return dict(Counter(node.op_type for node in graph).most_common())
