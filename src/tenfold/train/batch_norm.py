"""Batch norm over all processes while training, and plain batch norm in what leaves."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.errors import UsageError
from tenfold.train.distributed import World


def synchronize_batch_norm(network: nn.Module, world: World) -> nn.Module:
    """Let every batch norm compute its statistics over the batches of all processes; parameters stay the same objects.

    Raises:
        UsageError: on a device where torch has no synchronised batch norm.
    """
    if world.device.type != "cuda":
        raise UsageError(
            f"sync_bn = true: synchronised batch norm works on CUDA devices only, not on {world.device.type!r}. "
            "Leave it off; each process then normalises by its own part of the batch."
        )
    return convert_batch_norm(network) if world.size > 1 else network


def convert_batch_norm(network: nn.Module) -> nn.Module:
    """Replace every batch norm by its synchronised form, which remembers what it replaced."""
    former = {name: type(module) for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, kind in former.items():
        if kind is not nn.SyncBatchNorm:
            network.get_submodule(name).former_class = kind  # type: ignore[assignment]
    return network


def restore_batch_norm(network: nn.Module) -> nn.Module:
    """Undo `convert_batch_norm`, in place; parameters and statistics stay the same objects."""
    for name, module in list(network.named_modules()):
        kind = getattr(module, "former_class", None)
        if not isinstance(module, nn.SyncBatchNorm) or kind is None:
            continue
        plain = kind(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
        plain._parameters, plain._buffers = module._parameters, module._buffers
        plain.train(module.training)
        if not name:
            return plain
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, plain)
    return network
