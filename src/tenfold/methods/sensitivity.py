"""Where learned bits should start in a network that is trained already: by how much each layer's answers need them.

Ours; the rule behind it is reverse water-filling, known from transform coding, and the measure is that of HAWQ-like
post-training methods: what quantizing one tensor alone does to the answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.methods.bit_search import BitSearch
from tenfold.modes import evaluating
from tenfold.quant import FractionalBits

_PROBED = 4
_SMALLEST = 1e-12
_TRIALS = 40


@torch.no_grad()
def sensitive_start(network: nn.Module, search: BitSearch, images: Tensor) -> dict[FractionalBits, Tensor]:
    """Real bits for every policy that together cost what the limits allow.

    The noise of b bits has a power of s 4^-b, with s measured: the divergence of the answers when this tensor alone has
    few bits, all others their most. The sum of the noise at a given cost is least where b = mu + log4(s / c), c the
    cost of one bit; mu is found by bisection.

    Args:
        network: quantized, trained, with the policies of the search; left as it was.
        search: what bits cost, and may.
        images: real ones, (B, C, H, W).

    Returns:
        By policy, of the shape of its value.
    """
    kept = {policy: policy.value.clone() for policy in search.policies}
    try:
        noise = _measured(network, search, images)
    finally:
        for policy, value in kept.items():
            policy.value.copy_(value)
    prices = _prices(search)
    wanted = {policy: math.log(noise[policy] / prices[policy], 4) for policy in search.policies}

    def at(level: float) -> dict[FractionalBits, Tensor]:
        return {
            policy: torch.full_like(policy.value, level + wanted[policy]).clamp(
                max(policy.low, policy.minimum), policy.high
            )
            for policy in search.policies
        }

    reach = 8 + max(map(abs, wanted.values()))
    level = _highest(lambda level: search.share(at(level)) <= 1, -reach, reach)
    return at(level)


def _measured(network: nn.Module, search: BitSearch, images: Tensor) -> dict[FractionalBits, float]:
    """The noise of every policy: the divergence with few bits in it alone, times 4^bits."""
    noise = {}
    with evaluating(network):
        for policy in search.policies:
            policy.value.fill_(policy.high)
        reference = network(images).float().log_softmax(1)
        for policy in search.policies:
            bits = min(max(_PROBED, policy.low, policy.minimum), policy.high)
            policy.value.fill_(bits)
            answers = network(images).float().log_softmax(1)
            policy.value.fill_(policy.high)
            divergence = float(F.kl_div(answers, reference, log_target=True, reduction="batchmean"))
            noise[policy] = max(divergence, _SMALLEST) * 4**bits
    return noise


def _prices(search: BitSearch) -> Mapping[FractionalBits, float]:
    """The share of the limits that one more bit of each policy takes, where all have a middle number of bits."""
    with torch.enable_grad():
        values = {policy: torch.full_like(policy.value, _PROBED).requires_grad_() for policy in search.policies}
        costs = search.costs(values)
        total = torch.stack([costs[quantity] / limit for quantity, limit in search.limits.items()]).sum()
        slopes = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    return {
        policy: max(0.0 if slope is None else float(slope.sum()), _SMALLEST)
        for policy, slope in zip(search.policies, slopes, strict=True)
    }


def _highest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The highest number for which a falling condition still holds, between two."""
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
