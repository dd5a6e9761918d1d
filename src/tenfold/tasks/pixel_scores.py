"""Scores of pixels as tensors: brought to a size, and computed window by window."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.data.dense import window_boxes


def at_size(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Scores (B, K, h, w) at another size (height, width), bilinearly."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)


def windowed_scores(network: nn.Module, inputs: Tensor, window: tuple[int, int]) -> Tensor:
    """Scores of images that may be larger than what a network sees at once.

    Args:
        network: from inputs (B, C, h, w) to scores.
        inputs: (B, C, H, W).
        window: (height, width) that the network sees.

    Returns:
        As the network gives them where the images have the window's size, else (B, K, H, W): windows cover the image,
        and where they overlap their scores are averaged.
    """
    height, width = inputs.shape[-2:]
    if (height, width) == window:
        scores: Tensor = network(inputs)
        return scores
    total, count = inputs.new_zeros(()), inputs.new_zeros(height, width)
    for rows, columns in window_boxes(height, width, window):
        part = at_size(network(inputs[..., rows, columns].contiguous()), window)
        if not total.dim():
            total = part.new_zeros(*part.shape[:2], height, width)
        total[..., rows, columns] += part
        count[rows, columns] += 1
    return total / count
