"""What can be known of a network before it has trained: zero-cost signals."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from tenfold.batches import Inputs, Targets, call, first_rows
from tenfold.tasks import Task


def zero_cost_signals(network: nn.Module, task: Task, inputs: Inputs, targets: Targets) -> dict[str, float]:
    """Signals of a fresh network from one batch; the network is left as it is.

    `loss` is the loss of the batch, `grad_norm` the L2 norm of its gradient (arXiv 2101.08134), and `log_synflow` the
    natural logarithm of sum |weight * d output / d weight| for an input of ones and weights without their signs, batch
    norms left out (arXiv 2006.05467).

    Args:
        network: in its first state.
        task: gives the loss.
        inputs: images (B, C, H, W); a tuple of inputs becomes all ones for `log_synflow`, too.
        targets: of the batch.
    """
    twin = copy.deepcopy(network).train()
    loss = task.loss(call(twin, inputs), targets)
    loss.backward()
    gradients = [p.grad.norm() for p in twin.parameters() if p.grad is not None]
    return {
        "loss": float(loss.detach()),
        "grad_norm": float(torch.stack(gradients).norm()),
        "log_synflow": _log_synflow(network, inputs),
    }


def _log_synflow(network: nn.Module, inputs: Inputs) -> float:
    # In double precision: the product over many layers leaves the range of single precision.
    twin = copy.deepcopy(network).double().eval()
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_()
    ones = tree_map_only(Tensor, lambda one: torch.ones_like(one, dtype=torch.float64), first_rows(inputs, 1))
    call(twin, ones).sum().backward()
    total = torch.stack([(p.grad * p.detach()).abs().sum() for p in twin.parameters() if p.grad is not None]).sum()
    return float(total.clamp_min(1e-300).log())
