"""Optimisers, and which parameters the weight decay acts on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from tenfold.train.config import TrainConfig


def is_decayed(parameter: torch.Tensor) -> bool:
    """Whether weight decay acts on a parameter: linear weights, and convolutions that mix channels.

    Depthwise weights, batch norm, biases and clipping levels are left alone. An ordinary first convolution on
    one-channel images looks like a depthwise one by its shape and is left alone too, as in the authors' code.

    Source: sat.md section 4 ("4-d with size(1) != 1, or 2-d"); 5-d weights of video networks follow the 4-d rule.
    """
    return parameter.ndim == 2 or (parameter.ndim >= 4 and parameter.shape[1] != 1)


def parameter_groups(parameters: Iterable[torch.Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay and those that do not, in the order given.

    A frozen parameter stays in its group: optimisers pass over a parameter without gradient, and it may thaw later.
    Parameters with an attribute `lr_scale` are groups of their own, whose learning rate is so many times the others'
    (timm's schedules look for that key).
    """
    plain, scaled = list[torch.Tensor](), dict[float, list[torch.Tensor]]()
    for parameter in parameters:
        scale = getattr(parameter, "lr_scale", 1.0)
        (plain if scale == 1 else scaled.setdefault(scale, [])).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in plain if is_decayed(p)], "weight_decay": weight_decay},
        {"params": [p for p in plain if not is_decayed(p)], "weight_decay": 0.0},
        *({"params": some, "weight_decay": 0.0, "lr_scale": scale} for scale, some in scaled.items()),
    ]
    return [group for group in groups if group["params"]]


def create_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimiser that `config` asks for, over all parameters of `network`."""
    groups = parameter_groups(network.parameters(), config.weight_decay)
    options: dict[str, Any] = {} if config.epsilon is None or config.optimizer == "sgd" else {"eps": config.epsilon}
    if config.optimizer == "sgd":
        # With no momentum there is nothing for Nesterov to look ahead by; torch refuses the combination.
        name = "sgd" if config.nesterov and config.momentum > 0 else "momentum"
    elif config.optimizer == "rmsprop_tf":
        name = "rmsproptf"
    else:
        name = "adamw"
        options["betas"] = (config.momentum, 0.999)
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        groups, opt=name, lr=config.peak_lr(), momentum=config.momentum, weight_decay=0.0, **options
    )
    return optimizer
