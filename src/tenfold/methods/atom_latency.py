"""What atoms cost in milliseconds on this machine: a table of straight lines, fitted to measurements."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.cost import interleaved
from tenfold.methods.atoms import AtomGroup, count_atoms
from tenfold.modes import evaluating
from tenfold.quant import cut_channels

_SHARES = (0.25, 0.5, 1.0)
_ROUNDS = 5


@torch.inference_mode()
def measure_atoms(network: nn.Module, groups: Sequence[AtomGroup], image: Tensor) -> tuple[dict[str, float], float]:
    """Time each group of atoms at several sizes, and the whole network.

    Of each group, copies with a quarter, a half and all of its atoms run on what the network feeds them; the slope of
    the line through the three times is what an atom costs. All measurements take turns, so that a busy machine slows
    them alike.

    Args:
        network: to be measured, in eval mode meanwhile.
        groups: of the network.
        image: one image, (1, C, H, W).

    Returns:
        Milliseconds of one atom, by the group's producer, and of the whole network. All processes get the first one's,
        so that they remove the same.
    """
    inputs = _inputs(network, groups, image)
    runs: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, int] = {}
    for group in groups:
        for share in _SHARES:
            path = _path(network, group, share)
            key = f"{group.producer} {share}"
            sizes[key] = path[0].out_channels
            runs[key] = _runner(path, inputs[group.producer])
    runs[""] = lambda: network(image)
    with evaluating(network):
        timings = interleaved(runs, rounds=_ROUNDS)
    table = {}
    for group in groups:
        keys = [f"{group.producer} {share}" for share in _SHARES]
        slope = _slope([sizes[key] for key in keys], [timings[key].minimum_ms for key in keys])
        table[group.producer] = max(slope, 1e-9)
    measured: list[Any] = [table, timings[""].median_ms]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(measured)
    return measured[0], measured[1]


def _inputs(network: nn.Module, groups: Sequence[AtomGroup], image: Tensor) -> dict[str, Tensor]:
    """What each expanding convolution reads."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(group.producer).register_forward_pre_hook(_keeper(seen, group.producer))
        for group in groups
    ]
    try:
        with evaluating(network):
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _keeper(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[name] = inputs[0].clone()

    return keep


def _runner(path: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    return lambda: path(image)


def _path(network: nn.Module, group: AtomGroup, share: float) -> Any:
    """A copy of the layers that a group's atoms go through, with a share of them."""
    names = (group.producer, *group.carriers, group.consumer)
    path = nn.Sequential(*(copy.deepcopy(network.get_submodule(name)) for name in names)).eval()
    count = count_atoms(network, group)
    last = len(names) - 1
    description = {
        "removed": {"0": range(max(1, round(count * share)), count)},
        "through": {"0": map(str, range(1, last))},
        "consumers": {"0": [str(last)]},
        "biased": (),
    }
    return cut_channels(path, description)


def _slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Of the straight line with the least squared distance."""
    x, y = torch.tensor(sizes, dtype=torch.float64), torch.tensor(times, dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum()) if bool(x.any()) else float(max(times)) / max(sizes)
