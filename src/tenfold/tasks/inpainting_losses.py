"""Losses of video inpainting: reconstruction, and those of the TSAM authors (arXiv 2104.03507).

All take clips (B, T, C, H, W) and give one number. `known` is 1 where a pixel is known and 0 in holes, (B, T, 1, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def l1_by_area(painted: Tensor, truth: Tensor, known: Tensor, *, outside: float = 1.0) -> Tensor:
    """Mean absolute error inside the holes, plus that outside of them: small holes count as much as large ones.

    Source: STTN and its followers (`tsam.md` section 7).

    Args:
        painted: what the network gives, before known pixels are put back.
        truth: the intact clip.
        known: see above.
        outside: weight of the error outside; where there is no hole, or nothing but holes, its part is 0.
    """
    return _by_area((painted - truth).abs(), known, outside)


def l2_by_area(painted: Tensor, truth: Tensor, known: Tensor, *, outside: float = 1.0) -> Tensor:
    """As `l1_by_area`, of squared errors: what PSNR is judged by."""
    return _by_area((painted - truth).square(), known, outside)


def _by_area(error: Tensor, known: Tensor, outside: float) -> Tensor:
    hole = (1 - known).expand_as(error)
    inside = (error * hole).sum() / hole.sum().clamp(min=1)
    around = (error * (1 - hole)).sum() / (1 - hole).sum().clamp(min=1)
    return inside + outside * around


def reconstruction(painted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error over all pixels: the authors' "recon"."""
    return F.l1_loss(painted, truth)


def masked_reconstruction(painted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Absolute error inside the holes, averaged over all pixels: the authors' "masked recon"."""
    return ((1 - known) * (painted - truth)).abs().mean()


def perceptual(painted: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features, summed over levels.

    Args:
        painted: features of each level, (B, T, C, H, W); see `tenfold.tasks.perceptual.VggFeatures`.
        truth: those of the intact clip.
    """
    return torch.stack([F.l1_loss(one, other) for one, other in zip(painted, truth, strict=True)]).sum()


def style(painted: Sequence[Tensor], truth: Sequence[Tensor], *, per_sample: bool = True) -> Tensor:
    """Mean absolute difference of the correlations of features, each level half as heavy as the one before.

    Args:
        painted: features of each level, (B, T, C, H, W).
        truth: those of the intact clip.
        per_sample: correlate the channels of each sample; False also correlates samples with each other, as the
            authors' program does.
    """
    total = painted[0].new_zeros(())
    for level, (one, other) in enumerate(zip(painted, truth, strict=True), start=1):
        total = total + F.l1_loss(_gram(one, per_sample), _gram(other, per_sample)) / 2**level
    return total


def _gram(features: Tensor, per_sample: bool) -> Tensor:
    batch, _, channels, height, width = features.shape
    if per_sample:
        rows = features.flatten(3)  # (B, T, C, HW)
        return rows @ rows.transpose(2, 3) / (channels * height * width)
    rows = features.transpose(0, 1).flatten(1, 2).flatten(2)  # (T, BC, HW)
    return rows @ rows.transpose(1, 2) / (batch * channels * height * width)
