"""The states of every random number generator that a training may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what third-party code draws from
    random.seed(seed)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of torch's, numpy's and Python's global generators, as tensors and plain values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            kind,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss_next],
    }
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to what `random_states` returned."""
    torch.set_rng_state(states["torch"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal.tolist()), gauss_next))
    if device.type == "cuda" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)
    elif device.type == "mps" and "device" in states:
        torch.mps.set_rng_state(states["device"])


@contextmanager
def untouched_random_states(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were before the block, whatever it drew."""
    states = random_states(device)
    try:
        yield
    finally:
        restore_random_states(states, device)
