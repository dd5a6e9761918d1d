"""Gates that open or close a part of a network by comparing a norm with a threshold that is learned.

Source: Single-Path NAS (arXiv 1904.02877) and AutoNL (arXiv 2004.01961), `autonl.md` sections 4.1, 4.2 and 4.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOMENTUM = 0.01
"""Of the running means of norms and margins."""


def indicator(z: Tensor) -> Tensor:
    """1 where z >= 0, else 0; in the backward pass the slope of the sigmoid: sigma(z) (1 - sigma(z)).

    Source: the authors' code of Single-Path NAS, `autonl.md` section 4.2.

    Example:
        >>> indicator(torch.tensor([-0.1, 0.0, 2.0])).tolist()
        [0.0, 1.0, 1.0]
    """
    soft = torch.sigmoid(z)
    return (z >= 0).to(z.dtype) + (soft - soft.detach())


class Gate(nn.Module):
    """1 while a norm is at least as large as the threshold, else 0.

    In training the gate is 1[norm - threshold >= 0], relaxed in the backward pass. In evaluation the running mean of
    norm - threshold decides, so that no single batch does; a tie is closed.

    Args:
        smooth: take the running mean of the norm, for norms that are measured on each batch.

    Attributes:
        threshold: starts at 0, so that the gate is open.
        margin: running mean of norm - threshold.
        level: running mean of the norm, where it is measured.
        keep: probability that an open gate is kept open while training; what is kept is divided by it.
    """

    threshold: Tensor
    margin: Tensor
    level: Tensor
    updates: Tensor

    def __init__(self, *, smooth: bool = False) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))
        self.register_buffer("margin", torch.ones(()))
        self.register_buffer("level", torch.ones(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.smooth = smooth
        self.keep = 1.0

    def forward(self, norm: Tensor) -> Tensor:
        """How open the gate is (0-d), for a norm (0-d)."""
        if not self.training:
            return (self.margin > 0).to(norm.dtype)
        with torch.no_grad():
            weight = (1 / (self.updates + 1).float()).clamp(min=MOMENTUM)
            self.updates += 1
            self.level.lerp_(norm.detach().to(self.level.dtype), weight)
            norm_now = self.level if self.smooth else norm.to(self.margin.dtype)
            self.margin.lerp_(norm_now - self.threshold, weight)
        value = self.relaxed(norm)
        return F.dropout(value, 1 - self.keep) if self.keep < 1 else value

    def relaxed(self, norm: Tensor | None = None) -> Tensor:
        """How open the gate is now, without lot; differentiable in the threshold, and in the norm if that is computed.

        Args:
            norm: not needed where it is smoothed.
        """
        level = self.level.clone() if self.smooth or norm is None else norm
        return indicator(level - self.threshold)


class Choice(nn.Module):
    """One part that may be taken or left: undecided while it has a gate.

    A search decides by surgery: a part that is left is dropped from the network together with its `Choice`; of one that
    is taken only the gate is dropped, which leaves the identity in its place.

    Args:
        smooth: as of `Gate`.
    """

    def __init__(self, *, smooth: bool = False) -> None:
        super().__init__()
        self.gate: nn.Module = Gate(smooth=smooth)

    @property
    def is_open_for_good(self) -> bool:
        """Whether the search has decided to take it."""
        return not isinstance(self.gate, Gate)

    def forward(self, norm: Tensor) -> Tensor:
        """How open it is (0-d): 1 for good once it is taken."""
        return torch.ones_like(norm) if self.is_open_for_good else self.gate(norm)

    def relaxed(self, norm: Tensor | None = None) -> Tensor:
        """As `Gate.relaxed`."""
        return self.gate.relaxed(norm) if isinstance(self.gate, Gate) else torch.ones(())
