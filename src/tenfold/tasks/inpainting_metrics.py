"""How good filled video is, computed rightly; and in the authors' way, only to compare with what they print."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

from tenfold.errors import ShapeError
from tenfold.tasks.inpainting_batches import WindowTargets

MOST_DECIBELS = 100.0
"""The PSNR of frames that are equal."""


def decibels(squared_error: Tensor) -> Tensor:
    """PSNR of mean squared errors of values in 0..1, at most 100 dB."""
    return (-10 * torch.log10(squared_error.clamp_min(1e-12))).clamp_max(MOST_DECIBELS)


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Means of values (..., C, H, W) over the pixels of a mask (..., 1, H, W), NaN where it has none; (...)."""
    return (values * mask).sum((-3, -2, -1)) / (mask.sum((-3, -2, -1)) * values.shape[-3])


class FillingQuality(Metric):
    """Fidelity and steadiness of filled windows; every frame with something to fill counts the same.

    Frames are judged as they are saved: composited, clamped and rounded to 8 bits, errors in floating point. Gives
    `psnr_filled` and `ssim_filled` (of the pixels that the network filled), `psnr_smooth` (the same pixels filled
    smoothly instead), `psnr_hole` (with copied pixels), `psnr_frame`, `ssim_frame`, `warp_error` (mean squared
    difference between a frame and the next one moved onto it by trusted flow, times 1000), and the shares `coverage`
    of holes in frames and `never_visible` of holes that propagation left. SSIM has a Gaussian window of 11 pixels.
    """

    full_state_update = False
    higher_is_better = True

    _NAMES = ("psnr_filled", "ssim_filled", "psnr_smooth", "psnr_hole", "psnr_frame", "ssim_frame", "warp_error")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in (*self._NAMES, "coverage", "frames", "pairs", "rest", "hole", "pixels"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, answer: Tensor, targets: WindowTargets) -> None:
        """Count a batch.

        Args:
            answer: what the network gave, (B, T, 3, H, W).
            targets: of the batch.
        """
        made = rounded(targets.composited(answer))
        truth, smooth = targets.truth, rounded(targets.given)
        rest, hole = targets.rest, targets.rest | targets.copied
        shown = rest.any(-1).any(-1).any(-1)  # (B, T)
        squared = (made - truth).double() ** 2
        similar = _similarity(made, truth)
        self._add("psnr_filled", decibels(mean_over(squared, rest)[shown]))
        self._add("psnr_smooth", decibels(mean_over((smooth - truth).double() ** 2, rest)[shown]))
        self._add("ssim_filled", mean_over(similar, rest)[shown])
        self._add("psnr_hole", decibels(mean_over(squared, hole)[shown]))
        self._add("psnr_frame", decibels(squared.mean((-3, -2, -1))[shown]))
        self._add("ssim_frame", similar.mean((-3, -2, -1))[shown])
        self.frames += shown.sum()
        moved = warped(made[:, 1:], targets.flow)
        unsteady = mean_over((made[:, :-1] - moved).double() ** 2, targets.trusted)
        judged = targets.trusted.flatten(2).any(-1)
        self._add("warp_error", 1000 * unsteady[judged])
        self.pairs += judged.sum()
        self.rest += rest.sum()
        self.hole += hole.sum()
        self.pixels += hole.numel()

    def compute(self) -> dict[str, Tensor]:
        """The means by name; NaN where nothing was to be filled."""
        found = {name: getattr(self, name) / self.frames for name in self._NAMES if name != "warp_error"}
        return {
            **found,
            "warp_error": self.warp_error / self.pairs,
            "coverage": self.hole / self.pixels,
            "never_visible": self.rest / self.hole,
        }

    def _add(self, name: str, values: Tensor) -> None:
        setattr(self, name, getattr(self, name) + values.double().sum())


def rounded(frames: Tensor) -> Tensor:
    """Frames as they are saved: clamped to 0..1, in steps of 8 bits."""
    return (frames.clamp(0, 1) * 255).round() / 255


def _similarity(made: Tensor, truth: Tensor) -> Tensor:
    """SSIM at every pixel, (B, T, 3, H, W)."""
    pair = (made.flatten(0, 1), truth.flatten(0, 1))
    _, similar = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    return similar.unflatten(0, made.shape[:2])


def warped(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames (B, T, C, H, W) as seen from where flow (B, T, 2, H, W), in pixels, leads to; the border goes on."""
    height, width = frames.shape[-2:]
    columns, rows = torch.arange(width, device=flow.device), torch.arange(height, device=flow.device)[:, None]
    x, y = columns + flow[:, :, 0], rows + flow[:, :, 1]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)
    moved = F.grid_sample(
        frames.flatten(0, 1), grid.flatten(0, 1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return moved.unflatten(0, frames.shape[:2])


def released_psnr(made: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """PSNR as the released evaluation computes it: differences and squares of 8-bit numbers wrap around.

    It reads 6 to 9 dB too high on real results. For comparison with what the authors print, and for nothing else.

    Source: TSAM, arXiv 2104.03507, released code (`tsam.md` section 10).

    Args:
        made: a frame, uint8 (H, W, 3).
        truth: uint8 (H, W, 3).
    """
    _check_frames(made, truth)
    wrapped = float(np.mean((made - truth) ** 2))
    return MOST_DECIBELS if wrapped == 0 else float(20 * np.log10(255 / np.sqrt(wrapped)))


def released_ssim(made: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """SSIM as the released evaluation computes it: its Gaussian also runs over the three colours.

    Source: as `released_psnr`.
    """
    from scipy.ndimage import gaussian_filter

    _check_frames(made, truth)
    x, y = made.astype(np.float64) / 255, truth.astype(np.float64) / 255

    def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
        filtered: NDArray[np.float64] = gaussian_filter(values, 1.5, truncate=4.0)
        return filtered

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    both = smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similar = ((2 * mean_x * mean_y + c1) * (2 * both + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(similar.mean())


def frechet_distance(real: NDArray[np.float64], made: NDArray[np.float64]) -> float:
    """Distance between the Gaussians that fit two sets of features; of I3D features of windows it is VFID.

    Stable with fewer samples than features: the trace of the matrix root is the sum of the singular values of the
    product of both centred sets, so that no singular matrix is ever rooted.

    Source: Heusel et al. 2017, arXiv 1706.08500, equation 6; with the covariances of n - 1.

    Args:
        real: features of true windows, (N, D), N at least 2.
        made: features of filled windows, (M, D).

    Raises:
        ShapeError: if they are not of this form.
    """
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1] or min(len(real), len(made)) < 2:
        raise ShapeError(f"features of shapes {real.shape} and {made.shape}; needed are (N, D) and (M, D), N, M >= 2.")
    means = real.mean(0), made.mean(0)
    centred = [
        (one - mean) / np.sqrt(len(one) - 1) for one, mean in zip((real.astype(np.float64), made), means, strict=True)
    ]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    spread = sum(float((one**2).sum()) for one in centred)
    return float(((means[0] - means[1]) ** 2).sum() + spread - 2 * root)


def _check_frames(made: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
    if made.shape != truth.shape or made.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ShapeError(
            f"frames are {made.dtype} {made.shape} and {truth.dtype} {truth.shape}; both must be uint8 of one shape."
        )
