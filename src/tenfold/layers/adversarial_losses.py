"""What a discriminator and a network that it judges minimise, of scores of any shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def hinge_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """What the discriminator minimises, of its scores: mean max(0, 1 - real) + mean max(0, 1 + made), halved.

    Source: arXiv 1705.02894.
    """
    return (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2


def hinge_generator(made: Tensor) -> Tensor:
    """What the network minimises, of the discriminator's scores."""
    return -made.mean()


def least_squares_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """The authors' loss of the discriminator, of the sigmoid of its scores: mean (real - 1)^2 + mean made^2, halved.

    Source: arXiv 1611.04076.
    """
    return ((torch.sigmoid(real) - 1).square().mean() + torch.sigmoid(made).square().mean()) / 2


def least_squares_generator(made: Tensor) -> Tensor:
    """The authors' adversarial loss of the network, of the sigmoid of the discriminator's scores."""
    return (torch.sigmoid(made) - 1).square().mean()
