"""Quantizers, bit policies, quantized layers, and swapping them into any module."""

from tenfold.quant.bits import BitPolicy, FixedBits, bits_text, simplest
from tenfold.quant.calibration import calibrate, measure_norms, start_levels
from tenfold.quant.channels import ChannelPath, channel_paths
from tenfold.quant.constant_channels import pruned_kernels
from tenfold.quant.cutting import cut_channels
from tenfold.quant.engine import (
    INTEGERS,
    IntegerEngine,
    engine_report,
    missing_instructions,
    use_engine,
    why_simulated,
)
from tenfold.quant.fractional import FractionalBits
from tenfold.quant.interpolation import interpolate_activation, interpolate_weight
from tenfold.quant.layer_scheme import LayerScheme
from tenfold.quant.layers import QuantConv2d, QuantLayer, QuantLinear
from tenfold.quant.operators import quantize_activation, quantize_weight
from tenfold.quant.quant_product import QuantProduct
from tenfold.quant.quantizers import ActivationQuantizer, IntegerWeight, WeightQuantizer, fan_out
from tenfold.quant.removal import remove_channels
from tenfold.quant.schemes import FLOAT_BITS, SCHEMES, Bits, Grid, narrowest, widest
from tenfold.quant.survey import LayerFacts, survey
from tenfold.quant.swap import (
    QuantPart,
    activation_quantizers,
    describe,
    fix_bits,
    layers_left_in_float,
    quantizable_layers,
    quantizable_products,
    quantize,
    quantized_layers,
    quantized_parts,
    quantizers_of,
)
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
    "INTEGERS",
    "SCHEMES",
    "ActivationQuantizer",
    "BitPolicy",
    "Bits",
    "ChannelPath",
    "FixedBits",
    "FractionalBits",
    "Grid",
    "IntegerEngine",
    "IntegerWeight",
    "LayerFacts",
    "LayerScheme",
    "QuantConv2d",
    "QuantLayer",
    "QuantLinear",
    "QuantPart",
    "QuantProduct",
    "Switch",
    "SwitchableBatchNorm",
    "SwitchedBits",
    "WeightQuantizer",
    "activation_quantizers",
    "available_bits",
    "bits_text",
    "calibrate",
    "channel_paths",
    "cut_channels",
    "describe",
    "describe_switch",
    "engine_report",
    "fan_out",
    "find_switch",
    "fix_bits",
    "interpolate_activation",
    "interpolate_weight",
    "layers_left_in_float",
    "make_switchable",
    "measure_norms",
    "missing_instructions",
    "narrowest",
    "pruned_kernels",
    "quantizable_layers",
    "quantizable_products",
    "quantize",
    "quantize_activation",
    "quantize_weight",
    "quantized_layers",
    "quantized_parts",
    "quantizers_of",
    "remove_channels",
    "restore_switch",
    "set_bits",
    "simplest",
    "start_levels",
    "survey",
    "use_engine",
    "why_simulated",
    "widest",
]
