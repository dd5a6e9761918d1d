"""Setting clipping levels and batch-norm statistics from data, for a network that starts from trained float weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tenfold.batches import Inputs, call
from tenfold.errors import UsageError
from tenfold.modes import evaluating
from tenfold.quant.operators import MINIMUM_CLIPPING_LEVEL
from tenfold.quant.quantizers import ActivationQuantizer
from tenfold.quant.schemes import FLOAT_BITS, quantize_unit, widest
from tenfold.quant.swap import quantized_layers

_BINS = 2048
_CANDIDATES = 100


def calibrate(network: nn.Module, batches: Iterable[Inputs], *, levels: bool = True, norms: bool = True) -> None:
    """Set clipping levels, then batch-norm statistics, of a quantized network from real images.

    Each clipping level becomes the one with the smallest mean squared quantization error on a histogram of what reaches
    its quantizer while no activation is quantized.

    Where weights keep their scale (`clamp=False`), the stored statistics come from a whole training, and know more than
    a few batches: they are moved by as much as quantization moves those of the batches. Elsewhere tanh has changed the
    weights, and the statistics become the averages over the batches: before the levels are set, because wrong ones
    would let wrong values reach the quantizers, and after it, with all quantizers at work.

    Only batch norms that run are touched, so those of other bit-widths stay as they are.

    Args:
        network: a quantized network; changed in place, its training mode restored.
        batches: batches of inputs, such as images (B, C, H, W); each goes through the network up to three times.
        levels: whether to set clipping levels.
        norms: whether to set batch-norm statistics.

    Raises:
        UsageError: if there is no batch.
    """
    batches = list(batches)
    if not batches:
        raise UsageError("calibration needs at least one batch of images; got none.")
    modes = {module: module.training for module in network.modules()}
    keeps_scale = not any(layer.layer.clamp for _, layer in quantized_layers(network))
    weights = [layer.weight_quantizer for _, layer in quantized_layers(network)]
    try:
        with torch.no_grad():
            network.eval()
            if norms and keeps_scale:
                stored = {norm: (norm.running_mean.clone(), norm.running_var.clone()) for norm in _norms(network)}
                with _transparent([*weights, *_quantizers(network)]):
                    before = _statistics(network, batches)
                _restore(stored)
            if levels:
                with _transparent(_quantizers(network)):
                    if norms and not keeps_scale:
                        _statistics(network, batches)
                    _set_levels(network, batches, _quantizers(network))
            if norms:
                after = _statistics(network, batches)
                if keeps_scale:
                    _restore({norm: _moved(stored[norm], before[norm], after[norm]) for norm in after})
    finally:
        for module, training in modes.items():
            module.training = training


def start_levels(network: nn.Module, images: Inputs, quantizers: Collection[ActivationQuantizer]) -> None:
    """Let some clipping levels start where a batch has the smallest quantization error; all else stays as it is.

    The papers start at 8 and 10, and a training moves a level by hundredths a step. What a layer norm, a softmax or a
    GELU gives is so much smaller that few of the levels would ever be used.

    Args:
        network: quantized, before its training.
        images: a batch, such as images (B, C, H, W).
        quantizers: of the network, those whose levels are to be set.
    """
    if not quantizers:
        return
    kept = {norm: {name: value.clone() for name, value in norm.state_dict().items()} for norm in _norms(network)}
    with evaluating(network), torch.no_grad(), _transparent(_quantizers(network)):
        _statistics(network, [images])
        _set_levels(network, [images], quantizers)
    for norm, state in kept.items():
        norm.load_state_dict(state)
    for quantizer in quantizers:
        quantizer.initial_level = quantizer.level


def measure_norms(network: nn.Module, batches: Iterable[Inputs]) -> None:
    """Set the statistics of every batch norm that runs to the plain averages over training images.

    For networks whose statistics do not belong to their weights: averages of weights, or what a search has cut out.

    Args:
        network: float or quantized; changed in place, its training mode restored.
        batches: batches of inputs, such as images (B, C, H, W).
    """
    with evaluating(network), torch.no_grad():
        _statistics(network, list(batches))


def _quantizers(network: nn.Module) -> list[ActivationQuantizer]:
    return [module for module in network.modules() if isinstance(module, ActivationQuantizer)]


@contextmanager
def _transparent(quantizers: Sequence[nn.Module]) -> Iterator[None]:
    """Let quantizers pass their input on as it is, so that the errors of earlier ones do not pile up."""
    hooks = [quantizer.register_forward_hook(lambda _, inputs, __: inputs[0]) for quantizer in quantizers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _set_levels(network: nn.Module, batches: list[Inputs], quantizers: Collection[ActivationQuantizer]) -> None:
    """Choose clipping levels; the quantizers are transparent meanwhile."""
    histograms = {quantizer: _Histogram() for quantizer in quantizers}

    def record(quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(quantizer, ActivationQuantizer)
        values = inputs[0].detach().float()
        histograms[quantizer].add(values.abs() if quantizer.layer.two_sided else values.clamp_min(0))

    hooks = [quantizer.register_forward_pre_hook(record) for quantizer in histograms]
    try:
        for batch in batches:
            call(network, batch)
    finally:
        for hook in hooks:
            hook.remove()
    for quantizer, histogram in histograms.items():
        if histogram.top > 0 and widest(quantizer.policy.bits) != FLOAT_BITS:
            quantizer.active_alpha.fill_(max(histogram.best_level(quantizer), MINIMUM_CLIPPING_LEVEL))


class _Histogram:
    """Counts of magnitudes in equal bins; its range doubles when a larger value arrives."""

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS, dtype=torch.float64)
        self.top = 0.0

    def add(self, values: Tensor) -> None:
        if not values.numel():  # a layer of a detector may see nothing in a batch
            return
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
        layer, bits = quantizer.layer, max(1, widest(quantizer.policy.bits))
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


_Statistics: TypeAlias = tuple[Tensor, Tensor]


def _norms(network: nn.Module) -> list[Any]:
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]


def _statistics(network: nn.Module, batches: Sequence[Inputs]) -> dict[Any, _Statistics]:
    """Set the statistics of every batch norm that runs to the plain averages over the batches, and return them.

    Each batch is normalized by its own statistics on the way, so that later ones see what they will see in the end.
    """
    norms, found = _norms(network), {}
    stored = {
        norm: (norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()) for norm in norms
    }
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    try:
        for batch in batches:
            call(network, batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
            if norm.num_batches_tracked:
                found[norm] = norm.running_mean.clone(), norm.running_var.clone()
            else:
                _restore({norm: stored[norm][:2]})
                norm.num_batches_tracked.copy_(stored[norm][2])
    return found


def _moved(stored: _Statistics, before: _Statistics, after: _Statistics) -> _Statistics:
    """Stored statistics after the change that leads from `before` to `after`."""
    change = after[1] / before[1].clamp_min(torch.finfo(torch.float32).tiny)
    return stored[0] + after[0] - before[0], stored[1] * change


def _restore(statistics: Mapping[Any, _Statistics]) -> None:
    for norm, (mean, variance) in statistics.items():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
