"""Setting clipping levels and batch-norm statistics from data, for a network that starts from trained float weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.quant.operators import MINIMUM_CLIPPING_LEVEL
from tenfold.quant.quantizers import ActivationQuantizer
from tenfold.quant.schemes import FLOAT_BITS, quantize_unit

_BINS = 2048
_CANDIDATES = 100


def calibrate(network: nn.Module, batches: Iterable[Tensor], *, levels: bool = True, norms: bool = True) -> None:
    """Set clipping levels, then batch-norm statistics, of a quantized network from real images.

    Each clipping level becomes the one with the smallest mean squared quantization error on a histogram of what reaches
    its quantizer while no activation is quantized. The running statistics of every batch norm are replaced by the plain
    average over the batches: before that, because the statistics of a fresh network, or of float weights, would let
    wrong values reach the quantizers; and after it, with all quantizers at work.

    Args:
        network: a quantized network; changed in place, its training mode restored.
        batches: batches of images (B, C, H, W); each goes through the network up to three times.
        levels: whether to set clipping levels.
        norms: whether to set batch-norm statistics.

    Raises:
        UsageError: if there is no batch.
    """
    batches = list(batches)
    if not batches:
        raise UsageError("calibration needs at least one batch of images; got none.")
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            if levels:
                hooks = [quantizer.register_forward_hook(_pass_input) for quantizer in _quantizers(network)]
                try:
                    if norms:
                        _set_norms(network.eval(), batches)
                    _set_levels(network.eval(), batches)
                finally:
                    for hook in hooks:
                        hook.remove()
            if norms:
                _set_norms(network.eval(), batches)
    finally:
        for module, training in modes.items():
            module.training = training


def _quantizers(network: nn.Module) -> list[ActivationQuantizer]:
    return [module for module in network.modules() if isinstance(module, ActivationQuantizer)]


def _pass_input(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
    """A hook that makes a quantizer transparent, so that the errors of earlier ones do not pile up."""
    return inputs[0]


def _set_levels(network: nn.Module, batches: list[Tensor]) -> None:
    """Choose all clipping levels; the quantizers are transparent meanwhile."""
    histograms = {quantizer: _Histogram() for quantizer in _quantizers(network)}

    def record(quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(quantizer, ActivationQuantizer)
        values = inputs[0].detach().float()
        histograms[quantizer].add(values.abs() if quantizer.layer.two_sided else values.clamp_min(0))

    hooks = [quantizer.register_forward_pre_hook(record) for quantizer in histograms]
    try:
        for batch in batches:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for quantizer, histogram in histograms.items():
        if histogram.top > 0 and quantizer.policy.bits != FLOAT_BITS:
            quantizer.alpha.fill_(max(histogram.best_level(quantizer), MINIMUM_CLIPPING_LEVEL))


class _Histogram:
    """Counts of magnitudes in equal bins; its range doubles when a larger value arrives."""

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS, dtype=torch.float64)
        self.top = 0.0

    def add(self, values: Tensor) -> None:
        largest = float(values.max())
        if self.top == 0:
            self.top = largest
        while largest > self.top > 0:
            self.counts = torch.cat((self.counts.view(-1, 2).sum(1), torch.zeros(_BINS // 2, dtype=torch.float64)))
            self.top *= 2
        if self.top > 0:
            self.counts += torch.histc(values.cpu(), _BINS, 0, self.top).double()

    def best_level(self, quantizer: ActivationQuantizer) -> float:
        centers = (torch.arange(_BINS, dtype=torch.float64) + 0.5) * (self.top / _BINS)
        used = float(centers[self.counts > 0].max())
        best, smallest = used, float("inf")
        layer, bits = quantizer.layer, quantizer.policy.bits
        for share in torch.linspace(1.0, 1.0 / _CANDIDATES, _CANDIDATES).tolist():
            level = used * share
            unit = (centers / level).clamp(max=1)
            if layer.two_sided:
                quantized = 2 * quantize_unit((unit + 1) / 2, bits, layer.a_scheme) - 1
            else:
                quantized = quantize_unit(unit, bits, layer.a_scheme)
            error = float((self.counts * (quantized * level - centers).square()).sum())
            if error < smallest:
                best, smallest = level, error
        return best


def _set_norms(network: nn.Module, batches: list[Tensor]) -> None:
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    try:
        for batch in batches:
            network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
