"""Turn what was noted in a run into the rows of a bill: bits, BitOPs, bytes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tenfold.cost.ledger import LayerCost, Profile
from tenfold.cost.recorder import Recorder, Work
from tenfold.errors import UsageError
from tenfold.products import Product

Bits: TypeAlias = "int | tuple[int, ...]"
"""Bits of a tensor: one number, or one for each kernel of a weight or channel of an input."""
BitPolicy: TypeAlias = Callable[[str, nn.Module, int, int], tuple[Bits, Bits]]

FLOAT_BITS = 32


def make_rows(recorder: Recorder, network: nn.Module, policy: BitPolicy | None) -> Profile:
    """The bill of a finished run.

    Args:
        recorder: of the run.
        network: what the run's network is a copy of; it is asked for its bits, as the copy may have no values.
        policy: bits of layers, see `profile`; None asks the network.

    Raises:
        UsageError: if the policy, or an attribute of a module, gives bits that are no whole number from 0 to 32.
    """
    modules = dict(network.named_modules())
    works = sorted(recorder.works.values(), key=lambda work: work.order)
    bits = _bits_of_works(works, modules, policy)
    users = _users_of_parameters(recorder, works, modules)
    params: defaultdict[Work, int] = defaultdict(int)
    sizes: defaultdict[Work, int] = defaultdict(int)
    for name, parameter in recorder.network.named_parameters():
        work = users[name]
        is_weight = name in work.weights and not _is_learned_bits(name)
        stored_bits = bits[work][0] if is_weight else _stored_bits(name, modules)
        params[work] += parameter.numel()
        sizes[work] += _stored_bytes(parameter.numel(), stored_bits)
        bits.setdefault(work, _said_bits(work.module, modules))

    return Profile(
        tuple(
            LayerCost(
                name=work.module,
                kind=work.kind,
                macs=work.macs,
                params=params[work],
                w_bits=mean_bits(bits[work][0]),
                a_bits=mean_bits(bits[work][1]),
                # A pool adds up, and multiplies nothing that has bits.
                bitops=0
                if work.kind == "pool"
                else _bitops(work.macs, *bits[work], groups=getattr(modules[work.module], "groups", 1)),
                size_bytes=sizes[work],
                input_bytes=_bytes(work.input_values, mean_bits(bits[work][1])),
                activation_bytes=_bytes(work.output_values, mean_bits(bits[work][1])),
                output_shape=work.output_shape,
            )
            for work in sorted(bits, key=lambda work: work.order)
        )
    )


def checked_bits(bits: object, owner: str) -> tuple[Bits, Bits]:
    """The pair (weight bits, input bits), if it is one."""
    if isinstance(bits, tuple) and len(bits) == 2 and all(map(_are_bits, bits)):
        return bits
    raise UsageError(f"{owner} has bits {bits!r}; needed are two whole numbers from 0 to 32: of weights and of inputs.")


def _are_bits(bits: object) -> bool:
    if isinstance(bits, tuple):
        return bool(bits) and all(isinstance(one, int) and 0 <= one <= FLOAT_BITS for one in bits)
    return isinstance(bits, int) and 0 <= bits <= FLOAT_BITS


def mean_bits(bits: Bits) -> float:
    """The mean over the channels; an integer where all are the same."""
    return bits if isinstance(bits, int) else sum(bits) / len(bits)


def _bitops(macs: int, w_bits: Bits, a_bits: Bits, groups: int) -> int:
    """Sum over all multiply-adds of weight bits times input bits.

    Each pair of a kernel and a channel of its group makes as many multiply-adds as any other (`fracbits.md` 2.4).
    """
    if isinstance(w_bits, int) and isinstance(a_bits, int):
        return macs * w_bits * a_bits
    kernels = (w_bits,) * groups if isinstance(w_bits, int) else w_bits
    channels = (a_bits,) * groups if isinstance(a_bits, int) else a_bits
    wide, deep = len(kernels) // groups, len(channels) // groups
    total = sum(
        sum(kernels[group * wide : (group + 1) * wide]) * sum(channels[group * deep : (group + 1) * deep])
        for group in range(groups)
    )
    return macs * total // (groups * wide * deep)


def _bits_of_works(
    works: list[Work], modules: dict[str, nn.Module], policy: BitPolicy | None
) -> dict[Work, tuple[Bits, Bits]]:
    bits = {work: _said_bits(work.module, modules) for work in works}
    weighted = [work for work in works if work.has_weight]
    for work in works:
        if not work.has_weight and not isinstance(modules[work.module], Product):
            bits[work] = (bits[work][1], bits[work][1])  # both operands are activations, and of one kind
    if policy is not None:
        for idx, work in enumerate(weighted):
            name = work.module
            bits[work] = checked_bits(policy(name, modules[name], idx, len(weighted)), f"layer {name!r}")
    return bits


def _users_of_parameters(recorder: Recorder, works: list[Work], modules: dict[str, nn.Module]) -> dict[str, Work]:
    """The one row of each parameter: the first work that used it, else the row of its module."""
    users: dict[str, Work] = {}
    for work in works:
        for name in work.parameters:
            users.setdefault(name, work)
    rows = {work.module: work for work in reversed(works)}
    for name, _ in recorder.network.named_parameters():
        module_name = name.rpartition(".")[0]
        parent_name = module_name.rpartition(".")[0]
        if module_name not in rows and parent_name in rows and hasattr(modules[parent_name], "w_bits"):
            module_name = parent_name  # the parameters of a quantizer belong to the layer that it serves
        if name not in users:
            if module_name not in rows:
                kind = "norm" if _is_norm(modules[module_name]) else "parameters"
                order = recorder.first_calls.get(module_name, recorder.steps + 1)  # never called: last
                rows[module_name] = Work(module_name, kind, has_weight=False, order=order)
            users[name] = rows[module_name]
    return users


def _said_bits(name: str, modules: dict[str, nn.Module]) -> tuple[Bits, Bits]:
    """What a module says of its bits, in attributes that quantized layers have."""
    module = modules[name]
    said = getattr(module, "w_bits", FLOAT_BITS), getattr(module, "a_bits", FLOAT_BITS)
    return checked_bits(said, f"layer {name!r}")


def _stored_bits(name: str, modules: dict[str, nn.Module]) -> Bits:
    """Bits in a file of a parameter that no product uses as its weight."""
    module_name, _, short_name = name.rpartition(".")
    if short_name == "alpha" or _is_norm(modules[module_name]) or _is_learned_bits(name):
        return 0  # a clipping level or a norm: folded into its neighbours; learned bits: gone before deployment
    if short_name.endswith("bias"):
        return FLOAT_BITS
    return _said_bits(module_name, modules)[0]


def _is_learned_bits(name: str) -> bool:
    """Whether a parameter is a bit-width, which its weight is computed from while it is learned."""
    return name.rpartition(".")[0].endswith(".policy")


def _is_norm(module: nn.Module) -> bool:
    torch_norms = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(module, torch_norms) or "norm" in type(module).__name__.lower()


def _stored_bytes(values: int, bits: Bits) -> int:
    """Bytes of a parameter whose kernels, all of one size, have these bits."""
    return _bytes(values, bits) if isinstance(bits, int) else -(-values * sum(bits) // (8 * len(bits)))


def _bytes(values: int, bits: float) -> int:
    """Bytes that hold so many values packed, the last byte begun counted whole."""
    return math.ceil(values * bits / 8)
