"""Checking an exported graph against the network it came from, in the runtime, before it is written.

Two questions are asked. *Is the graph right?* Each layer gets the very codes that it gets in the network, and the codes
it gives are compared: so an error is seen where it arises. Comparing outputs alone would not tell: in a deep low-bit
network one code that falls to the other side of a tie changes many others after it, in PyTorch as well. *And what does
it do as a whole?* The outputs of the file are compared too, and reported.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tenfold.errors import ExportError, MissingExtraError
from tenfold.export.capture import INPUT, takes_windows
from tenfold.export.graph import Codes, Quantizer
from tenfold.export.machine import needs_precision, openvino_settings, session_settings
from tenfold.export.session import open_session, openvino_core
from tenfold.quant import activation_quantizers

_CODE_IMAGES, _OUTPUT_IMAGES = 4, 64

Array = NDArray[Any]


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
class Check:
    """The comparison of one tensor."""

    worst_steps: float
    exact: float
    size: int
    relative: float

    @classmethod
    def worst_of(cls, checks: Sequence[Check]) -> Check:
        """Several comparisons of one tensor as one."""
        sizes = [check.size for check in checks]
        exact = float(np.average([check.exact for check in checks], weights=sizes))
        worst = max(check.worst_steps for check in checks)
        return cls(worst, exact, sum(sizes), max(check.relative for check in checks))


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
    probe = _Probe(model, quantizers, codes, network, example[:_CODE_IMAGES])
    forms = [(probe.model, {**probe.feeds, **choice})]
    if choice:
        forms.append((_with_constants(probe.model, choice), probe.feeds))
    results = [probe.compare(_run_onnxruntime(form, settings, feeds)) for form, feeds in forms]
    checks = {name: Check.worst_of([codes[name] for codes, _ in results]) for name in results[0][0]}
    local = max(outputs for _, outputs in results)
    engines = {"onnxruntime": _worst(checks, local)}
    if find_spec("openvino") and not needs_precision(metadata):
        there = [_run_openvino(form, openvino_settings(metadata), feeds) for form, feeds in forms]
        engines["openvino"] = max(np.inf if one is None else _worst(*probe.compare(one)) for one in there)
    found, wanted = [], []
    session = _session(model, settings)
    images = example[:_OUTPUT_IMAGES]
    for batch in images.split(8):
        found.append(_execute(session, {INPUT: _array(batch), **choice})[0])
        wanted.append(_run(network, batch)[0][0])
    outputs, truth = np.concatenate(found), np.concatenate(wanted)
    if outputs.shape != truth.shape:
        raise ExportError(f"the exported graph gives outputs of shape {outputs.shape}, the network {truth.shape}.")
    # One answer an image, or one a pixel; or painted frames.
    has_classes = truth.ndim in (2, 4) and truth.shape[1] > 1 and not takes_windows(network)
    return Comparison(
        checks,
        local,
        float(np.abs(outputs - truth).max(initial=0)),
        relative_error(outputs, truth),
        float((outputs.argmax(1) == truth.argmax(1)).mean()) if has_classes else None,
        len(images),
        engines,
    )


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


def relative_error(found: Array, wanted: Array, floor: float = 0.0) -> float:
    """Root mean square error as a share of the deviation of the wanted values; infinite for NaN."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    error = float(np.sqrt(np.square(found - wanted).mean())) if wanted.size else 0.0
    if not np.isfinite(error):
        return np.inf
    scale = max(float(wanted.std()), floor, 1e-6 * float(np.abs(wanted).max(initial=0)))
    return error / scale if error else 0.0


class _Probe:
    """A graph cut open at every quantized activation, with the network's own codes to put in at the cuts."""

    def __init__(
        self,
        model: ir.Model,
        quantizers: Sequence[Quantizer],
        codes: Sequence[Codes],
        network: nn.Module,
        images: Tensor,
    ) -> None:
        self._outputs, activations = _run(network, images, watch=True)
        truths = [activations[quantizer.name].pop(0) for quantizer in quantizers]
        self.model = model.clone()
        self.feeds: dict[str, Array] = {INPUT: _array(images)}
        graph = self.model.graph
        self._output_names = [value.name for value in graph.outputs]
        values = {value.name: value for node in graph for value in node.outputs}
        watched = [values[code.value.name] for code in codes if code.value is not None]
        for index, (value, code, truth) in enumerate(zip(watched, codes, truths, strict=True)):
            if len(list(value.uses())) == 1 and watched.count(value) == 1:
                # Only this layer reads these codes.
                forced = ir.Value(name=f"forced_{index}", type=_tensor_of(code))
                forced.shape = ir.Shape([f"d{index}_{axis}" for axis in range(truth.ndim)])
                ir.convenience.replace_all_uses_with(value, forced)
                graph.inputs.append(forced)
                exact = np.rint((truth - code.offset) / code.scale) + code.zero
                kind = np.iinfo(code.kind)
                self.feeds[forced.name] = np.clip(exact, kind.min, kind.max).astype(code.kind)
            if not value.is_graph_output():
                value.type = _tensor_of(code)
                graph.outputs.append(value)
        self._watched = list(zip(quantizers, codes, [value.name for value in watched], truths, strict=True))

    def compare(self, found: dict[str, Array]) -> tuple[dict[str, Check], float]:
        """The codes by layer, and the largest relative error of the outputs.

        Args:
            found: what a runtime gives, by name.
        """
        checks: dict[str, Check] = {}
        for quantizer, code, name, truth in self._watched:
            real = code.scale * (found[name].astype(np.float64) - code.zero) + code.offset
            steps = np.abs(real - truth) / quantizer.grid.step
            checks[quantizer.name] = Check(
                float(steps.max(initial=0)),
                float((steps < 0.25).mean()),
                steps.size,
                relative_error(real, truth, floor=quantizer.grid.step),
            )
        pairs = zip(self._output_names, self._outputs, strict=True)
        return checks, max(relative_error(found[name], truth) for name, truth in pairs)


def _tensor_of(codes: Codes) -> ir.TensorType:
    return ir.TensorType(ir.DataType.from_numpy(np.dtype(codes.kind)))


def _run_onnxruntime(model: ir.Model, settings: dict[str, str], feeds: dict[str, Array]) -> dict[str, Array]:
    names = [value.name for value in model.graph.outputs]
    return dict(zip(names, _execute(_session(model, settings), feeds), strict=True))


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


def _run(network: nn.Module, images: Tensor, *, watch: bool = False) -> tuple[list[Array], dict[str, list[Array]]]:
    """The outputs of a network, and what its activation quantizers give, by layer name in the order of calls."""
    activations: dict[str, list[Array]] = defaultdict(list)

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            activations[name].append(_array(output))

        return hook

    hooks = [
        quantizer.register_forward_hook(keep(name))
        for name, quantizer in activation_quantizers(network).items()
        if watch
    ]
    with torch.no_grad():
        result = network(images.detach().float().cpu())
    for hook in hooks:
        hook.remove()
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    return [_array(tensor) for tensor in tensors], activations


def _array(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().contiguous().numpy()


def _session(model: ir.Model, settings: dict[str, str], optimized: Path | None = None) -> Any:
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
        _session(model, session_settings(metadata), optimized)
        graph = ir.load(optimized).graph
        return dict(Counter(node.op_type for node in graph).most_common())
