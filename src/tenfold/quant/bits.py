"""Bit policies: which bits a quantizer uses now.

A quantizer turns (tensor, integer bits) into a tensor and knows nothing of policies; a policy decides with which bits
to call it, and mixes the results where there are several. So one layer serves a fixed bit-width (SAT, plain QAT), one
of a list with private clipping levels (AdaBits), and a learned real number between two integers (FracBits).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tenfold.quant.schemes import check_bits


class BitPolicy(nn.Module):
    """Decides the bits of one quantizer.

    A policy may own parameters (learned bits) or state (the active entry of a list). Policies may be shared.
    """

    def quantize(self, quantizer: Callable[[int], Tensor]) -> Tensor:
        """Call `quantizer` with integer bits, once or more, and return its result or a mixture of its results."""
        raise NotImplementedError

    @property
    def bits(self) -> int:
        """The bits that count for costs and for export: an integer; a policy that learns reports what it rounds to."""
        raise NotImplementedError

    @property
    def slot(self) -> int:
        """Index of the private state (clipping level, batch norm) of the current bits; 0 if there is only one."""
        return 0


class FixedBits(BitPolicy):
    """The same integer bit-width always (SAT and plain quantization-aware training).

    Args:
        bits: 1 to 8, or 32 for no quantization.

    Raises:
        UsageError: for any other number.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self._bits = check_bits(bits, "a bit-width")

    def quantize(self, quantizer: Callable[[int], Tensor]) -> Tensor:
        """Call the quantizer with the fixed bits."""
        return quantizer(self._bits)

    @property
    def bits(self) -> int:
        """The fixed bits."""
        return self._bits

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        return str(self._bits)
