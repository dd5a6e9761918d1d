"""Taking pruned kernels out of a network: it gets smaller and computes the same.

A kernel of zeros (0 bits, or weights that became zero) makes a channel that is the same whatever the image: the bias,
shifted by the batch norm, through the activation. Where its readers see zeros, it can go without a trace. Where they
see another constant, that constant times their weights goes into their bias, which is exact only if they do not pad the
map with zeros; else the channel stays.

Source: FracBits (arXiv 2007.02017), `fracbits.md` section 2.8.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.errors import UnknownNameError, UsageError
from tenfold.modes import evaluating
from tenfold.quant.channels import ChannelPath, Wiring, channel_layers, wiring
from tenfold.quant.constant_channels import (
    Seen,
    each_width,
    effective_weight,
    observe,
    pads_with_zeros,
    pruned_kernels,
)
from tenfold.quant.cutting import cut_channels
from tenfold.quant.fractional import FractionalBits
from tenfold.quant.swap import quantized_layers
from tenfold.quant.switching import SwitchableBatchNorm


def remove_channels(network: nn.Module, example: Tensor, dead: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Remove channels whose kernels are zero, in place, where the outputs in eval mode stay the same.

    With each channel go its kernel, its entries in batch norms, its kernels in depthwise convolutions behind, and the
    weights of the layers that read it. Quantizers keep the normalization that they had (`WeightQuantizer.pin`), so that
    the weights that remain keep their values. Parameters stay the same objects with less in them, but an optimiser's
    state is not cut. At least one channel of each layer stays, and so does every channel whose way is not known
    (`channel_paths`), or that reaches a layer that pads with zeros as another constant than zero.

    Args:
        network: float, or quantized with fixed or switched bits.
        example: a batch of its inputs, (B, C, H, W), on the network's device. Two images are enough.
        dead: indices of output channels by layer, such as `pruned_kernels` finds. A kernel of a depthwise convolution
            takes the channel of the layer before with it.

    Returns:
        What was removed, as JSON values; `cut_channels` does the same to a fresh network. "removed" has the indices by
        producer, "through" and "consumers" the names of the layers behind it, "biased" the layers that got a bias.

    Raises:
        UnknownNameError: if `dead` names a layer that is not there.
        UsageError: if a kernel in `dead` is not zero, or bits of the network are still learned.

    Example:
        >>> description = remove_channels(network, images, pruned_kernels(network))  # doctest: +SKIP
    """
    _check(network, dead)
    known = wiring(network, example)
    with evaluating(network), torch.no_grad():
        seen = observe(network, example[:2], {name for path in known.paths.values() for name in path.readers})
        found = {name: _removable(network, path, dead, seen) for name, path in known.paths.items()}
        plan = {name: channels for name, channels in found.items() if channels}
        if plan and not _still_runs(network, example, known, plan):
            # Code somewhere names a number of channels; what does not concern it can go nevertheless.
            plan = {one: plan[one] for one in plan if _still_runs(network, example, known, {one: plan[one]})}
        return _remove(network, known, plan, seen)


def _check(network: nn.Module, dead: Mapping[str, Sequence[int]]) -> None:
    for name, layer in quantized_layers(network):
        if any(isinstance(module, FractionalBits) for module in layer.modules()):
            raise UsageError(f"the bits of layer {name!r} are still learned; fix them first (tenfold.quant.fix_bits).")
    layers, zeros = channel_layers(network), pruned_kernels(network)
    for name, channels in dead.items():
        if name not in layers:
            raise UnknownNameError("layer", name, layers)
        wrong = sorted(set(channels) - set(zeros.get(name, ())))
        if wrong:
            raise UsageError(
                f"kernels {wrong} of layer {name!r} are not zero, so that removing them would change what the network "
                "computes. Give what pruned_kernels(network) finds."
            )


def _removable(
    network: nn.Module, path: ChannelPath, dead: Mapping[str, Sequence[int]], seen: Mapping[str, Seen]
) -> list[int]:
    """The dead channels of a path that no reader would miss; one less where all would go."""
    has_one_width = len(list(each_width(network))) == 1

    def takes_constants(name: str) -> bool:
        # A bias is one for all widths, what a constant adds to the output is not.
        return has_one_width and not pads_with_zeros(network.get_submodule(name))

    def is_known(channel: int, route: Sequence[str]) -> bool:
        """Whether a channel is constant from somewhere on a route, and all layers from there on can do without it."""
        *makers, _ = route
        starts = [index for index, name in enumerate(makers) if channel in dead.get(name, ())]
        readers = route[starts[0] + 1 :] if starts else ()
        return bool(starts) and all(
            seen[name].is_zero(channel) or (takes_constants(name) and seen[name].is_constant(channel))
            for name in readers
        )

    candidates = {int(channel) for route in path.routes for name in route[:-1] for channel in dead.get(name, ())}
    removable = [channel for channel in sorted(candidates) if all(is_known(channel, route) for route in path.routes)]
    return removable[1:] if len(removable) == _width(network, path.producer) else removable


def _width(network: nn.Module, name: str) -> int:
    weight = network.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return len(weight)


def _remove(
    network: nn.Module, known: Wiring, plan: Mapping[str, list[int]], seen: Mapping[str, Seen]
) -> dict[str, Any]:
    constants: dict[str, Tensor] = {}
    for producer, channels in plan.items():
        for consumer in known.paths[producer].consumers:
            constants[consumer] = torch.zeros_like(seen[consumer].low)
            constants[consumer][channels] = seen[consumer].constants[channels]
    biased = [name for name, values in constants.items() if _absorb(network, known, name, values)]
    _pin(network, {name for producer in plan for route in known.paths[producer].routes for name in route})
    description = _described(known, plan, biased)
    cut_channels(network, description)
    return description


def _described(known: Wiring, plan: Mapping[str, list[int]], biased: Iterable[str]) -> dict[str, Any]:
    return {
        "removed": {name: list(channels) for name, channels in plan.items()},
        "through": {name: list(known.paths[name].carriers) for name in plan},
        "consumers": {name: list(known.paths[name].consumers) for name in plan},
        "biased": list(biased),
    }


def _absorb(network: nn.Module, known: Wiring, name: str, constants: Tensor) -> bool:
    """Keep in a layer what constant input channels, (C_in,), add to its output; returns whether it got a bias for it.

    The mean of a batch norm behind is as good a place, and needs no new parameter.
    """
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if not constants.any():
        return False
    weight = effective_weight(layer).double()
    added = (weight.flatten(2).sum(2) if weight.dim() > 2 else weight) @ constants.double()
    added = added.to(layer.weight.dtype)
    norm = network.get_submodule(known.norms[name]) if name in known.norms else None
    norm = norm.choices[0] if isinstance(norm, SwitchableBatchNorm) else norm  # here there is one width only
    if layer.bias is not None:
        layer.bias += added
    elif isinstance(layer, nn.Conv2d) and norm is not None and isinstance(norm.running_mean, Tensor):
        norm.running_mean -= added
    else:
        layer.bias = nn.Parameter(added)
        return True
    return False


def _pin(network: nn.Module, names: set[str]) -> None:
    """Let the quantizers of layers keep their normalization."""
    layers = {name: layer for name, layer in quantized_layers(network) if name in names}
    factors: dict[str, list[Tensor]] = {name: [] for name in layers}
    for _ in each_width(network):
        for name, layer in layers.items():
            factor = layer.weight_quantizer.factor(layer.weight_quantizer(layer.weight), layer.weight)
            if factor is not None:
                factors[name].append(factor)
    for name, layer in layers.items():
        layer.weight_quantizer.pin(layer.weight, torch.stack(factors[name]) if factors[name] else None)


def _still_runs(network: nn.Module, example: Tensor, known: Wiring, plan: Mapping[str, list[int]]) -> bool:
    """Whether a copy of the network runs after the cut."""
    trial = cut_channels(copy.deepcopy(network), _described(known, plan, ()))
    try:
        trial(example[:2])
    except Exception:  # of any kind: it is the network's own code that fails
        return False
    return True
