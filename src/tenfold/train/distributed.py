"""Data-parallel training over processes that `torchrun` started.

Gradients are averaged here, by hand, after the last backward pass of a step. torch's DistributedDataParallel would hide
that traffic behind the backward pass, but it cannot serve us: methods run several passes per step, each with private
parameters (adabits.md section 5), some cut parameters out while training, and its buckets are laid out anew after the
first step, so that a resumed run would add in another order and lose the bit-identity that we promise.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tenfold.errors import UsageError

# Gradients travel in portions of this many bytes: large enough to fill a link, small beside the network.
_BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn a device name into a device; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: if the name is no device, or that device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f'unknown device {name!r}. Allowed: "auto", "cpu", "cuda", "cuda:N", "mps".') from error
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise UsageError(
            f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices, MPS "
            f'{"available" if torch.backends.mps.is_available() else "not available"}. Use "auto" or "cpu".'
        )
    return torch.device("cuda", local_rank) if device.type == "cuda" and device.index is None else device


def join_world(device_name: str) -> World:
    """Join the process group that torchrun's environment describes, or find that this process has joined already.

    Without that environment this process is a world of its own. The group stays until the process ends: torchrun's
    store remembers the addresses of a group that was left, and whoever joins a second time runs into them.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = resolve_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_available():
        return World(0, 1, device)
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return World(0, 1, device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave_world)
    return World(dist.get_rank(), dist.get_world_size(), device)


def _leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_tensors(tensors: Iterable[Tensor], world: World) -> None:
    """Overwrite each tensor with the first process's."""
    if world.size == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            whole = tensor.contiguous()
            dist.broadcast(whole, src=0)
            if whole is not tensor:
                tensor.copy_(whole)


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace each gradient by its mean over all processes; parameters without gradient are passed over."""
    if world.size == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if bucket and (size >= _BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            _average(bucket, world.size)
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel() * gradient.element_size()
    if bucket:
        _average(bucket, world.size)


def _average(gradients: Sequence[Tensor], count: int) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= count
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view(gradient.shape))


def sum_over_world(values: Sequence[float], world: World) -> list[float]:
    """Add up numbers over all processes, in double precision; every process gets the sums."""
    if world.size == 1:
        return list(values)
    # MPS has no float64; its group, if any, is gloo on the CPU.
    total = torch.tensor(values, dtype=torch.float64, device=world.device if world.device.type == "cuda" else "cpu")
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]


def wait_for_all(world: World) -> None:
    """Return when every process has come here."""
    sum_over_world([0.0], world)


def gather_over_world(tensor: Tensor, world: World) -> list[Tensor]:
    """Collect a CPU tensor of the same shape from every process, by rank."""
    if world.size == 1:
        return [tensor]
    gathered = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(gathered, tensor)
    return gathered
