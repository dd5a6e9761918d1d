"""Quantizers, bit policies, quantized layers, and swapping them into any module."""

from tenfold.quant.bits import BitPolicy, FixedBits
from tenfold.quant.calibration import calibrate
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.layers import QuantConv2d, QuantLayer, QuantLinear
from tenfold.quant.operators import quantize_activation, quantize_weight
from tenfold.quant.quantizers import ActivationQuantizer, IntegerWeight, WeightQuantizer
from tenfold.quant.schemes import FLOAT_BITS, SCHEMES, Grid
from tenfold.quant.survey import LayerFacts, survey
from tenfold.quant.swap import describe, quantizable_layers, quantize, quantized_layers

__all__ = [
    "FLOAT_BITS",
    "SCHEMES",
    "ActivationQuantizer",
    "BitPolicy",
    "FixedBits",
    "Grid",
    "IntegerWeight",
    "LayerFacts",
    "LayerScheme",
    "QuantConv2d",
    "QuantLayer",
    "QuantLinear",
    "WeightQuantizer",
    "calibrate",
    "describe",
    "quantizable_layers",
    "quantize",
    "quantize_activation",
    "quantize_weight",
    "quantized_layers",
    "survey",
]
