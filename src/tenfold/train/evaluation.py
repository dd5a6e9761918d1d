"""How good a network is at its task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from tenfold.batches import length, placed
from tenfold.errors import DataError
from tenfold.methods import Method
from tenfold.tasks import Task
from tenfold.train.distributed import World, join_world, sum_over_world
from tenfold.train.passes import combined_passes
from tenfold.train.random_states import untouched_random_states


def evaluate(
    network: nn.Module, task: Task, *, batch_size: int = 256, device: str = "auto", workers: int = 0
) -> dict[str, float]:
    """Evaluate a network on a task's evaluation data. Under torchrun all processes must call it; they share the work.

    Args:
        network: put on the device, and into eval mode for the time of the call.
        task: gives the batches, the loss and the metrics.
        batch_size: images per batch; the result depends on it only by rounding.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        workers: processes that load data.

    Returns:
        The task's metrics by name (such as top1, 0 to 1), and "loss", the mean over all images.

    Raises:
        DataError: if there are no evaluation data.
    """
    world = join_world(device)
    metrics = evaluate_in(network.to(world.device), task, world, batch_size=batch_size, workers=workers)
    assert metrics is not None
    return metrics


def evaluate_in(
    network: nn.Module,
    task: Task,
    world: World,
    *,
    batch_size: int,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Evaluate with all processes, each on its part of the data; random states and training mode stay as they were.

    Args:
        network: on the world's device.
        task: gives the batches, the loss and the metrics.
        world: the processes that share the work.
        batch_size: images per batch in each process.
        workers: processes that load data.
        should_stop: asked before each batch.

    Returns:
        The same in every process; None if `should_stop` said so.

    Raises:
        DataError: if there are no evaluation data.
    """
    metrics = task.metrics().to(world.device)
    loss_sum, count = 0.0, 0
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), untouched_random_states(world.device):
            for inputs, targets in task.eval_batches(
                batch_size=batch_size, rank=world.rank, world_size=world.size, workers=workers
            ):
                if should_stop():
                    return None
                targets = placed(targets, world.device)
                outputs = task.infer(network, placed(inputs, world.device))
                metrics.update(outputs, targets)
                loss_sum += float(task.loss(outputs, targets)) * length(targets)
                count += length(targets)
    finally:
        for module, training in modes.items():
            module.training = training
    loss_sum, total = sum_over_world([loss_sum, count], world)
    if total == 0:
        raise DataError(f"the task {task.name!r} has no evaluation data; give it at least one image to be judged by.")
    return {**{name: float(value) for name, value in metrics.compute().items()}, "loss": loss_sum / total}


def evaluate_passes(
    network: nn.Module,
    task: Task,
    methods: Sequence[Method],
    world: World,
    *,
    batch_size: int,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Evaluate a network in every setting that its methods train.

    Source: adabits.md section 2.3 (validation runs all bit-widths, selection uses the mean).

    Returns:
        Means over the settings under the metrics' own names; with several settings also each one's, as "top1/8",
        "top1/4", … by the names of the passes (or their numbers). None if `should_stop` said so.
    """
    found: dict[str, dict[str, float]] = {}
    for one in combined_passes(methods, network):
        one.enter()
        metrics = evaluate_in(network, task, world, batch_size=batch_size, workers=workers, should_stop=should_stop)
        if metrics is None:
            return None
        found[one.name or str(len(found))] = metrics
    first = next(iter(found.values()))
    if len(found) == 1:
        return first
    combined = {name: sum(metrics[name] for metrics in found.values()) / len(found) for name in first}
    for setting, metrics in found.items():
        combined.update({f"{name}/{setting}": value for name, value in metrics.items()})
    return combined
