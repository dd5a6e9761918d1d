"""One training step: float, ours with both engines, Brevitas and torch.ao's fake quantization.

On ResNet-18 for 32x32 images, batch 16, or MobileNetV2 for 224x224 images, batch 8. Weights and activations have 4 bits
(torch.ao: 8, its fused fake-quantize has no cheaper one), channels-last, fp32 unless a row says bf16, SGD and momentum.
All are stepped in turn (A B C D A B C D …) in one process, so that a busy machine slows all of them alike; what is
recorded is the ratio to the float step of the same layout.

    pip install brevitas
    python benchmarks/qat_step.py                          # about three minutes on two quiet cores
    python benchmarks/qat_step.py --network mobilenet_v2   # about five

Recorded in results/qat_step.json and results/qat_step_mobilenet_v2.json. Without VNNI there are no rows of integers.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from record import machine, write_record
from tenfold import models, quant
from tenfold.cost import Timing, interleaved
from tenfold.methods import QAT, SAT
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
BATCH, BITS = 16, 4
SETTINGS = {"resnet18_cifar": (32, BATCH), "mobilenet_v2": (224, 8)}
"""Side of the images, and how many."""


def network(name: str = "resnet18_cifar") -> nn.Module:
    """The float network, the same weights each time."""
    torch.manual_seed(0)
    return models.build(name, num_classes=10)


def ours(method: QAT | SAT, name: str, engine: quant.IntegerEngine | None = None) -> nn.Module:
    """Quantized by one of our methods."""
    side, _ = SETTINGS[name]
    return quant.use_engine(method.attach(network(name), None, torch.rand(4, 3, side, side) * 255), engine)


def with_brevitas(name: str) -> nn.Module:
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
                    groups=child.groups,
                    bias=False,
                    weight_bit_width=bits,
                )
                twin.weight.data.copy_(child.weight)
                setattr(module, name, twin)
            elif isinstance(child, nn.Linear):
                setattr(module, name, qnn.QuantLinear(child.in_features, child.out_features, True, weight_bit_width=8))
            elif isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, name, qnn.QuantReLU(bit_width=BITS))
            else:
                swap(child, first)

    quantized = network(name)
    swap(quantized, [True])
    return quantized


def with_torch_ao(name: str) -> nn.Module:
    """torch.ao's graph-mode quantization-aware training with its fused fake-quantize modules."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    side, _ = SETTINGS[name]
    example = (torch.rand(2, 3, side, side),)
    return prepare_qat_fx(network(name).train(), get_default_qat_qconfig_mapping("x86"), example)


def stepper(trained: nn.Module, name: str, *, autocast: bool = False) -> Callable[[], None]:
    """A whole step: forward, backward, update."""
    trained = trained.train().to(memory_format=torch.channels_last)
    side, batch = SETTINGS[name]
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).mul(255)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.arange(batch) % 10
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(trained(images), targets)
        loss.backward()
        optimizer.step()

    return step


def saved_megabytes(trained: nn.Module, name: str = "resnet18_cifar", *, autocast: bool = False) -> float:
    """Memory that the forward pass keeps for the backward pass, each storage once, without parameters."""
    trained = copy.deepcopy(trained).train().to(memory_format=torch.channels_last)
    side, batch = SETTINGS[name]
    images = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
    own = {parameter.untyped_storage().data_ptr() for parameter in trained.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    alive = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: alive.append(t) or keep(t), lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = trained(images).sum()
    del loss
    return round(sum(kept.values()) / 1e6, 1)


def beside_float(timings: Mapping[str, Timing], memory: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """What is recorded of each step: its time, that over the row "float", and the memory that it keeps."""
    reference = timings["float"]
    return {
        row: {
            "median_ms": round(timing.median_ms, 2),
            "minimum_ms": round(timing.minimum_ms, 2),
            "median_ratio": round(timing.median_ms / reference.median_ms, 3),
            "minimum_ratio": round(timing.minimum_ms / reference.minimum_ms, 3),
            "saved_mb": memory[row],
        }
        for row, timing in timings.items()
    }


def main() -> None:
    """Time all of them in turn and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--network", choices=SETTINGS, default="resnet18_cifar")
    parser.add_argument("--no-peers", action="store_true", help="leave out Brevitas and torch.ao")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    name = arguments.network
    sat, qat = SAT(w_bits=BITS, a_bits=BITS), QAT(w_bits=BITS, a_bits=BITS)
    networks: dict[str, nn.Module] = {
        "float": network(name),
        "float, bf16": network(name),
        "tenfold SAT": ours(sat, name),
        "tenfold QAT": ours(qat, name),
    }
    if not quant.missing_instructions():
        networks["tenfold SAT, integers"] = ours(sat, name, quant.IntegerEngine("fp32"))
        networks["tenfold SAT, integers, bf16 backward"] = ours(sat, name, quant.IntegerEngine("bf16"))
    if not arguments.no_peers:
        networks |= {"torch.ao": with_torch_ao(name), "Brevitas": with_brevitas(name)}
    memory, steps = {}, {}
    for row, trained in networks.items():
        autocast = row == "float, bf16"
        memory[row] = saved_megabytes(trained, name, autocast=autocast)
        steps[row] = stepper(trained, name, autocast=autocast)
    rows = beside_float(interleaved(steps, rounds=arguments.rounds), memory)
    write_record(
        RESULTS / f"qat_step{'' if name == 'resnet18_cifar' else '_' + name}.json",
        {
            "machine": machine(),
            "network": name,
            "batch": SETTINGS[name][1],
            "bits": BITS,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "results": rows,
        },
    )
    for title, row in rows.items():
        print(f"{title:36} {row}")


if __name__ == "__main__":
    main()
