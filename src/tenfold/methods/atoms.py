"""The atoms of a network: hidden channels of inverted residuals, what each costs, and how to take some away.

An atom is one path from the input of a block to its output: a row of an expanding 1x1 convolution, a depthwise kernel,
and a column of the projecting convolution (AtomNAS, arXiv 1912.09640). Atoms are found on the graph of the network, so
any network with inverted residuals has them, not only those of `layers/atomic.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.cost import Profile, profile
from tenfold.layers.atomic import AtomicBlock
from tenfold.modes import evaluating
from tenfold.quant import SwitchableBatchNorm, find_switch
from tenfold.quant.channels import ChannelPath, Wiring, is_depthwise, wiring
from tenfold.quant.constant_channels import effective_weight, observe


@dataclass(frozen=True, kw_only=True)
class AtomGroup:
    """The atoms of one block with one kernel size.

    Attributes:
        producer: the expanding convolution.
        carriers: what stands between it and the projection, with one entry an atom: norms, the depthwise convolution.
        scale: the batch norm behind the depthwise convolution, whose scale is the importance of each atom.
        consumer: the projecting convolution.
        output_norm: the batch norm behind the projection, or None.
        kernel: side of the depthwise kernel.
        block: the module that computes the block.
        branch: the module to drop when the group's last atom goes: a branch of an atomic block, or a residual block
            that is the identity then; None if the last atom must stay.
        is_residual: whether the block adds its input, so that it may lose all of its atoms.
        costs: of one atom, for one image, by quantity: "macs", "params", "bytes", "bitops", "latency_ms".
    """

    producer: str
    carriers: tuple[str, ...]
    scale: str
    consumer: str
    output_norm: str | None
    kernel: int
    block: str
    branch: str | None = None
    is_residual: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)


def find_atoms(network: nn.Module, example: Tensor) -> list[AtomGroup]:
    """All groups of atoms of a network, in the order of the network.

    A group is a path from a 1x1 convolution through one depthwise convolution, with a batch norm behind it, to one 1x1
    convolution. Its costs but the latency are filled in.

    Args:
        network: float or quantized; left as it was.
        example: a batch of its inputs, (B, C, H, W).
    """
    known = wiring(network, example)
    counted = profile(network, example)
    found = [group for path in known.paths.values() if (group := _group(network, known, path)) is not None]
    residual = {block: _is_residual(network, block, example, found) for block in {group.block for group in found}}
    order = {name: index for index, (name, _) in enumerate(network.named_modules())}
    return [
        replace(
            group,
            branch=_branch(network, group, residual[group.block]),
            is_residual=residual[group.block],
            costs=_costs(network, group, counted),
        )
        for group in sorted(found, key=lambda one: order[one.producer])
    ]


def _group(network: nn.Module, known: Wiring, path: ChannelPath) -> AtomGroup | None:
    """The group of atoms that a path of channels is, if it is one."""
    producer = network.get_submodule(path.producer)
    filters = [name for name in path.carriers if is_depthwise(network.get_submodule(name))]
    if not _is_pointwise(producer) or len(filters) != 1 or len(path.consumers) != 1:
        return None
    consumer = path.consumers[0]
    behind = path.carriers[path.carriers.index(filters[0]) + 1 :]
    if not behind or not _is_pointwise(network.get_submodule(consumer)) or not _scales(network, behind[-1]):
        return None
    depthwise = network.get_submodule(filters[0])
    assert isinstance(depthwise, nn.Conv2d)
    block = _block_of(network, (path.producer, consumer))
    atomic = isinstance(network.get_submodule(block), AtomicBlock)
    return AtomGroup(
        producer=path.producer,
        carriers=path.carriers,
        scale=behind[-1],
        consumer=consumer,
        output_norm=f"{block}.norm" if atomic else known.norms.get(consumer),
        kernel=max(depthwise.kernel_size),
        block=block,
    )


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def _block_of(network: nn.Module, names: Sequence[str]) -> str:
    """The smallest module with all these layers, or the atomic block around it."""
    parts = [name.split(".") for name in names]
    common: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    for length in range(len(common), 0, -1):
        outer = ".".join(common[:length])
        if isinstance(network.get_submodule(outer), AtomicBlock):
            return outer
    return ".".join(common)


def _branch(network: nn.Module, group: AtomGroup, is_residual: bool) -> str | None:
    if isinstance(network.get_submodule(group.block), AtomicBlock):
        return group.consumer.rpartition(".")[0]
    return group.block if is_residual and group.block else None


@torch.no_grad()
def _is_residual(network: nn.Module, block: str, example: Tensor, groups: Iterable[AtomGroup]) -> bool:
    """Whether a block gives back its input once its projections give nothing: tried on a copy."""
    if not block:
        return False
    twin = copy.deepcopy(network).eval()
    for group in groups:
        if group.block == block:
            consumer: Any = twin.get_submodule(group.consumer)
            for tensor in (consumer.weight, consumer.bias):
                if tensor is not None:
                    tensor.zero_()
            if group.output_norm is not None:
                for norm in _norms(twin, group.output_norm):
                    norm.weight.zero_()
                    norm.bias.zero_()
    seen: list[bool] = []

    def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.shape == inputs[0].shape and bool(torch.allclose(output, inputs[0], atol=1e-6)))

    handle = twin.get_submodule(block).register_forward_hook(compare)
    try:
        twin(example[:2])
    finally:
        handle.remove()
    return seen == [True]


def _costs(network: nn.Module, group: AtomGroup, counted: Profile) -> dict[str, float]:
    """What one atom costs: its part in every layer that it goes through."""
    rows = {row.name: row for row in counted.layers}
    total = {"macs": 0.0, "params": 0.0, "bytes": 0.0, "bitops": 0.0}
    for name in (group.producer, *group.carriers, group.consumer):
        module: Any = network.get_submodule(name)
        row = rows.get(name)
        if not isinstance(module, nn.Conv2d):
            total["params"] += sum(p.numel() for p in module.parameters()) / count_atoms(network, group)
            continue
        assert row is not None
        share = module.in_channels if name == group.consumer else module.out_channels
        parts = module.weight.numel() + (
            module.out_channels if module.bias is not None and name != group.consumer else 0
        )
        total["macs"] += row.macs / share
        total["bitops"] += row.bitops / share
        total["params"] += parts / share
        total["bytes"] += module.weight.numel() * row.w_bits / 8 / share
    return total


def count_atoms(network: nn.Module, group: AtomGroup) -> int:
    """How many atoms a group has now."""
    return len(_scales(network, group.scale)[0])


def scales_of(network: nn.Module, group: AtomGroup) -> list[nn.Parameter]:
    """The scales of a group's atoms: one parameter, (atoms,), or one for each bit-width of an adaptive network."""
    return _scales(network, group.scale)


@torch.no_grad()
def importance(network: nn.Module, group: AtomGroup) -> Tensor:
    """The magnitude of each atom's scale, (atoms,); the largest where several bit-widths have their own."""
    return torch.stack([scale.detach().abs() for scale in _scales(network, group.scale)]).amax(0)


def _scales(network: nn.Module, name: str) -> list[nn.Parameter]:
    return [norm.weight for norm in _norms(network, name) if isinstance(norm.weight, nn.Parameter)]


def _norms(network: nn.Module, name: str) -> list[Any]:
    norm = network.get_submodule(name)
    return list(norm.choices) if isinstance(norm, SwitchableBatchNorm) else [norm]


def removal(groups: Sequence[AtomGroup], dead: Mapping[str, Sequence[int]], vanished: Iterable[str]) -> dict[str, Any]:
    """What `cut_channels` needs to take atoms out of a network.

    Args:
        groups: of the network.
        dead: indices of atoms, by the group's producer; not all of a group.
        vanished: modules that are dropped whole.
    """
    by_producer = {group.producer: group for group in groups}
    return {
        "removed": {name: list(indices) for name, indices in dead.items()},
        "through": {name: list(by_producer[name].carriers) for name in dead},
        "consumers": {name: [by_producer[name].consumer] for name in dead},
        "biased": [],
        "dropped": list(vanished),
    }


@torch.no_grad()
def absorb_constants(
    network: nn.Module, example: Tensor, groups: Sequence[AtomGroup], dead: Mapping[str, Tensor]
) -> None:
    """Prepare the removal of atoms so that outputs in eval mode stay as if their scales were 0.

    An atom with scale 0 sends a constant, act(shift), into the projection. Its part in the projection's output goes
    into the running mean of the norm behind, or into the projection's bias. In train mode batch norm subtracts it.

    Source: `atomnas.md` section 5, "Exactness"; the official code has this step switched off.

    Args:
        network: changed in place: the scales of the dead atoms become 0, means move.
        example: a batch of its inputs.
        groups: of the network.
        dead: masks of atoms, (atoms,), by the group's producer.
    """
    touched = [group for group in groups if group.producer in dead]
    for group in touched:
        for scale in scales_of(network, group):
            scale[dead[group.producer]] = 0
    if find_switch(network) is not None:
        return  # each bit-width has its own constants; they go into no single place
    with evaluating(network):
        seen = observe(network, example[:2], [group.consumer for group in touched])
    for group in touched:
        mask = dead[group.producer]
        consumer: Any = network.get_submodule(group.consumer)
        columns = effective_weight(consumer).flatten(1).double()[:, mask]
        added = columns @ seen[group.consumer].constants[mask].double()
        if group.output_norm is not None:
            for norm in _norms(network, group.output_norm):
                if norm.running_mean is not None:
                    norm.running_mean -= added.to(norm.running_mean.dtype)
        elif consumer.bias is not None:
            consumer.bias += added.to(consumer.bias.dtype)
