"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within the context; afterwards each module has the mode that it had."""
    modes = {name: module.training for name, module in network.named_modules()}
    try:
        network.eval()
        yield
    finally:
        for name, module in network.named_modules():  # bit policies may be new ones
            module.training = modes[name]
