"""Bit policies: which bits a quantizer uses now.

A quantizer turns (tensor, bits) into a tensor and knows nothing of policies; a policy says with which bits. So one
layer serves a fixed bit-width (SAT, plain QAT), one of a list with private clipping levels (AdaBits), and a learned
real number between two integers (FracBits), for a layer or for each of its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tenfold.quant.schemes import Bits, check_bits


class BitPolicy(nn.Module):
    """Decides the bits of one quantizer.

    A policy may own parameters (learned bits) or share state (the position of a switch).
    """

    upper_is_next = False
    """For learned bits: what the upper neighbour of a whole number is; see `interpolate_weight`."""

    @property
    def active(self) -> int | Tensor:
        """The bits to quantize with now.

        An integer; or real numbers, a float tensor of shape () or (C,), which mean the linear interpolation between the
        two integers around each (FracBits). Gradients may flow into that tensor.
        """
        raise NotImplementedError

    @property
    def bits(self) -> Bits:
        """The bits that count for costs and for export: whole numbers; learned bits report what they round to."""
        raise NotImplementedError

    @property
    def whole(self) -> Bits | None:
        """The bits in use, if they are whole numbers that are not being learned; else None."""
        return None

    @property
    def slot(self) -> int:
        """Index of the private state (clipping level, batch norm) of the current bits; 0 if there is only one."""
        return 0


class FixedBits(BitPolicy):
    """The same bits always (SAT, plain quantization-aware training, and what FracBits ends with).

    Args:
        bits: 1 to 8, or 32 for no quantization; or one number of 0 to 8 for each channel.

    Raises:
        UsageError: for any other number.
    """

    def __init__(self, bits: Bits) -> None:
        super().__init__()
        self._bits = check_bits(bits, "a bit-width")
        channels = None if isinstance(bits, int) else torch.tensor(bits, dtype=torch.float32)
        self.register_buffer("channels", channels, persistent=False)

    @property
    def active(self) -> int | Tensor:
        """The fixed bits."""
        if isinstance(self._bits, int):
            return self._bits
        assert isinstance(self.channels, Tensor)
        return self.channels

    @property
    def bits(self) -> Bits:
        """The fixed bits."""
        return self._bits

    @property
    def whole(self) -> Bits | None:
        """The fixed bits."""
        return self._bits

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        return bits_text(self._bits)


def simplest(bits: Sequence[int]) -> Bits:
    """The bits of all channels, as one number if they are equal and there is something left to compute.

    Example:
        >>> simplest([4, 4, 4]), simplest([4, 2]), simplest([0, 0])
        (4, (4, 2), (0, 0))
    """
    first = bits[0]
    return first if first and all(one == first for one in bits) else tuple(bits)


def bits_text(bits: Bits) -> str:
    """Bits for people: "4", "float", or the range of several."""
    if isinstance(bits, int):
        return str(bits)
    return f"{min(bits)}…{max(bits)}"
