"""Learned bit-widths: a real number for a layer, or one for each of its channels.

Source: FracBits (arXiv 2007.02017), `fracbits.md` sections 2.1 and 2.6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tenfold.quant.bits import BitPolicy, simplest
from tenfold.quant.schemes import Bits


class FractionalBits(BitPolicy):
    """Bits that are learned as real numbers, and rounded and frozen in the end.

    Args:
        start: bits to start from; a list gives each channel its own.
        low: fewest bits; 0 prunes.
        high: most bits.
        minimum: bits that the result never falls below, whatever the range (first and last layer).
        upper_is_next: see `interpolate_weight`.
        passes_at_ends: whether numbers exactly at an end of the range get a gradient, as they must if `project` puts
            them there. The official code has torch.clamp's, which is 0 there.
        moves_together: whether each of several numbers gets the sum of all their gradients besides its own, and so
            takes part in what one number for the layer would do.

    Attributes:
        value: the learned numbers, () or (C,); they may leave the range, where no gradient reaches them.
        frozen: the whole numbers in force since `freeze`, or None while learning.
    """

    def __init__(
        self,
        start: float | Sequence[float],
        *,
        low: int = 2,
        high: int = 8,
        minimum: int = 0,
        upper_is_next: bool = False,
        passes_at_ends: bool = True,
        moves_together: bool = False,
    ) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.low, self.high, self.minimum = low, high, minimum
        self.upper_is_next = upper_is_next
        self.passes_at_ends = passes_at_ends
        self.moves_together = moves_together
        self.frozen: Bits | None = None

    @property
    def learned(self) -> Tensor:
        """The numbers in use, clipped to the range; outside of it they get no gradient."""
        value: Tensor = self.value
        if self.moves_together:
            value = value + (value.sum() - value.detach().sum())  # adds 0
        clipped = value.clamp(self.low, self.high).clamp(min=self.minimum)
        return torch.where(clipped == value, value, clipped) if self.passes_at_ends else clipped

    @property
    def active(self) -> int | Tensor:
        """The learned bits, or the frozen ones."""
        if isinstance(self.frozen, int):
            return self.frozen
        return self.value.detach() if self.frozen is not None else self.learned

    @property
    def bits(self) -> Bits:
        """The frozen bits, or what the learned ones round to now."""
        if self.frozen is not None:
            return self.frozen
        rounded = [int(one) for one in self.rounded().reshape(-1).tolist()]
        return simplest(rounded) if self.value.dim() else rounded[0]

    @property
    def whole(self) -> Bits | None:
        """The frozen bits, or None while learning."""
        return self.frozen

    @torch.no_grad()
    def rounded(self, offset: float = 0.0) -> Tensor:
        """The learned bits plus an offset, rounded half to even and brought into the range."""
        return (self.value + offset).round().clamp(self.low, self.high).clamp(min=self.minimum)

    @torch.no_grad()
    def freeze(self, bits: Tensor) -> None:
        """Use these whole numbers, of the shape of `value`, from now on; they are learned no more.

        The parameter stays, without gradient, so that optimisers and averages keep their order.
        """
        self.value.copy_(bits)
        self.value.requires_grad_(False)
        self.value.grad = None
        whole = [int(one) for one in bits.reshape(-1).tolist()]
        self.frozen = simplest(whole) if bits.dim() else whole[0]
        if self.frozen == 0:
            self.frozen = (0,)

    @torch.no_grad()
    def project(self) -> None:
        """Bring the numbers back into the range, where gradients reach them again."""
        self.value.clamp_(max(self.low, min(self.minimum, self.high)), self.high)

    def extra_repr(self) -> str:
        """Shown in `print(network)`."""
        return f"{self.low} to {self.high}" + ("" if self.frozen is None else ", frozen")
