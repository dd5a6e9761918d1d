"""One training step: float, ours, Brevitas and torch.ao's fake quantization, on ResNet-18 for 32x32 images.

Weights and activations have 4 bits (torch.ao: 8, its fused fake-quantize has no cheaper one), batch 16, channels-last,
fp32, SGD with momentum. All are stepped in turn (A B C D A B C D …) in one process, so that a busy machine slows all of
them alike; what is recorded is the ratio to the float step of the same layout.

    pip install brevitas
    python benchmarks/qat_step.py                  # about three minutes on two quiet cores

Recorded in results/qat_step.json.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from record import machine, write_record
from tenfold import models
from tenfold.cost import interleaved
from tenfold.methods import QAT, SAT
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "qat_step.json"
BATCH, BITS = 16, 4


def network() -> nn.Module:
    """The float network, the same weights each time."""
    torch.manual_seed(0)
    return models.build("resnet18_cifar", num_classes=10)


def ours(method: QAT | SAT) -> nn.Module:
    """Quantized by one of our methods."""
    return method.attach(network(), None, torch.rand(4, 3, 32, 32) * 255)


def with_brevitas() -> nn.Module:
    """Brevitas's quantized layers: 8-bit first and last layer, unsigned activations after each ReLU."""
    import brevitas.nn as qnn

    def swap(module: nn.Module, first: list[bool]) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                bits = 8 if first[0] else BITS
                first[0] = False
                twin = qnn.QuantConv2d(
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size,
                    stride=child.stride,
                    padding=child.padding,
                    bias=False,
                    weight_bit_width=bits,
                )
                twin.weight.data.copy_(child.weight)
                setattr(module, name, twin)
            elif isinstance(child, nn.Linear):
                setattr(module, name, qnn.QuantLinear(child.in_features, child.out_features, True, weight_bit_width=8))
            elif isinstance(child, nn.ReLU):
                setattr(module, name, qnn.QuantReLU(bit_width=BITS))
            else:
                swap(child, first)

    quantized = network()
    swap(quantized, [True])
    return quantized


def with_torch_ao() -> nn.Module:
    """torch.ao's graph-mode quantization-aware training with its fused fake-quantize modules."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    example = (torch.rand(2, 3, 32, 32),)
    return prepare_qat_fx(network().train(), get_default_qat_qconfig_mapping("x86"), example)


def stepper(trained: nn.Module) -> Callable[[], None]:
    """A whole step: forward, backward, update."""
    trained = trained.train().to(memory_format=torch.channels_last)
    images = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(255)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.arange(BATCH) % 10
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(trained(images), targets).backward()
        optimizer.step()

    return step


def saved_megabytes(trained: nn.Module) -> float:
    """Memory that the forward pass keeps for the backward pass, each storage once, without parameters."""
    trained = copy.deepcopy(trained).train().to(memory_format=torch.channels_last)
    images = torch.rand(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    own = {parameter.untyped_storage().data_ptr() for parameter in trained.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: alive.append(t) or keep(t), lambda t: t):
        loss = trained(images).sum()
    del loss
    return round(sum(kept.values()) / 1e6, 1)


def main() -> None:
    """Time all of them in turn and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    networks: dict[str, nn.Module] = {
        "float": network(),
        "tenfold SAT": ours(SAT(w_bits=BITS, a_bits=BITS)),
        "tenfold QAT": ours(QAT(w_bits=BITS, a_bits=BITS)),
        "torch.ao": with_torch_ao(),
        "Brevitas": with_brevitas(),
    }
    memory = {name: saved_megabytes(trained) for name, trained in networks.items()}
    timings = interleaved({name: stepper(trained) for name, trained in networks.items()}, rounds=arguments.rounds)
    reference = timings["float"]
    rows: dict[str, Any] = {
        name: {
            "median_ms": round(timing.median_ms, 2),
            "minimum_ms": round(timing.minimum_ms, 2),
            "median_ratio": round(timing.median_ms / reference.median_ms, 3),
            "minimum_ratio": round(timing.minimum_ms / reference.minimum_ms, 3),
            "saved_mb": memory[name],
        }
        for name, timing in timings.items()
    }
    write_record(
        RESULTS,
        {
            "machine": machine(),
            "batch": BATCH,
            "bits": BITS,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "results": rows,
        },
    )
    for name, row in rows.items():
        print(f"{name:14} {row}")


if __name__ == "__main__":
    main()
