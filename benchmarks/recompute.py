"""What `recompute` spares and costs: memory kept for the backward pass, and time of a step, with it and without.

A float network and its quantized twins, each stepped with activations kept and computed again, all in turn in one
process. Memory is what the forward pass keeps for the backward pass, each storage once, without parameters.

    python benchmarks/recompute.py                 # about three minutes on two quiet cores

Recorded in results/recompute.json. Without VNNI there are no rows of integers.
"""

from __future__ import annotations

import argparse
import copy
import gc
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

import qat_step
from record import machine, write_record
from tenfold import quant
from tenfold.cost import interleaved
from tenfold.methods import SAT, FracBits
from tenfold.recomputation import recomputing
from tenfold.train.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "recompute.json"
BITS = 4


def networks(name: str) -> dict[str, nn.Module]:
    """What is trained; the float network first."""
    sat = SAT(w_bits=BITS, a_bits=BITS)
    side, _ = qat_step.SETTINGS[name]
    learned = FracBits(like=BITS).attach(qat_step.network(name), None, torch.rand(4, 3, side, side) * 255)
    found = {"float": qat_step.network(name), "SAT": qat_step.ours(sat, name), "FracBits": learned}
    if not quant.missing_instructions():
        found["SAT, integers, bf16 backward"] = qat_step.ours(sat, name, quant.IntegerEngine("bf16"))
    return found


def kept_megabytes(trained: nn.Module, name: str) -> float:
    """Memory of all tensors that live between the passes because of them, where activations are computed again."""
    trained = copy.deepcopy(trained).train().to(memory_format=torch.channels_last)
    side, batch = qat_step.SETTINGS[name]
    images = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
    before = _storages()
    with recomputing():
        loss = trained(images).sum()
        sizes = {place: size for place, size in _storages().items() if place not in before}
    del loss
    return round(sum(sizes.values()) / 1e6, 1)


def _storages() -> dict[int, int]:
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, nn.Parameter)]
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """All rows of one network."""
    memory, steps = {}, {}
    for row, trained in networks(name).items():
        for again in (False, True):
            title = row + (", recomputed" if again else "")
            memory[title] = kept_megabytes(trained, name) if again else qat_step.saved_megabytes(trained, name)
            steps[title] = _step(copy.deepcopy(trained), name, again)
    return qat_step.beside_float(interleaved(steps, rounds=rounds), memory)


def _step(trained: nn.Module, name: str, again: bool) -> Any:
    step = qat_step.stepper(trained, name)

    def run() -> None:
        with recomputing(again):
            step()

    return run


def main() -> None:
    """Measure both networks and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    torch.set_num_threads(words.threads)
    results = {name: measure(name, words.rounds) for name in qat_step.SETTINGS}
    facts = {"machine": machine(), "threads": words.threads, "rounds": words.rounds, "bits": BITS}
    write_record(RESULTS, {**facts, "results": results})
    for name, rows in results.items():
        for row, numbers in rows.items():
            print(f"{name:16} {row:40} {numbers}")


if __name__ == "__main__":
    main()
