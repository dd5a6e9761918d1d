"""Quantizing a whole network, and describing a quantized one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from tenfold.errors import UnknownNameError
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.layers import QuantConv2d, QuantLayer, QuantLinear, is_quantizable, quantize_layer
from tenfold.quant.schemes import Bits


def quantizable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every float layer that can be quantized, by name, in the order of definition.

    The projections inside `torch.nn.MultiheadAttention` are left out: it reads their weights without calling them, so a
    quantized twin would have no effect.
    """
    inside_attention = tuple(
        f"{name}." if name else ""
        for name, module in network.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    )
    return {
        name: module
        for name, module in network.named_modules()
        if is_quantizable(module) and not name.startswith(inside_attention)
    }


def quantize(network: nn.Module, schemes: Mapping[str, LayerScheme]) -> nn.Module:
    """Replace layers of a network, in place, by quantized ones that share their parameters.

    Args:
        network: any module.
        schemes: how to quantize each layer, by the layer's name; layers not named stay float.

    Returns:
        The network (its quantized twin if the network itself is one layer).

    Raises:
        UnknownNameError: if a name is not that of a convolution or linear layer.
        UsageError: if a layer is of a class that cannot be quantized.
    """
    modules = dict(network.named_modules())
    for name in schemes:
        if name not in modules:
            raise UnknownNameError("layer", name, quantizable_layers(network))
    for name, scheme in schemes.items():
        twin = quantize_layer(modules[name], scheme)
        if not name:
            return twin
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, twin)
    return network


def fix_bits(network: nn.Module, bits: Mapping[str, tuple[Bits, Bits]]) -> None:
    """Give quantized layers other bits, for good: policies that learn or switch are replaced.

    Args:
        network: quantized; changed in place.
        bits: (weight bits, input bits) by the layer's name.
    """
    for name, layer in quantized_layers(network):
        if name in bits:
            layer.use_scheme(replace(layer.layer, w_bits=bits[name][0], a_bits=bits[name][1]))


def quantized_layers(network: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    """Every quantized layer with its name, in the order of definition."""
    for name, module in network.named_modules():
        if isinstance(module, QuantConv2d | QuantLinear):
            yield name, module


def describe(network: nn.Module) -> dict[str, LayerScheme]:
    """How each quantized layer is quantized; `quantize` on a fresh float network with this rebuilds it."""
    return {name: layer.layer for name, layer in quantized_layers(network)}
