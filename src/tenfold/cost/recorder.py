"""Watch one run of a network and note the work of every operator, by module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from tenfold.cost.operations import Call, Operation, find_operations
from tenfold.errors import CountError

# What these give depends on the shape of their input, not on its values.
_SHAPE_ONLY = {f"aten::{name}_like" for name in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")} | {
    f"aten::new_{name}" for name in ("zeros", "ones", "empty", "full", "empty_strided")
}


@dataclass(eq=False)
class Work:
    """What one module did of one kind.

    Attributes:
        module: qualified name of the module; `order` is the place in the run of its first call.
        kind: kind of the operation; `has_weight` tells whether one operand came from parameters alone.
        weights: names of the parameters behind that operand.
        parameters: names of all parameters that went in unmixed with activations: weights and biases.
        input_values, output_values: numbers of activations read and written by the call that moved most.
        declared: whether the module itself said what is counted.
    """

    module: str
    kind: str
    has_weight: bool
    order: int
    macs: int = 0
    weights: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    input_values: int = 0
    output_values: int = 0
    output_shape: tuple[int, ...] = ()
    declared: bool = False


class Recorder(TorchDispatchMode):
    """Notes the work of all operators that run while it is entered.

    Each tensor is known to be an activation (it depends on the network's input), or to come from certain parameters
    alone, or to be a constant. This is followed through all operators, so that a weight is recognized after it was
    transposed, normalized, quantized or generated.

    A module with a method `declared_macs` (of the arguments of forward) and an attribute `kind_of_work` is believed:
    where a paper's table counts otherwise than operator by operator, its layer says how.

    Args:
        network: what will run; gets hooks that stay, so give a copy.
        inputs: its inputs.
    """

    supports_higher_order_operators = True

    def __init__(self, network: nn.Module, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.works: dict[tuple[str, str, bool], Work] = {}
        self.steps = 0  # how far the run is
        self.first_calls: dict[str, int] = {}  # module name -> its step
        self._works_of: defaultdict[str, list[Work]] = defaultdict(list)
        self._stack: list[str] = [""]
        # Views share their storage, so writing through one makes activations of all.
        self._activations = {_storage(tensor) for tensor in inputs}
        self._origins = WeakTensorKeyDictionary()
        for name, parameter in network.named_parameters():
            self._origins[parameter] = frozenset({name})
        for name, module in network.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name), prepend=True)
            module.register_forward_hook(partial(self._leave, name), always_call=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            raise self._unknown(str(func))
        operations = find_operations(func)
        if operations is None:
            with self:
                output = func.decompose(*args, **kwargs)
            if output is NotImplemented:
                raise self._unknown(func._schema.name)
            return output
        output = func(*args, **kwargs)
        inputs = _tensors((args, kwargs))
        self._follow(func, inputs, _tensors(output))
        if operations:
            call = Call(func, args, kwargs, output)
            for operation in operations:
                self._note(operation, call, inputs)
        return output

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self._stack.append(name)
        self.first_calls.setdefault(name, self._tick())

    def _leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()
        if hasattr(module, "declared_macs"):
            self._declare(name, module, args, output)
        if isinstance(output, Tensor):
            # An operator may see tokens or heads flattened into the batch; the module's own shape says more.
            for work in self._works_of[name]:
                if work.output_values == output.numel():
                    work.output_shape = tuple(output.shape)

    def _declare(self, name: str, module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        """Believe a module that says how its work is counted, instead of its own operators (not its submodules')."""
        for work in [work for work in self._works_of[name] if not work.declared]:
            self._works_of[name].remove(work)
            del self.works[work.module, work.kind, work.has_weight]
        key = (name, str(module.kind_of_work), False)
        if key not in self.works:
            self.works[key] = Work(*key, order=self._tick(), declared=True)
            self._works_of[name].append(self.works[key])
        work = self.works[key]
        work.macs += module.declared_macs(*args)
        work.input_values = max(work.input_values, sum(tensor.numel() for tensor in _tensors(args)))
        work.output_values, work.output_shape = output.numel(), tuple(output.shape)

    def _tick(self) -> int:
        self.steps += 1
        return self.steps

    def _follow(self, func: torch._ops.OpOverload, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        if func._schema.name in _SHAPE_ONLY:
            return
        if any(self._is_activation(tensor) for tensor in inputs):
            self._activations.update(_storage(tensor) for tensor in outputs)
            return
        origins = frozenset[str]().union(*(self._origins.get(tensor, frozenset()) for tensor in inputs))
        if origins:
            for tensor in outputs:
                self._origins[tensor] = origins

    def _is_activation(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self._activations

    def _note(self, operation: Operation, call: Call, inputs: list[Tensor]) -> None:
        macs = operation.macs(call)
        if not macs:
            return
        operands = [call[name] for name in operation.operands]
        if any(tensor.is_complex() for tensor in operands):
            macs *= 4
        weights: set[str] = set()
        for tensor in operands:
            if not self._is_activation(tensor):
                weights |= self._origins.get(tensor, frozenset())
        kind = operation.kind if weights or operation.kind != "linear" else "matmul"
        key = (self._stack[-1], kind, bool(weights))
        if key not in self.works:
            self.works[key] = Work(*key, order=self._tick())
            self._works_of[key[0]].append(self.works[key])
        work = self.works[key]
        work.macs += macs
        work.weights |= weights
        read = 0
        for tensor in inputs:
            if self._is_activation(tensor):
                read += tensor.numel()
            else:
                work.parameters |= self._origins.get(tensor, frozenset())
        written = call.output.numel()
        if read + written > work.input_values + work.output_values:
            work.input_values, work.output_values = read, written
            work.output_shape = tuple(call.output.shape)

    def _unknown(self, operator: str) -> CountError:
        place = f"module {self._stack[-1]!r}" if self._stack[-1] else "the network itself"
        if "::" in operator:
            rule = f"tenfold.cost.register_operation({operator!r}, macs=lambda call: ...)"
            advice = f"Add a rule with {rule}, or macs=0 if it multiplies nothing."
        else:
            advice = "It runs functions of its own; write this part with plain operators."
        return CountError(
            f"cannot count the operator {operator} in {place}: its cost is unknown, and zero would be a guess. {advice}"
        )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> StorageWeakRef:
    if tensor.layout is not torch.strided:
        raise CountError(
            f"cannot count with a tensor of layout {tensor.layout}: how much of it is multiplied is hidden. "
            "Give the network with plain dense tensors."
        )
    return StorageWeakRef(tensor.untyped_storage())
