"""Turn what was noted in a run into the rows of a bill: bits, BitOPs, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tenfold.cost.ledger import LayerCost, Profile
from tenfold.cost.recorder import Recorder, Work
from tenfold.errors import UsageError

BitPolicy: TypeAlias = Callable[[str, nn.Module, int, int], tuple[int, int]]

FLOAT_BITS = 32


def make_rows(recorder: Recorder, policy: BitPolicy | None) -> Profile:
    """The bill of a finished run.

    Raises:
        UsageError: if the policy, or an attribute of a module, gives bits that are no whole number from 0 to 32.
    """
    modules = dict(recorder.network.named_modules())
    works = sorted(recorder.works.values(), key=lambda work: work.order)
    weighted = [work for work in works if work.has_weight]
    bits = {id(work): _said_bits(work.module, modules[work.module]) for work in works}
    if policy is not None:
        for idx, work in enumerate(weighted):
            name, module = work.module, modules[work.module]
            bits[id(work)] = _checked_bits(policy(name, module, idx, len(weighted)), name)

    # Every parameter has one row: the first work that used it, else the row of its module.
    first_user: dict[str, Work] = {}
    for work in works:
        for name in work.parameters:
            first_user.setdefault(name, work)
    by_module = {work.module: work for work in reversed(works)}
    numels: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for name, parameter in recorder.network.named_parameters():
        module_name, _, short_name = name.rpartition(".")
        module = modules[module_name]
        user = first_user.get(name) or by_module.get(module_name)
        if user is None:
            kind = "norm" if _is_norm(module) else "parameters"
            user = Work(module_name, kind, has_weight=False, order=_place(recorder, module_name))
            by_module[module_name] = user
            works.append(user)
            bits[id(user)] = _said_bits(module_name, module)
        w_bits = bits[id(user)][0] if name in user.weights else _storage_bits(short_name, module_name, module)
        numels[id(user)] = numels.get(id(user), 0) + parameter.numel()
        sizes[id(user)] = sizes.get(id(user), 0) + -(-parameter.numel() * w_bits // 8)

    layers = []
    for work in sorted(works, key=lambda work: work.order):
        w_bits, a_bits = bits[id(work)]
        if work.macs and not work.has_weight:
            w_bits = a_bits
        layers.append(
            LayerCost(
                name=work.module,
                kind=work.kind,
                macs=work.macs,
                params=numels.get(id(work), 0),
                w_bits=w_bits,
                a_bits=a_bits,
                bitops=work.macs * w_bits * a_bits,
                size_bytes=sizes.get(id(work), 0),
                input_bytes=-(-work.input_values * a_bits // 8),
                activation_bytes=-(-work.output_values * a_bits // 8),
                output_shape=work.output_shape,
            )
        )
    return Profile(tuple(layers))


def _place(recorder: Recorder, module_name: str) -> int:
    """Where in the run a module was first called; modules that were not come last."""
    return recorder.first_calls.get(module_name, recorder.steps + 1)


def _said_bits(name: str, module: nn.Module) -> tuple[int, int]:
    return _checked_bits((getattr(module, "w_bits", FLOAT_BITS), getattr(module, "a_bits", FLOAT_BITS)), name)


def _checked_bits(bits: object, name: str) -> tuple[int, int]:
    if (
        not isinstance(bits, tuple)
        or len(bits) != 2
        or not all(isinstance(b, int) and 0 <= b <= FLOAT_BITS for b in bits)
    ):
        raise UsageError(
            f"layer {name!r} has bits {bits!r}; needed are two whole numbers from 0 to 32: of weights and of inputs."
        )
    return bits


def _storage_bits(short_name: str, module_name: str, module: nn.Module) -> int:
    """Bits in a file of a parameter that no product uses as its weight."""
    if short_name == "alpha" or _is_norm(module):
        return 0  # folded into its neighbours
    if short_name.endswith("bias"):
        return FLOAT_BITS
    return _said_bits(module_name, module)[0]


def _is_norm(module: nn.Module) -> bool:
    torch_norms = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(module, torch_norms) or "norm" in type(module).__name__.lower()
