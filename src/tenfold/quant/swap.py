"""Quantizing a whole network, and describing a quantized one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from tenfold.errors import UnknownNameError
from tenfold.products import HeadMixing, Product
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.layers import QuantConv2d, QuantLayer, QuantLinear, is_quantizable, quantize_layer
from tenfold.quant.quant_product import QuantProduct
from tenfold.quant.quantizers import ActivationQuantizer, WeightQuantizer
from tenfold.quant.schemes import Bits

QuantPart: TypeAlias = QuantLayer | QuantProduct
"""What is quantized by itself: a layer, or a product of two activations."""


def quantizable_layers(network: nn.Module, *, head_mixing: bool = False) -> dict[str, nn.Module]:
    """Every float layer that can be quantized, by name, in the order of definition.

    The projections inside `torch.nn.MultiheadAttention` are left out: it reads their weights without calling them, so a
    quantized twin would have no effect.

    Args:
        network: any module.
        head_mixing: whether the mixing of attention maps belongs to them; it goes with the products of attention.
    """
    inside_attention = tuple(
        f"{name}." if name else ""
        for name, module in network.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    )
    return {
        name: module
        for name, module in network.named_modules()
        if is_quantizable(module)
        and (head_mixing or not isinstance(module, HeadMixing))
        and not name.startswith(inside_attention)
    }


def layers_left_in_float(network: nn.Module) -> list[str]:
    """Convolutions and linear layers, by name, that cannot be quantized, as they compute something of their own.

    Those of Tenfold's own classes are left out of this list: they are meant to stay as they are.
    """
    known, kinds = quantizable_layers(network, head_mixing=True), (nn.modules.conv._ConvNd, nn.Linear)
    others = [(name, one) for name, one in network.named_modules() if isinstance(one, kinds) and name not in known]
    return [name for name, one in others if not type(one).__module__.startswith("tenfold.")]


def quantizable_products(network: nn.Module) -> dict[str, Product]:
    """Every float product of two activations that is a module, by name, in the order of definition."""
    return {name: module for name, module in network.named_modules() if type(module) is Product}


def quantize(network: nn.Module, schemes: Mapping[str, LayerScheme]) -> nn.Module:
    """Replace layers and products of a network, in place, by quantized ones that share their parameters.

    Args:
        network: any module.
        schemes: how to quantize each layer or product, by its name; those not named stay float.

    Returns:
        The network (its quantized twin if the network itself is one layer).

    Raises:
        UnknownNameError: if the network has nothing of a name.
        UsageError: if a layer is of a class that cannot be quantized.
    """
    modules = dict(network.named_modules())
    device = next((parameter.device for parameter in network.parameters()), None)
    for name in schemes:
        if name not in modules:
            raise UnknownNameError("layer", name, quantizable_layers(network))
    for name, scheme in schemes.items():
        module = modules[name]
        is_product = type(module) is Product
        twin: QuantPart = QuantProduct(scheme).to(device) if is_product else quantize_layer(module, scheme)
        if not name:
            return twin
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, twin)
    return network


def fix_bits(network: nn.Module, bits: Mapping[str, tuple[Bits, Bits]]) -> None:
    """Give quantized layers and products other bits, for good: policies that learn or switch are replaced.

    Args:
        network: quantized; changed in place.
        bits: (weight bits, input bits) by the layer's name.
    """
    for name, layer in quantized_parts(network):
        if name in bits:
            layer.use_scheme(replace(layer.layer, w_bits=bits[name][0], a_bits=bits[name][1]))


def quantized_layers(network: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    """Every layer with quantized weights and its name, in the order of definition."""
    for name, module in network.named_modules():
        if isinstance(module, QuantConv2d | QuantLinear):
            yield name, module


def quantized_parts(network: nn.Module) -> Iterator[tuple[str, QuantPart]]:
    """Every quantized layer and every quantized product with its name, in the order of definition."""
    for name, module in network.named_modules():
        if isinstance(module, QuantConv2d | QuantLinear | QuantProduct):
            yield name, module


def activation_quantizers(network: nn.Module) -> dict[str, ActivationQuantizer]:
    """Every quantizer of activations: a layer's under its name, a product's as "NAME left" and "NAME right"."""
    found: dict[str, ActivationQuantizer] = {}
    for name, part in quantized_parts(network):
        if isinstance(part, QuantProduct):
            found[f"{name} left"], found[f"{name} right"] = part.left_quantizer, part.right_quantizer
        elif part.input_quantizer is not None:
            found[name] = part.input_quantizer
    return found


def quantizers_of(part: QuantPart) -> tuple[WeightQuantizer | ActivationQuantizer, ActivationQuantizer | None]:
    """Those of a part: first of the weights, or of the right operand, then of the input, or of the left operand."""
    if isinstance(part, QuantProduct):
        return part.right_quantizer, part.left_quantizer
    return part.weight_quantizer, part.input_quantizer


def describe(network: nn.Module) -> dict[str, LayerScheme]:
    """How each layer and product is quantized; `quantize` on a fresh float network with this rebuilds it."""
    return {name: part.layer for name, part in quantized_parts(network)}
