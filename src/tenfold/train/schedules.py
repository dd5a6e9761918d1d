"""The learning rate of every update."""

from __future__ import annotations

import math

import torch
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler

from tenfold.train.config import TrainConfig

# The exponential schedule ends at exp(-8) of the peak (reference/quant/schedule.json, exp_decaying_iter).
_EXPONENT = 8.0


def create_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, updates_per_epoch: int) -> Scheduler:
    """Build the schedule that sets `optimizer`'s learning rate; call `.step_update(i)` before update i (from 0).

    With N updates in all but the cool-down, w of them warm-up, r the warm-up's first fraction and e the last one,
    update i runs at the peak rate times

        (1 - r) i / w + r                                  for i < w
        e + (1 - e) (1 + cos(pi (i - w) / (N - w))) / 2    cosine; with `cycles`, so many of them one after another
        1 - (1 - e) (i - w) / (N - w)                      linear
        e                                                  from N on, the cool-down of these two
        exp(-8 (i - w) / (N - w))                          exponential
        step_factor ^ (number of step_epochs passed)       step

    Source: sat.md section 4.

    Args:
        optimizer: its groups' rates are taken as the peak.
        config: epochs, schedule and warm-up.
        updates_per_epoch: optimiser steps in one epoch, at least 1.
    """
    warmup = round(config.warmup_epochs * updates_per_epoch)
    cooldown = round(config.cooldown_epochs * updates_per_epoch)
    falling = max(1, config.epochs * updates_per_epoch - warmup - cooldown)
    last = config.last_lr * config.peak_lr()
    common = {
        "t_in_epochs": False,
        "warmup_t": warmup,
        "warmup_lr_init": config.warmup_fraction() * config.peak_lr(),
    }
    schedule: Scheduler
    if config.schedule == "cosine":
        length = math.ceil(falling / config.cycles)
        schedule = CosineLRScheduler(
            optimizer, t_initial=length, lr_min=last, cycle_limit=config.cycles, warmup_prefix=True, **common
        )
    elif config.schedule == "linear":
        schedule = PolyLRScheduler(optimizer, t_initial=falling, lr_min=last, power=1.0, warmup_prefix=True, **common)
    elif config.schedule == "exponential":
        rate = math.exp(-_EXPONENT / falling)
        schedule = StepLRScheduler(optimizer, decay_t=1, decay_rate=rate, warmup_prefix=True, **common)
    else:
        # timm lets a milestone take effect one update early; hence the + 1.
        epochs = config.step_epochs if config.schedule == "step" else ()
        milestones = [round(epoch * updates_per_epoch) + 1 for epoch in epochs]
        schedule = MultiStepLRScheduler(
            optimizer, decay_t=milestones, decay_rate=config.step_factor, warmup_prefix=False, **common
        )
    schedule.step_update(0)
    return schedule
