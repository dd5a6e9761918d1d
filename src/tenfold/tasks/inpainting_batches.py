"""Windows as tensors: what an inpainting network gets, and what its answer is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.models.tsam import NetworkArguments
from tenfold.tasks.inpainting_windows import PreparedWindow


class WindowTargets(NamedTuple):
    """What an answer is compared with.

    Args:
        truth: float32 (B, T, 3, H, W) in 0..1.
        given: the same with copied pixels in place and the rest filled smoothly.
        base: what the answer is added to: `given`, or zeros.
        rest: bool (B, T, 1, H, W), what the network has to fill.
        copied: bool (B, T, 1, H, W).
        flow: float32 (B, T-1, 2, H, W), from frame t to t+1.
        trusted: bool (B, T-1, 1, H, W), where to use it.
    """

    truth: Tensor
    given: Tensor
    base: Tensor
    rest: Tensor
    copied: Tensor
    flow: Tensor
    trusted: Tensor

    def painted(self, answer: Tensor) -> Tensor:
        """The frames as the network would have them everywhere, not clamped."""
        return self.base + answer

    def composited(self, answer: Tensor) -> Tensor:
        """The painted pixels where something was to be filled, and what was given elsewhere."""
        return torch.where(self.rest, self.painted(answer), self.given)

    def pair(self, answer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a discriminator compares: true frames, made ones, and what is known, (B, T, 1, H, W)."""
        return self.truth, self.composited(answer), (~self.rest).float()


def stack_windows(windows: Sequence[PreparedWindow], *, smooth_base: bool) -> tuple[NetworkArguments, WindowTargets]:
    """Inputs and targets of some windows of one length.

    Args:
        windows: at least one.
        smooth_base: whether the answer is added to the smooth filling.
    """
    truth, given = (_pictures([getattr(one, name) for one in windows]) for name in ("truth", "given"))
    rest, copied = (_masks([getattr(one, name) for one in windows]) for name in ("rest", "copied"))
    flow_fwd, flow_bwd = (
        _stacked([getattr(one, name) for one in windows]).float() for name in ("flow_fwd", "flow_bwd")
    )
    valid_fwd, valid_bwd = (_masks([getattr(one, name) for one in windows]) for name in ("valid_fwd", "valid_bwd"))
    inputs = NetworkArguments(
        given * ~rest, (~rest).float(), copied.float(), flow_fwd, flow_bwd, (~valid_fwd).float(), (~valid_bwd).float()
    )
    base = given if smooth_base else torch.zeros_like(given)
    return inputs, WindowTargets(truth, given, base, rest, copied, flow_fwd, valid_fwd)


def _stacked(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _pictures(arrays: Sequence[NDArray[np.uint8]]) -> Tensor:
    return _stacked(arrays).permute(0, 1, 4, 2, 3).float() / 255


def _masks(arrays: Sequence[NDArray[np.bool_]]) -> Tensor:
    return _stacked(arrays)[:, :, None]
