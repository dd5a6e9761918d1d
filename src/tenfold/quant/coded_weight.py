"""Quantized weights as 8-bit codes, as the integer engine multiplies them.

A weight that is quantized simulated goes through memory five times more: its levels are written as float numbers, read
for their deviation, and read again for their codes. Where nobody asks for these numbers, codes come from the tanh of
the weight at once, and their deviation from whole sums of codes; the codes are the same to the last.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tenfold.kernels.codes import Rounding, code_sums, encode
from tenfold.quant.operators import dense, squash, weight_peak
from tenfold.quant.schemes import Bits, Scheme, num_steps, signed_grid
from tenfold.recomputation import recomputable

if TYPE_CHECKING:
    from tenfold.quant.layers import QuantLayer

_MIDDLE = 128
"""What turns a uint8 code into an int8 one."""


@dataclass(frozen=True)
class CodedWeight:
    """A quantized weight: `unit * (code + half)`.

    Attributes:
        codes: int8, in the order of the weight.
        level_unit: the unit for the quantized weight as it comes, (1,) or (C_out,).
        unit: with the scale adjustment, likewise.
        half: 0 or 1/2, likewise.
        source: what gets the gradient: the quantized weight, the normalized one, or the weight itself.
        squashes: whether the gradient goes through tanh and the maximum of `source`.
        is_broken: whether a number was NaN, whose code means nothing: per tensor or per channel, bool like `unit`.
    """

    codes: Tensor
    level_unit: Tensor
    unit: Tensor
    half: Tensor
    source: Tensor
    squashes: bool
    is_broken: Tensor

    def unadjusted(self) -> CodedWeight:
        """The same without the scale adjustment."""
        return replace(self, unit=self.level_unit)


def coded_weight(layer: QuantLayer) -> CodedWeight:
    """The codes of a layer's weight at the bits that it has now.

    Args:
        layer: with whole bits, 8 at most.
    """
    return _from_weight(layer) if _is_plain(layer) else _from_quantized(layer)


def _is_plain(layer: QuantLayer) -> bool:
    """Whether codes follow from the weight by tanh, one maximum and rounding, and nobody looks at what lies between."""
    quantizer, scheme = layer.weight_quantizer, layer.layer
    return (
        isinstance(quantizer.policy.active, int)
        and scheme.clamp
        and not scheme.per_channel
        and quantizer.pinned_peak is None
        and quantizer.pinned_factor is None
        and not (quantizer._forward_hooks or quantizer._forward_pre_hooks)
    )


def _from_weight(layer: QuantLayer) -> CodedWeight:
    quantizer, scheme = layer.weight_quantizer, layer.layer.scheme
    bits = quantizer.policy.active
    assert isinstance(bits, int)
    steps, unit, half = num_steps(bits, scheme), *_codes_of(bits, scheme)
    shared = quantizer.normalized
    if shared is None:
        source, values = layer.weight, squash(layer.weight.detach())
        scale = float(steps / (2 * weight_peak(values, False)))
    else:
        source, values, scale = shared, dense(shared.detach()), steps / 2
    grid = signed_grid(bits, scheme)
    is_wide = bool(half.any())
    rounding = Rounding(
        scale=scale,
        shift=steps / 2,
        steps=steps,
        top=2**bits - 1,
        floors=scheme in ("modified", "centered"),
        stretch=1 if is_wide else grid.step,
        start=0 if is_wide else grid.low + _MIDDLE,
    )
    codes, is_broken = encode(values, rounding)
    adjusted = unit
    if quantizer.layer.rescale != "none":
        count = codes.numel()
        total, squares = code_sums(codes, _MIDDLE)
        variance = max(0.0, (squares - total * total / count) / max(1, count - 1))
        adjusted = unit * quantizer.adjustment(float(unit) * torch.tensor(variance).sqrt(), layer.weight)
    codes = _signed(codes)
    values_of = squash if shared is None else dense
    recomputable(codes, lambda source: _signed(encode(values_of(source), rounding)[0]), source)
    return CodedWeight(codes, unit, adjusted, half, source, shared is None, torch.tensor([is_broken]))


def _from_quantized(layer: QuantLayer) -> CodedWeight:
    quantizer = layer.weight_quantizer
    bits = quantizer.policy.whole
    assert bits is not None
    quantized, factor = layer.quantized_weight()
    values = dense(quantized.detach())
    fine, half = _codes_of(bits, layer.layer.scheme)
    peak = quantizer.peak(layer.weight)
    unit = fine if peak is None else fine * peak
    half = half.expand(unit.shape)
    adjusted = unit if factor is None else unit * factor.float()
    # A weight that has a NaN is NaN everywhere, or in a whole channel, as it is divided by its maximum.
    is_broken = values.flatten(1)[: unit.numel(), 0].isnan()
    if unit.numel() == 1:
        shift = _MIDDLE - float(half)
        codes, _ = encode(values, Rounding(scale=1 / float(unit), shift=shift, steps=255, top=255))
        codes = _signed(codes)
    else:
        shape = (-1, *[1] * (values.dim() - 1))
        codes = (values / unit.view(shape) - half.view(shape)).round_().nan_to_num_(0).to(torch.int8)
    return CodedWeight(codes, unit, adjusted, half, quantized, False, is_broken)


def _signed(codes: Tensor) -> Tensor:
    """uint8 codes as int8 ones, `_MIDDLE` lower; in place."""
    return codes.bitwise_xor_(_MIDDLE).view(torch.int8)


@functools.lru_cache(maxsize=1024)
def _codes_of(bits: Bits, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Unit and half of the int8 codes of a normalized weight, (1,) or (C_out,).

    Odd integers of 9 bits, as the grids without a zero have at 8 bits, are 2 (code + 1/2).
    """
    grids = [signed_grid(max(one, 1), scheme) for one in ([bits] if isinstance(bits, int) else bits)]
    wide = [grid.low < -(2**7) for grid in grids]
    with torch.inference_mode(False):
        units = torch.tensor([grid.unit * (2 if is_wide else 1) for grid, is_wide in zip(grids, wide, strict=True)])
        return units, torch.tensor(wide, dtype=torch.float32) / 2
