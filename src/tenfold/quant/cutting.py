"""Making layers smaller: the part of removing channels that changes shapes, and no values.

`remove_channels` describes what it has done by names and indices; from that description `cut_channels` makes a fresh
network of the same architecture as small, so that the state of the small one fits. Neither needs to look at the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.quant.bits import FixedBits
from tenfold.quant.channels import is_depthwise
from tenfold.quant.fractional import FractionalBits
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.layers import QuantConv2d, QuantLayer, QuantLinear
from tenfold.quant.schemes import Bits


def cut_channels(network: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """Give a fresh network the shapes that `remove_channels` gave to another of the same architecture, in place.

    The network may be float still, or quantized, with the bits of all channels or of those that remain. Descriptions of
    several removals are used one after another, in their order.

    Args:
        network: as it was before the removal.
        description: what `remove_channels` returned; may come from outside. "dropped" may name modules to
            take out whole: branches in a `ModuleDict`, and blocks that become the identity.

    Returns:
        The network.

    Raises:
        UsageError: if the description is damaged, or is of another network.
    """
    try:
        removed = {str(name): [int(one) for one in channels] for name, channels in description["removed"].items()}
        behind = {name: [str(one) for one in description["through"][name]] for name in removed}
        consumers = {name: [str(one) for one in description["consumers"][name]] for name in removed}
        biased = [str(name) for name in description["biased"]]
        dropped = [str(name) for name in description.get("dropped", ())]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the description of removed channels is damaged ({type(error).__name__}: {error})."
        ) from error
    with torch.no_grad():
        for name in biased:
            layer = _layer(network, name)
            if layer.bias is None:
                layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
        for name, channels in removed.items():
            producer = _layer(network, name)
            full = len(producer.weight)
            kept = _kept(name, channels, full)
            _keep_outputs(producer, kept, full)
            for carrier in behind[name]:
                _keep_carried(_part(network, carrier), carrier, kept, full)
            for consumer in consumers[name]:
                _keep_inputs(_layer(network, consumer), consumer, kept, full)
    for name in dropped:
        _drop(network, name)
    return network


def _drop(network: nn.Module, name: str) -> None:
    """Take out a module: a branch leaves its dictionary, anything else becomes the identity."""
    _part(network, name)
    parent_name, _, child = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    if not name:
        raise UsageError("the description of removed channels drops the whole network.")
    if isinstance(parent, nn.ModuleDict):
        del parent[child]
    else:
        setattr(parent, child, nn.Identity())


def _kept(name: str, removed: Sequence[int], full: int) -> Tensor:
    kept = sorted(set(range(full)) - set(removed))
    if not kept or len(kept) + len(removed) != full:
        raise UsageError(f"layer {name!r} has {full} channels; cannot remove the channels {list(removed)} from it.")
    return torch.tensor(kept)


def _part(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise UsageError(f"this {type(network).__name__} has no layer {name!r} to remove channels from.") from None


def _layer(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    layer = _part(network, name)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise UsageError(f"channels were removed from layer {name!r}, which is a {type(layer).__name__} here.")
    return layer


def _keep_outputs(layer: nn.Conv2d | nn.Linear, kept: Tensor, full: int) -> None:
    _keep(layer, "weight", kept)
    if layer.bias is not None:
        _keep(layer, "bias", kept)
    if isinstance(layer, nn.Conv2d):
        layer.out_channels = len(kept)
    else:
        layer.out_features = len(kept)
    if isinstance(layer, QuantConv2d | QuantLinear):
        peak = layer.weight_quantizer.pinned_peak
        if peak is not None and len(peak) == full:
            _keep(layer.weight_quantizer, "pinned_peak", kept)
        _use_scheme(layer, replace(layer.layer, w_bits=_shortened(layer.layer.w_bits, kept, full)))
        policy = layer.weight_quantizer.policy
        if isinstance(policy, FractionalBits) and policy.value.shape == (full,):
            _keep(policy, "value", kept)
            policy.frozen = None if policy.frozen is None else _shortened(policy.frozen, kept, full)


def _keep_inputs(layer: nn.Conv2d | nn.Linear, name: str, kept: Tensor, full: int) -> None:
    if layer.weight.shape[1] != full:
        raise UsageError(f"layer {name!r} reads {layer.weight.shape[1]} channels here, and not {full}.")
    _keep(layer, "weight", kept, dim=1)
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = len(kept)
    else:
        layer.in_features = len(kept)
    _keep_input_bits(layer, kept, full)


def _keep_carried(module: nn.Module, name: str, kept: Tensor, full: int) -> None:
    """Cut what has one entry for each channel: a depthwise convolution, or a batch norm with all its choices."""
    if isinstance(module, nn.Conv2d):
        if not is_depthwise(module) or len(module.weight) != full:
            raise UsageError(f"layer {name!r} is no depthwise convolution of {full} channels here.")
        _keep_outputs(module, kept, full)
        _keep_input_bits(module, kept, full)
        module.in_channels = module.groups = len(kept)
        return
    norms = [part for part in module.modules() if getattr(part, "num_features", None) == full]
    if not norms:
        raise UsageError(f"layer {name!r}, a {type(module).__name__}, is no batch norm of {full} channels here.")
    for norm in norms:
        for key, tensor in [*norm._parameters.items(), *norm._buffers.items()]:
            if tensor is not None and tensor.shape == (full,):  # not a scale that norms share, the second time
                _keep(norm, key, kept)
        norm.num_features = len(kept)  # type: ignore[assignment]


def _keep_input_bits(layer: nn.Module, kept: Tensor, full: int) -> None:
    if isinstance(layer, QuantConv2d | QuantLinear):
        _use_scheme(layer, replace(layer.layer, a_bits=_shortened(layer.layer.a_bits, kept, full)))


def _use_scheme(layer: QuantLayer, scheme: LayerScheme) -> None:
    """As `layer.use_scheme`, but bits that are switched stay switched: they are one number for all channels."""
    if scheme == layer.layer:
        return
    quantizers = [one for one in (layer.weight_quantizer, layer.input_quantizer) if one is not None]
    switched = [(one, one.policy) for one in quantizers if not isinstance(one.policy, FixedBits)]
    layer.use_scheme(scheme)
    for quantizer, policy in switched:
        quantizer.policy = policy


def _shortened(bits: Bits, kept: Tensor, full: int) -> Bits:
    """Bits of the channels that remain; a description of the small network may have given those already."""
    return tuple(bits[one] for one in kept.tolist()) if isinstance(bits, tuple) and len(bits) == full else bits


def _keep(module: nn.Module, name: str, kept: Tensor, dim: int = 0) -> None:
    """Cut a parameter, which stays the same object so that others still find it, or a buffer."""
    tensor = getattr(module, name)
    rest = tensor.detach().index_select(dim, kept.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        tensor.data, tensor.grad = rest, None
    else:
        setattr(module, name, rest)
