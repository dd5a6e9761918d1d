"""Quantizers as modules: they hold a bit policy, and PACT its clipping level."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tenfold.quant.bits import BitPolicy, FixedBits
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.operators import MINIMUM_CLIPPING_LEVEL, quantize_activation, quantize_weight, weight_peak
from tenfold.quant.schemes import FLOAT_BITS, Grid, signed_grid, unsigned_grid


@dataclass(frozen=True)
class IntegerWeight:
    """A quantized weight as integers: `codes * scale` is the effective weight.

    Attributes:
        codes: int16, shape of the weight; zero point 0.
        scale: float32, 0-d or (C_out,).
    """

    codes: Tensor
    scale: Tensor


class WeightQuantizer(nn.Module):
    """Turns a float weight into the effective one: normalize, quantize, adjust the scale.

    Source: `sat.md` sections 2.1 and 2.2.
    """

    def __init__(self, layer: LayerScheme) -> None:
        super().__init__()
        self.layer = layer
        self.policy: BitPolicy = FixedBits(layer.w_bits)

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, float32, before the scale adjustment."""
        return self.policy.quantize(lambda bits: self.at(weight, bits))

    def at(self, weight: Tensor, bits: int) -> Tensor:
        """The quantized weight at an integer number of bits."""
        if bits == FLOAT_BITS and not self.layer.clamp:
            return weight
        return quantize_weight(weight, bits, self.layer.scheme, self.layer.per_channel, self.layer.clamp)

    def factor(self, quantized: Tensor, weight: Tensor) -> Tensor | None:
        """The constant that the quantized weight is multiplied by, or None (SAT; no gradient flows through it).

        "constant": 1 / sqrt(n_hat VAR[Q]), n_hat the fan-out C_out k_h k_w, groups ignored. "stddev": std(W) / std(Q).
        """
        if self.layer.rescale == "none":
            return None
        quantized, weight = quantized.detach().float(), weight.detach().float()
        spread = quantized.std(correction=min(1, quantized.numel() - 1))
        deviation = spread.clamp_min(torch.finfo(torch.float32).eps)  # all codes may be equal
        if self.layer.rescale == "stddev":
            return weight.std() / deviation
        fan_out = weight.shape[0] * weight[0, 0].numel() if weight.dim() > 2 else weight.shape[0]
        return 1 / (deviation * fan_out**0.5)

    @torch.no_grad()
    def integers(self, weight: Tensor) -> IntegerWeight:
        """The effective weight as integers, exactly (`sat.md` section 8)."""
        grid = signed_grid(self.policy.bits, self.layer.scheme)
        quantized = self.at(weight, self.policy.bits)
        scale = torch.tensor(grid.unit, dtype=torch.float32, device=weight.device)
        normalized = quantized
        if not self.layer.clamp:
            peak = weight_peak(weight, self.layer.per_channel)
            normalized, scale = quantized / peak, scale * (peak.flatten() if self.layer.per_channel else peak.squeeze())
        factor = self.factor(quantized, weight)
        codes = (normalized / grid.unit).round().to(torch.int16)
        return IntegerWeight(codes, scale if factor is None else scale * factor)

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        rescale = "" if self.layer.rescale == "none" else f", rescale={self.layer.rescale}"
        return f"{self.layer.scheme}{', per channel' if self.layer.per_channel else ''}{rescale}"


class ActivationQuantizer(nn.Module):
    """PACT: clips the input of a layer at a learnable level and quantizes it (`sat.md` section 2.3).

    Args:
        layer: how the layer is quantized.
        level: initial clipping level, in units of the input (in the papers 8 for convolutions, 10 for linear layers).
    """

    def __init__(self, layer: LayerScheme, level: float) -> None:
        super().__init__()
        self.layer = layer
        self.policy: BitPolicy = FixedBits(layer.a_bits)
        self.alpha = nn.Parameter(torch.tensor(float(level)))

    def forward(self, input: Tensor) -> Tensor:
        """The quantized input, float32, same shape."""
        layer = self.layer
        return self.policy.quantize(
            lambda bits: quantize_activation(
                input, self.active_alpha, bits, layer.a_scheme, layer.two_sided, layer.calibrated
            )
        )

    @property
    def active_alpha(self) -> Tensor:
        """The clipping level in use: `alpha`, or its entry for the current bits where each bit-width has its own."""
        return self.alpha if self.alpha.dim() == 0 else self.alpha[self.policy.slot]

    @property
    def level(self) -> float:
        """The clipping level as the operator uses it: positive, and not below the smallest one allowed."""
        return max(abs(float(self.active_alpha.detach())), MINIMUM_CLIPPING_LEVEL)

    def integer_grid(self) -> Grid:
        """The levels that the output can take, in units of the input."""
        grid = (signed_grid if self.layer.two_sided else unsigned_grid)(self.policy.bits, self.layer.a_scheme)
        return replace(grid, unit=grid.unit * self.level)

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        return (
            f"{'two-sided' if self.layer.two_sided else 'one-sided'}, {'CG-PACT' if self.layer.calibrated else 'PACT'}"
        )
