"""Batch norm over all processes while training, and plain batch norm in what leaves."""

from __future__ import annotations

from torch import nn

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
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if world.size > 1 else network


def restore_batch_norm(network: nn.Module) -> nn.Module:
    """Replace synchronised batch norms by plain ones that share their parameters and statistics, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.SyncBatchNorm):
            plain = nn.BatchNorm2d(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
            )
            plain._parameters, plain._buffers = module._parameters, module._buffers
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, plain.train(module.training))
    return network
