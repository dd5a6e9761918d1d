"""Quantizers, bit policies, quantized layers, and swapping them into any module."""

from tenfold.quant.bits import BitPolicy, FixedBits, bits_text, simplest
from tenfold.quant.calibration import calibrate, measure_norms, start_levels
from tenfold.quant.channels import ChannelPath, channel_paths
from tenfold.quant.constant_channels import pruned_kernels
from tenfold.quant.cutting import cut_channels
from tenfold.quant.fractional import FractionalBits
from tenfold.quant.interpolation import interpolate_activation, interpolate_weight
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.layers import QuantConv2d, QuantLayer, QuantLinear
from tenfold.quant.operators import quantize_activation, quantize_weight
from tenfold.quant.quantizers import ActivationQuantizer, IntegerWeight, WeightQuantizer
from tenfold.quant.removal import remove_channels
from tenfold.quant.schemes import FLOAT_BITS, SCHEMES, Bits, Grid, narrowest, widest
from tenfold.quant.survey import LayerFacts, survey
from tenfold.quant.swap import describe, fix_bits, quantizable_layers, quantize, quantized_layers
from tenfold.quant.switching import (
    Switch,
    SwitchableBatchNorm,
    SwitchedBits,
    available_bits,
    describe_switch,
    find_switch,
    make_switchable,
    restore_switch,
    set_bits,
)

__all__ = [
    "FLOAT_BITS",
    "SCHEMES",
    "ActivationQuantizer",
    "BitPolicy",
    "Bits",
    "ChannelPath",
    "FixedBits",
    "FractionalBits",
    "Grid",
    "IntegerWeight",
    "LayerFacts",
    "LayerScheme",
    "QuantConv2d",
    "QuantLayer",
    "QuantLinear",
    "Switch",
    "SwitchableBatchNorm",
    "SwitchedBits",
    "WeightQuantizer",
    "available_bits",
    "bits_text",
    "calibrate",
    "channel_paths",
    "cut_channels",
    "describe",
    "describe_switch",
    "find_switch",
    "fix_bits",
    "interpolate_activation",
    "interpolate_weight",
    "make_switchable",
    "measure_norms",
    "narrowest",
    "pruned_kernels",
    "quantizable_layers",
    "quantize",
    "quantize_activation",
    "quantize_weight",
    "quantized_layers",
    "remove_channels",
    "restore_switch",
    "set_bits",
    "simplest",
    "start_levels",
    "survey",
    "widest",
]
