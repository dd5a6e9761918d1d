"""From a network to an ONNX graph in which every quantizer is one node that knows its integers.

`torch.onnx`'s own fake-quantization refuses or silently drops ranges below eight bits. So a copy of the network gets
its quantizers replaced by two registered operators with translations of their own. What comes out is a graph of plain
ONNX operators plus two of the domain `tenfold`, which the profiles then write as the integers they want:

    Weight(codes, scale)     a quantized weight: integers with zero point 0, and their unit
    Activation(x)            a quantized activation: offset + step * clip(round((x + shift) / step), 0, top)
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset
from torch import Tensor, nn

from tenfold.errors import ExportError
from tenfold.export.integers import ActivationGrid
from tenfold.quant import (
    FLOAT_BITS,
    ActivationQuantizer,
    QuantLayer,
    QuantLinear,
    activation_quantizers,
    quantized_layers,
)
from tenfold.quant.schemes import num_steps

DOMAIN = "tenfold"
OPSET = 21
"""The first with four-bit integers."""

_LIFT = 2.0**-21
"""A few times the relative error of float32: more than a division goes wrong by, less than other values notice."""

INPUT, OUTPUT, BATCH = "input", "output", "batch"


@torch.library.custom_op("tenfold::frozen_weight", mutates_args=())
def frozen_weight(codes: Tensor, scale: Tensor, layer: str) -> Tensor:
    """A weight from its integers: codes * scale, with one scale or one per output channel."""
    return codes.float() * scale.reshape(-1, *[1] * (codes.dim() - 1) if scale.dim() else [])


@frozen_weight.register_fake
def _(codes: Tensor, scale: Tensor, layer: str) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


@torch.library.custom_op("tenfold::frozen_activation", mutates_args=())
def frozen_activation(x: Tensor, step: float, shift: float, offset: float, top: int, layer: str) -> Tensor:
    """An activation on its grid: offset + step * clip(round((x + shift) / step), 0, top)."""
    return ((x.float() + shift) / step).round_().clamp_(0, top).mul_(step).add_(offset)


@frozen_activation.register_fake
def _(x: Tensor, step: float, shift: float, offset: float, top: int, layer: str) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def _schema(name: str, inputs: dict[str, str], attributes: dict[str, Any]) -> Op:
    kinds = OpSchema.AttrType
    constraints = [("F", ["tensor(float)"], ""), ("I", ["tensor(int16)"], "")]
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter(key, kind) for key, kind in inputs.items()],
        outputs=[OpSchema.FormalParameter("y", "F")],
        type_constraints=[c for c in constraints if c[0] in {"F", *inputs.values()}],
        attributes=[OpSchema.Attribute(key, getattr(kinds, kind), required=True) for key, kind in attributes.items()],
    )
    return Op(Opset(DOMAIN, 1), name, schema)


_WEIGHT = _schema("Weight", {"codes": "I", "scale": "F"}, {"layer": "STRING"})
_ACTIVATION = _schema(
    "Activation", {"x": "F"}, {"step": "FLOAT", "shift": "FLOAT", "offset": "FLOAT", "top": "INT", "layer": "STRING"}
)


def _translate_weight(codes: Any, scale: Any, layer: str) -> Any:
    return _WEIGHT(codes, scale, layer=layer)


def _translate_activation(x: Any, step: float, shift: float, offset: float, top: int, layer: str) -> Any:
    return _ACTIVATION(x, step=step, shift=shift, offset=offset, top=top, layer=layer)


class _FrozenWeight(nn.Module):
    """Stands in the place of a `WeightQuantizer`."""

    def __init__(self, layer: str, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def forward(self, _: Tensor) -> Tensor:
        return frozen_weight(self.codes, self.scale, self.layer)

    def factor(self, *_: Tensor) -> None:
        """The scale adjustment is part of the scale."""


class _FloatWeight(_FrozenWeight):
    """A weight of 32 bits: normalized and scaled, but not on a grid."""

    def forward(self, _: Tensor) -> Tensor:
        assert isinstance(self.codes, Tensor)
        return self.codes


class _FrozenActivation(nn.Module):
    """Stands in the place of an `ActivationQuantizer`."""

    def __init__(self, layer: str, grid: ActivationGrid) -> None:
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, x: Tensor) -> Tensor:
        grid = self.grid
        return frozen_activation(x, grid.step, grid.shift, grid.offset, grid.top, self.layer)


class _Clip(nn.Module):
    """A quantizer of 32 bits: clips, does not round."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


def activation_grid(quantizer: ActivationQuantizer) -> ActivationGrid:
    """The grid of a quantizer as ONNX can compute it.

    The training code multiplies by steps / level and rounds, or takes the floor for the schemes other than "original":
    rounding half a step lower is the same save on ties. One tie is not rare: on a two-sided grid zero lies half-way
    between two levels, and many activations are exactly zero. Training rounds it to the even code; a tiny lift, or at
    one bit a tiny lowering, makes sure of that here. On the grid "symmetric" zero is a level, and no tie is near.
    """
    layer, bits = quantizer.layer, quantizer.policy.bits
    if not isinstance(bits, int):
        raise ExportError(
            "one of the layers has an input whose channels have bits of their own, which ONNX cannot clip. Train with "
            "activation_bits='layer'."
        )
    level = quantizer.level
    step = (2 if layer.two_sided else 1) * level / num_steps(bits, layer.a_scheme)
    low = -level if layer.two_sided else 0.0
    is_rounded = layer.a_scheme in ("original", "symmetric")
    has_tie = layer.two_sided and layer.a_scheme != "symmetric"
    lift = step * 2**bits * _LIFT * (-1 if is_rounded and bits == 1 else 1) if has_tie else 0.0
    return ActivationGrid(
        step=step,
        shift=lift - low - (0.0 if is_rounded else step / 2),
        offset=low + (step / 2 if layer.a_scheme == "centered" else 0.0),
        top=2**bits - (2 if layer.a_scheme == "symmetric" else 1),
    )


def freeze(network: nn.Module) -> nn.Module:
    """A copy of a network, on the CPU, in float32 and evaluation mode, with frozen quantizers.

    Layers that share one quantizer module keep sharing it, under the name of the first.
    """
    frozen = copy.deepcopy(network).cpu().float().eval()
    inputs = {quantizer: name for name, quantizer in reversed(activation_quantizers(frozen).items())}
    for name, layer in quantized_layers(frozen):
        _freeze_weight(name, layer)
    twins = {quantizer: _frozen_input(name, quantizer) for quantizer, name in inputs.items()}
    for parent in list(frozen.modules()):
        for child, module in list(parent._modules.items()):
            if isinstance(module, ActivationQuantizer):
                setattr(parent, child, twins[module])
    return frozen.requires_grad_(False)


def _frozen_input(name: str, quantizer: ActivationQuantizer) -> nn.Module:
    if quantizer.policy.bits == FLOAT_BITS:
        return _Clip(-quantizer.level if quantizer.layer.two_sided else 0.0, quantizer.level)
    return _FrozenActivation(name, activation_grid(quantizer))


def _freeze_weight(name: str, layer: QuantLayer) -> None:
    quantizer = layer.weight_quantizer
    factor = None
    if isinstance(layer, QuantLinear) and not layer.layer.rescale_in_eval:
        # The official linear layer: in evaluation the bias is divided, the weight not multiplied.
        factor = quantizer.factor(quantizer(layer.weight), layer.weight)
        layer.layer = dataclasses.replace(layer.layer, rescale_in_eval=True)
        if factor is not None and layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach() / factor)
    if quantizer.policy.bits == FLOAT_BITS:
        weight = layer.effective_weight().detach()
        twin: nn.Module = _FloatWeight(name, weight if factor is None else weight / factor, torch.ones(()))
    else:
        integers = layer.integer_weight()
        scale = integers.scale if factor is None else integers.scale / factor
        twin = _FrozenWeight(name, integers.codes, scale)
    layer.weight_quantizer = twin  # type: ignore[assignment]


def takes_windows(network: nn.Module) -> bool:
    """Whether the frames of a video stand in the batch of its input and see each other, see `models.PackedWindow`."""
    return getattr(network, "takes", "image") == "window"


def capture(network: nn.Module, example: Tensor) -> ir.Model:
    """The network as an ONNX graph with `Weight` and `Activation` nodes, for any batch size.

    Of a network that takes windows of a video, the number of frames and their size stay free.

    Args:
        network: quantized by `tenfold.quant`, or float; left as it was.
        example: a batch of inputs, (B, C, H, W).

    Raises:
        ExportError: if torch cannot express the network in ONNX; the message names the operation.
    """
    least, dynamic = 2, {0: torch.export.Dim(BATCH)}  # torch takes a size of 1 for a constant
    if takes_windows(network):
        least = 3  # two pairs of frames, likewise
        multiple = int(network.multiple)  # type: ignore[arg-type]
        rows, columns = (multiple * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        dynamic = {0: torch.export.Dim(BATCH, min=least), 2: rows, 3: columns}
    if example.shape[0] < least:
        example = example[:1].expand(least, *example.shape[1:])
    arguments = (example.detach().float().cpu().contiguous(),)
    model = translate(
        freeze(network), arguments, type(network).__name__, input_names=[INPUT], dynamic_shapes=(dynamic,)
    )
    outputs = model.graph.outputs
    for index, value in enumerate(outputs):
        value.name = OUTPUT if len(outputs) == 1 else f"{OUTPUT}_{index}"
    return model


def translate(frozen: nn.Module, arguments: tuple[Tensor, ...], name: str, **options: Any) -> ir.Model:
    """A network as torch's exporter writes it, with `Weight` and `Activation` nodes.

    Args:
        frozen: what `freeze` gives, or a module around it.
        arguments: of its forward.
        name: what errors call the network.
        options: further ones of `torch.onnx.export`: names, and sizes that stay free.

    Raises:
        ExportError: if torch cannot express the network in ONNX; the message names the operation.
    """
    try:
        with torch.no_grad(), quiet_exporter():
            program = torch.onnx.export(
                frozen,
                arguments,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table={
                    torch.ops.tenfold.frozen_weight.default: _translate_weight,
                    torch.ops.tenfold.frozen_activation.default: _translate_activation,
                },
                **options,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(_reason(name, error)) from error
    assert program is not None
    model: ir.Model = program.model
    return model


def _reason(name: str, error: BaseException) -> str:
    """Name the operation at fault, if the chain of errors tells it."""
    chain, texts = error, [str(error)]
    while (chain := chain.__cause__ or chain.__context__) is not None:  # type: ignore[assignment]
        texts.append(str(chain))
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", " ".join(texts))
    if found:
        return (
            f"{name} uses the operation {found[1]}, which has no ONNX form. "
            "Replace it in the network by operations that have one."
        )
    last = next((line for text in reversed(texts) for line in text.splitlines() if line.strip()), "unknown reason")
    return (
        f"torch cannot turn {name} into an ONNX graph: {last.strip()}. The usual causes are "
        "Python branches on values, and a fixed batch size in the code; `torch.export.export` shows the place."
    )


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own notes, which do not concern our users, off their screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
