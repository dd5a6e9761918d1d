"""Where learned bits should start in a network that is trained already: by how much each layer's answers need them.

Ours; the rule behind it is reverse water-filling, known from transform coding, and the measure is that of HAWQ-like
post-training methods: what quantizing one tensor alone does to the answers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.errors import UsageError
from tenfold.methods.bit_search import BitSearch
from tenfold.modes import evaluating
from tenfold.quant import FractionalBits

_PROBED = 4
_SMALLEST = 1e-12


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

    Raises:
        UsageError: if the network's answers are not one tensor.
    """
    kept = {policy: policy.value.clone() for policy in search.policies}
    try:
        noise = _measured(network, search, images)
    finally:
        for policy, value in kept.items():
            policy.value.copy_(value)
    slopes = search.slopes({policy: torch.full_like(policy.value, _PROBED) for policy in search.policies}).values()
    prices = {policy: sum(float(slope[policy].sum()) for slope in slopes) for policy in search.policies}
    return search.shifted_start({p: math.log(noise[p] / max(prices[p], _SMALLEST), 4) for p in search.policies})


def _measured(network: nn.Module, search: BitSearch, images: Tensor) -> dict[FractionalBits, float]:
    """The noise of every policy: the divergence with few bits in it alone, times 4^bits."""
    noise = {}
    with evaluating(network):
        for policy in search.policies:
            policy.value.fill_(policy.high)
        outputs = network(images)
        if not isinstance(outputs, Tensor):
            raise UsageError(
                f'start="sensitivity" compares the answers of a network with classes, and {type(network).__name__} '
                "gives something else. Leave start out, or give it a number of bits."
            )
        reference = outputs.float().log_softmax(1)
        for policy in search.policies:
            bits = min(max(_PROBED, policy.low, policy.minimum), policy.high)
            policy.value.fill_(bits)
            answers = network(images).float().log_softmax(1)
            policy.value.fill_(policy.high)
            divergence = float(F.kl_div(answers, reference, log_target=True, reduction="batchmean"))
            noise[policy] = max(divergence, _SMALLEST) * 4**bits
    return noise
