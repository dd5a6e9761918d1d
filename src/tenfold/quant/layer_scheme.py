"""How one layer is quantized, as data: what an artifact's header stores and what `quantize` needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from tenfold.errors import UnknownNameError, UsageError
from tenfold.quant.schemes import Bits, Scheme, check_bits, check_scheme, narrowest

Rescale = Literal["none", "constant", "stddev"]


@dataclass(frozen=True, kw_only=True)
class LayerScheme:
    """How one convolution or linear layer is quantized.

    Raises:
        UsageError: if a value is not allowed.
    """

    w_bits: Bits
    """Bits of the weights: 1 to 8, or 32; or 0 to 8 for each kernel."""
    a_bits: Bits
    """Bits of the layer's input: 1 to 8, or 32; or 0 to 8 for each channel."""
    scheme: Scheme = "original"
    """Grid of the weights."""
    a_scheme: Scheme = "original"
    """Grid of the input; every paper uses "original"."""
    per_channel: bool = False
    """One weight maximum per output channel instead of one per tensor."""
    clamp: bool = True
    """Whether tanh normalizes the weights (DoReFa); without it their scale stays (for post-training starts)."""
    rescale: Rescale = "none"
    """Scale adjustment of the quantized weight: SAT's "constant", "stddev", or "none"."""
    rescale_in_eval: bool = True
    """False gives the official linear layer: in eval mode its weight is unscaled and its bias divided by the factor."""
    two_sided: bool = False
    """Whether the input may be negative."""
    calibrated: bool = True
    """Gradient of the clipping level: CG-PACT (True) or PACT (False)."""
    pixels: bool = False
    """The input is the image itself: 8-bit by nature, so it counts with `a_bits` but is not quantized again."""

    def __post_init__(self) -> None:
        check_bits(self.w_bits, "w_bits")
        check_bits(self.a_bits, "a_bits")
        check_scheme(self.scheme, narrowest(self.w_bits))
        check_scheme(self.a_scheme, narrowest(self.a_bits))
        if self.rescale not in get_args(Rescale):
            raise UnknownNameError("rescale rule", self.rescale, get_args(Rescale))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; values at their default are left out."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerScheme:
        """The inverse of `to_dict`, for data from outside.

        Raises:
            UsageError: for an unknown or missing key, or a value of the wrong type.
        """
        known = {field.name: field for field in fields(cls)}
        for key, value in values.items():
            if key not in known:
                raise UnknownNameError("quantization setting", str(key), known)
            wanted = {"Bits": int, "bool": bool}.get(str(known[key].type), str)
            if type(value) is not wanted and not (wanted is int and isinstance(value, list | tuple)):
                raise UsageError(f"quantization setting {key!r} must be {wanted.__name__}, got {value!r}.")
        missing = {"w_bits", "a_bits"} - set(values)
        if missing:
            raise UsageError(f"a quantization setting lacks {', '.join(sorted(missing))}.")
        checked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**checked)
