"""Making a network smaller in the middle of its training: weights, weight averages and the optimiser's state together.

Source: AtomNAS (arXiv 1912.09640), `atomnas.md` section 5. The official code rewrites each kind of state by hand; here
the one function that cuts a network is applied to everything that has a network's shape.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.quant import cut_channels


def cut_training(
    network: nn.Module, description: Mapping[str, Any], *, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> None:
    """Cut a network, its weight average, and the optimiser's state of its parameters, in place.

    Parameters stay the same objects with less in them, in the same groups and the same order; those of modules that are
    dropped leave the optimiser. Works for any optimiser: whatever state has the shape of its parameter is cut as it is.

    Args:
        network: in training.
        description: what to remove, as `cut_channels` takes it.
        average: a network with the same names, or None.
        optimizer: holds the parameters of `network`.

    Raises:
        UsageError: if the description is not of this network.
    """
    states = _cut_states(network, description, optimizer)
    cut_channels(network, description)
    if average is not None:
        cut_channels(average, description)
    remaining = dict(network.named_parameters())
    kept = set(remaining.values())
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter in kept]
    for parameter in [one for one in optimizer.state if one not in kept]:
        del optimizer.state[parameter]
    for key, tensors in states.items():
        for name, tensor in tensors.items():
            optimizer.state[remaining[name]][key] = tensor


@torch.no_grad()
def _cut_states(
    network: nn.Module, description: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    """What remains of the state, by kind and parameter's name: poured into a copy of the network, and cut there."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    full: dict[str, dict[str, Tensor]] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and parameter in names and value.dim():
                full.setdefault(key, {})[names[parameter]] = value
    cut: dict[str, dict[str, Tensor]] = {}
    for key, tensors in full.items():
        twin = copy.deepcopy(network)
        parameters = dict(twin.named_parameters())
        for name, value in tensors.items():
            parameters[name].data = value
        cut_channels(twin, description)
        cut[key] = {name: p.data for name, p in twin.named_parameters() if name in tensors}
    return cut
