"""Which engine the quantized layers of a training multiply with, and what a run says about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tenfold import quant
from tenfold.errors import UsageError
from tenfold.train.config import TrainConfig


def choose_engine(config: TrainConfig, device: torch.device, network: nn.Module) -> quant.IntegerEngine | None:
    """The engine of a training; None simulates.

    Args:
        config: the options.
        device: where it trains.
        network: attached.

    Raises:
        UsageError: if integers are asked for where that cannot be.
    """
    obstacle = _obstacle(config, device, network)
    if config.engine == "simulated" or (config.engine == "auto" and obstacle):
        return None
    if obstacle:
        raise UsageError(f'engine = "integer" cannot be: {obstacle}. Use engine = "simulated", or "auto".')
    return quant.IntegerEngine(config.engine_backward)


def _obstacle(config: TrainConfig, device: torch.device, network: nn.Module) -> str | None:
    """Why this training cannot multiply integers, or None."""
    if not any(quant.quantized_layers(network)):
        return "no layer of the network is quantized; add a method that does, such as sat"
    if device.type != "cpu":
        return f"it trains on {device}, and the integer kernels are the CPU's"
    if config.compile:
        return "torch.compile (train.compile) makes kernels of its own"
    if reason := quant.missing_instructions():
        return f"this machine is unsuited: {reason}"
    if all(quant.why_simulated(layer) and not _is_learning(layer) for _, layer in quant.quantized_layers(network)):
        reasons = sorted({quant.why_simulated(layer) or "" for _, layer in quant.quantized_layers(network)})
        return f"it would serve no layer ({'; '.join(reasons)})"
    return None


def _is_learning(layer: quant.QuantLayer) -> bool:
    quantizers = (layer.weight_quantizer, layer.input_quantizer)
    return all(one is not None for one in quantizers) and any(one.policy.whole is None for one in quantizers if one)


def engine_facts(config: TrainConfig, device: torch.device, network: nn.Module) -> dict[str, Any]:
    """What report.json says: the engine, and of each quantized layer "integers", or why it is simulated.

    Returns:
        Nothing for a network without quantized layers.
    """
    layers = quant.engine_report(network)
    if not layers:
        return {}
    in_use = any(layer.engine is not None for _, layer in quant.quantized_layers(network))
    facts: dict[str, Any] = {"asked": config.engine, "used": "integer" if in_use else "simulated"}
    if in_use:
        return {**facts, "backward": config.engine_backward, "layers": layers}
    asked = config.engine == "simulated"
    return {**facts, "why": "asked for" if asked else _obstacle(config, device, network) or "none is in use"}


def engine_text(facts: Mapping[str, Any]) -> str:
    """`engine_facts` in one line; "" where there is nothing to say."""
    if not facts or facts["asked"] == facts["used"] == "simulated":
        return ""
    if facts["used"] == "simulated":
        return f"quantized layers are simulated in float: {facts['why']}"
    layers: dict[str, str] = facts["layers"]
    simulated: dict[str, list[str]] = {}
    for name, state in layers.items():
        if not state.startswith(quant.INTEGERS):
            simulated.setdefault(state, []).append(name)
    count = len(layers) - sum(map(len, simulated.values()))
    text = f"{count} of {len(layers)} quantized layers multiply integers, backward in {facts['backward']}"
    reasons = [f"{_names(names)} ({reason})" for reason, names in simulated.items()]
    return text + ("; simulated: " + ", ".join(reasons) if reasons else "")


def _names(names: list[str], most: int = 3) -> str:
    return ", ".join(names) if len(names) <= most else f"{len(names)} layers"
