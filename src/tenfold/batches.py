"""Batches of any form: one tensor, or a tuple or a NamedTuple of tensors (and of tuples of them).

A network that takes several inputs gets a tuple of them, unpacked. These few functions stand below all floors, so that
tasks, methods and trainings mean the same by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from tenfold.errors import DataError

Inputs: TypeAlias = "Tensor | tuple[Any, ...]"
"""What a network gets of a batch: one tensor (B, ...), or a tuple of its arguments."""
Targets: TypeAlias = "Tensor | tuple[Any, ...]"
"""What a loss and a metric compare with, likewise."""

Batch = TypeVar("Batch", bound="Tensor | tuple[Any, ...]")


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network answers to the inputs of a batch; a tuple becomes its arguments."""
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def placed(batch: Batch, device: torch.device, *, channels_last: bool = False) -> Batch:
    """A batch with all its tensors on a device.

    Args:
        batch: one tensor or a tuple of them; what is no tensor stays as it is.
        device: where to.
        channels_last: bring images, that is tensors of four axes, into this order of memory.
    """

    def place(tensor: Tensor) -> Tensor:
        if channels_last and tensor.ndim == 4:
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    moved: Batch = tree_map_only(Tensor, place, batch)
    return moved


def first_rows(batch: Batch, count: int) -> Batch:
    """The first `count` samples of a batch; fewer where it has fewer."""
    kept: Batch = tree_map_only(Tensor, lambda tensor: tensor[:count], batch)
    return kept


def length(batch: Inputs | Targets) -> int:
    """How many samples a batch has: the first axis of all its tensors.

    Raises:
        DataError: if there is no tensor, or they disagree.
    """
    lengths = {len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim}
    if len(lengths) != 1:
        raise DataError(
            f"a batch has tensors of {sorted(lengths) or 'no'} samples; the first axis of all must be the "
            "batch, and of one length."
        )
    return lengths.pop()
