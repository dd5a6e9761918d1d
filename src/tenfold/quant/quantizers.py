"""Quantizers as modules: they hold a bit policy, and PACT its clipping level."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.quant.bits import BitPolicy, FixedBits
from tenfold.quant.interpolation import interpolate_activation, interpolate_weight
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.operators import (
    MINIMUM_CLIPPING_LEVEL,
    quantize_activation,
    quantize_weight,
    round_weight,
    squash,
    standard_deviation,
    weight_peak,
)
from tenfold.quant.schemes import FLOAT_BITS, signed_grid


def fan_out(weight: Tensor) -> int:
    """C_out k_h k_w of a weight (C_out, C_in / groups, k_h, k_w), or C_out of (C_out, C_in)."""
    return weight.shape[0] * weight[0, 0].numel() if weight.dim() > 2 else weight.shape[0]


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

    Attributes:
        pinned_peak: a weight that goes on to count in the maximum although it was cut away, (1, 1, …), or (C_out, 1, …)
            with one maximum per channel; or None. See `pin`.
        pinned_factor: the scale adjustment at each slot of the policy, where it is no longer computed; or None.
        normalized: the weight behind tanh and maximum, where several passes share it; or None.
    """

    pinned_peak: Tensor | None
    pinned_factor: Tensor | None

    def __init__(self, layer: LayerScheme) -> None:
        super().__init__()
        self.layer = layer
        self.policy: BitPolicy = FixedBits(layer.w_bits)
        self.normalized: Tensor | None = None
        self.register_buffer("pinned_peak", None)
        self.register_buffer("pinned_factor", None)

    @torch.no_grad()
    def pin(self, weight: Tensor, factor: Tensor | None) -> None:
        """Keep the normalization of a weight from which parts will be cut away, so that what remains stays as it is.

        Its largest element keeps its part in the maximum: it becomes a buffer, and is normalized along with the weight.
        (A number to divide by would have to enter the operators, and their gradient; so nothing changes in them, and a
        weight that grows beyond it in further training becomes the maximum as usual.)

        Args:
            weight: before the cut, (C_out, …).
            factor: what `factor` gives for it, at each slot of the policy, (slots,); None without scale adjustment.
        """
        whole = self._whole(weight)
        rows = whole.flatten(1) if self.layer.per_channel else whole.reshape(1, -1)
        # tanh is not monotonic to the last bit, so its maximum is sought among its values.
        magnitude = (squash(rows) if self.layer.clamp else rows).abs()
        largest = rows.gather(1, magnitude.argmax(1, keepdim=True))
        self.pinned_peak = largest.view(-1, *[1] * (weight.dim() - 1)).clone()
        self.pinned_factor = factor

    def _whole(self, weight: Tensor) -> Tensor:
        """The weight, with one more input channel if there is a pinned peak."""
        if self.pinned_peak is None:
            return weight
        peak = self.pinned_peak.to(weight).expand(len(weight), 1, *weight.shape[2:])
        return torch.cat([weight, peak], 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Buffers that are None would not be loaded; a network that is built anew has no pins yet.
        for name in ("pinned_peak", "pinned_factor"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, weight: Tensor) -> Tensor:
        """The quantized weight, float32, before the scale adjustment."""
        return self.at(weight, self.policy.active)

    def at(self, weight: Tensor, bits: int | Tensor) -> Tensor:
        """The quantized weight at so many bits; see `BitPolicy.active`."""
        whole = self._whole(weight)
        quantized = self._quantized(whole, bits)
        return quantized if whole is weight else quantized[:, :-1]

    def _quantized(self, weight: Tensor, bits: int | Tensor) -> Tensor:
        layer = self.layer
        if isinstance(bits, Tensor):
            options = (layer.scheme, layer.per_channel, layer.clamp, self.policy.upper_is_next)
            return interpolate_weight(weight, bits, *options)
        if bits == FLOAT_BITS and not layer.clamp:
            return weight
        if self.normalized is not None:
            return round_weight(self.normalized, bits, layer.scheme)
        return quantize_weight(weight, bits, layer.scheme, layer.per_channel, layer.clamp)

    @contextmanager
    def sharing_normalization(self, weight: Tensor) -> Iterator[None]:
        """Within this context, normalize the weight once for all forward passes and all bit-widths.

        Backward passes add up the gradient of the normalized weight; at the end it goes through tanh and the maximum
        once, as both are the same for every bit-width (AdaBits: the gradients of several passes are summed anyway).
        """
        if not self.layer.clamp:  # then there is no tanh to share
            yield
            return
        whole = self._whole(weight)
        normalized = quantize_weight(whole, FLOAT_BITS, self.layer.scheme, self.layer.per_channel, True)
        self.normalized = normalized.detach().requires_grad_(weight.requires_grad)
        try:
            yield
        finally:
            gradient, self.normalized = self.normalized.grad, None
        if gradient is not None:
            normalized.backward(gradient)

    def factor(self, quantized: Tensor, weight: Tensor) -> Tensor | None:
        """The constant that the quantized weight is multiplied by, or None (SAT; no gradient flows through it).

        "constant": 1 / sqrt(n_hat VAR[Q]), n_hat the fan-out C_out k_h k_w, groups ignored. "stddev": std(W) / std(Q).
        """
        if self.layer.rescale == "none":
            return None
        if self.pinned_factor is not None:
            return self.pinned_factor[self.policy.slot].to(quantized.device)
        return self.adjustment(standard_deviation(quantized.detach().float()), weight)

    def adjustment(self, spread: Tensor, weight: Tensor) -> Tensor:
        """What `factor` is for a quantized weight of a standard deviation, 0-d."""
        deviation = spread.clamp_min(torch.finfo(torch.float32).eps)  # all codes may be equal
        if self.layer.rescale == "stddev":
            return weight.detach().float().std() / deviation
        return 1 / (deviation * fan_out(weight) ** 0.5)

    @torch.no_grad()
    def peak(self, weight: Tensor) -> Tensor | None:
        """What the quantized weight is multiplied by after rounding, 0-d or (C_out,); None with clamp, which does not.

        Args:
            weight: the float weight.
        """
        if self.layer.clamp:
            return None
        peak = weight_peak(self._whole(weight), self.layer.per_channel)
        return peak.flatten() if self.layer.per_channel else peak.squeeze()

    @torch.no_grad()
    def integers(self, weight: Tensor) -> IntegerWeight:
        """The effective weight as integers, exactly (`sat.md` section 8). Kernels of 0 bits have codes of 0."""
        bits = self.policy.bits
        if isinstance(bits, int):
            units = torch.tensor(signed_grid(bits, self.layer.scheme).unit, dtype=torch.float32, device=weight.device)
            quantized = self.at(weight, bits)
        else:
            grids = [signed_grid(max(one, 1), self.layer.scheme).unit for one in bits]
            units = torch.tensor(grids, dtype=torch.float32, device=weight.device)
            quantized = self.at(weight, torch.tensor(bits, dtype=torch.float32, device=weight.device))
        normalized, scale = quantized, units
        one_a_row = (-1, *[1] * (weight.dim() - 1))
        if (peak := self.peak(weight)) is not None:
            normalized, scale = quantized / peak.view(one_a_row), units * peak
        factor = self.factor(quantized, weight)
        codes = (normalized / units.view(one_a_row)).round().to(torch.int16)
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
        trailing: how many dimensions of the input come after the channels: 2 for convolutions, 0 for linear layers.
    """

    def __init__(self, layer: LayerScheme, level: float, trailing: int = 0) -> None:
        super().__init__()
        self.layer = layer
        self.trailing = trailing
        self.initial_level = level
        self.policy: BitPolicy = FixedBits(layer.a_bits)
        self.alpha = nn.Parameter(torch.tensor(float(level)))

    def forward(self, input: Tensor) -> Tensor:
        """The quantized input, float32, same shape."""
        layer, bits = self.layer, self.policy.active
        options = (layer.a_scheme, layer.two_sided, layer.calibrated)
        if isinstance(bits, int):
            return quantize_activation(input, self.active_alpha, bits, *options)
        bits = bits.view(-1, *[1] * self.trailing) if bits.dim() else bits
        return interpolate_activation(input, self.active_alpha, bits, *options, self.policy.upper_is_next)

    @property
    def active_alpha(self) -> Tensor:
        """The clipping level in use: `alpha`, or its entry for the current bits where each bit-width has its own."""
        return self.alpha if self.alpha.dim() == 0 else self.alpha[self.policy.slot]

    @property
    def level(self) -> float:
        """The clipping level as the operator uses it: positive, and not below the smallest one allowed."""
        return max(abs(float(self.active_alpha.detach())), MINIMUM_CLIPPING_LEVEL)

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        return (
            f"{'two-sided' if self.layer.two_sided else 'one-sided'}, {'CG-PACT' if self.layer.calibrated else 'PACT'}"
        )
