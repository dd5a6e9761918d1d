"""Count what any network costs, by watching every operator of one run.

The run happens on a copy, without arithmetic (fake tensors: shapes only), in evaluation mode. So the network itself is
not touched, whatever its `forward` does, and a network of any size is counted in the time of its Python code.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch.nn.parameter import UninitializedParameter

from tenfold.cost.ledger import Profile
from tenfold.cost.recorder import Recorder
from tenfold.cost.rows import BitPolicy, checked_bits, make_rows
from tenfold.errors import CountError, ShapeError, TenfoldError, UsageError
from tenfold.kernels.library import without_kernels

Example: TypeAlias = "Tensor | tuple[int, ...] | tuple[Tensor, ...]"

_NEEDS_DATA = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
)


def profile(module: nn.Module, example: Example, *, bits: tuple[int, int] | BitPolicy | None = None) -> Profile:
    """Count multiply-adds, parameters, BitOPs and bytes of a network for one image, layer by layer.

    The network is left exactly as it is. Operators outside any submodule count for the network itself (name "").

    Args:
        module: any network.
        example: an input batch (B, ...), of which the first image is taken; or the shape of one image, such as
            (3, 224, 224), which a network that takes more than images turns into arguments by its method
            `example_inputs`; or a tuple of tensors, which are the arguments of `forward`, taken as they are. If what
            the network does depends on the values of its input, only tensors will do.
        bits: bits of the weights and of the inputs of layers that multiply by weights. None takes what each module says
            in its attributes `w_bits` and `a_bits` (32 where it says nothing). A pair (w, a) is the convention of
            `first_and_last`. A function (name, module, idx, count) -> (w, a) decides for each of the `count` such
            layers, in the order of execution. In every case, products of two activations (attention) are done with the
            `a_bits` that their module says, else in 32 bits, since quantizing layers does not touch them.

    Returns:
        One row a layer, and totals.

    Raises:
        CountError: if an operator is met whose cost is unknown, or the work depends on values and `example` is a shape.
        ShapeError: if `example` is empty or has a size below 1.
        UsageError: if the network cannot be copied, or bits are no whole numbers from 0 to 32.

    Whatever `forward` raises comes through as it is.

    Example:
        >>> profile(nn.Conv2d(3, 8, 3), (3, 10, 10)).macs
        13824
    """
    policy = bits if bits is None or callable(bits) else _uniform(bits)
    inputs = _checked_inputs(example)
    network: Any = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    if not isinstance(inputs[0], Tensor) and hasattr(network, "example_inputs"):
        inputs = tuple(network.example_inputs(inputs[0]))
    try:
        recorder = record(network, inputs, fake=True)
    except TenfoldError:
        raise
    except Exception as error:
        if isinstance(inputs[0], Tensor):
            # Either a run without arithmetic met its limits, or forward fails by itself; the real run tells which.
            recorder = record(network, inputs, fake=False)
        elif isinstance(error, _NEEDS_DATA):
            raise CountError(
                f"cannot count from a shape alone: what the network does depends on the values of its input ({error}). "
                "Give a real batch as the example."
            ) from error
        else:
            error.add_note(
                "This was a run without arithmetic, to count cost. A real batch as the example allows a real run."
            )
            raise
    return make_rows(recorder, network, policy)


def first_and_last(w_bits: int, a_bits: int) -> BitPolicy:
    """The usual convention: all layers at `w_bits` and `a_bits`, save the first and the last.

    The first layer works on 8-bit pixels and has weights of at least 8 bits; the last has weights of at least 8 bits
    and an input of `a_bits`.

    Source: SAT, arXiv 1912.10207, section 4.1, and its official code.
    """

    def policy(_name: str, _module: nn.Module, idx: int, count: int) -> tuple[int, int]:
        if idx == 0:
            return max(8, w_bits), max(8, a_bits)
        return (max(8, w_bits) if idx == count - 1 else w_bits), a_bits

    return policy


def _uniform(bits: tuple[int, int]) -> BitPolicy:
    w_bits, a_bits = checked_bits(bits, "this network")
    if not isinstance(w_bits, int) or not isinstance(a_bits, int):
        raise UsageError(f"bits of a whole network are two numbers, of weights and of inputs; got {bits!r}.")
    return first_and_last(w_bits, a_bits)


def _checked_inputs(example: Example) -> tuple[Any, ...]:
    """Tensors, or the shape of one image, as the arguments of forward."""
    if isinstance(example, Tensor):
        if example.ndim == 0 or example.shape[0] == 0:
            raise ShapeError(
                f"the example has shape {tuple(example.shape)}; give a batch (B, ...) of at least one image."
            )
        return (example[:1],)
    if example and all(isinstance(item, Tensor) for item in example):
        return tuple(example)
    if not example or not all(type(size) is int and size > 0 for size in example):
        raise ShapeError(
            f"the example {example!r} is neither a tensor nor the shape of one image, such as (3, 224, 224)."
        )
    return (tuple(example),)


def record(network: nn.Module, inputs: tuple[Any, ...], *, fake: bool) -> Recorder:
    """Watch one run of a copy of a network, with arithmetic or without.

    Args:
        network: any network.
        inputs: the arguments of forward: tensors, or without arithmetic also shapes of one image.
        fake: whether to run without arithmetic.
    """
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    fake_mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True) if fake else None
    # Inference mode first: it would set the gradient mode anew. Under it, composite operators arrive undivided.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(list(devices)),
        _plain_attention(),
        without_kernels(),  # costs are those of PyTorch's operators, wherever they are counted
        _quiet(),
    ):
        twin = _copied(network, fake_mode).eval()
        arguments = [_argument(item, twin, fake_mode) for item in inputs]
        recorder = Recorder(twin, arguments)
        with fake_mode or nullcontext(), recorder:
            twin(*arguments)
    return recorder


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep torch's attention and encoder layers from fusing themselves into one operator, across their submodules."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of an operator that fails on shapes; the error says it all."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was_disabled


def _copied(network: nn.Module, fake_mode: fake_tensor.FakeTensorMode | None) -> nn.Module:
    """A copy to run: forward may cache, count or overwrite there what it likes."""
    if any(isinstance(submodule, torch.jit.ScriptModule) for submodule in network.modules()):
        raise UsageError("cannot count a scripted or traced network. Give the network that it was made from.")
    if any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters()):
        raise UsageError("cannot count a network whose parameters have no shape yet (lazy layers). Run it once first.")
    copying: AbstractContextManager[Any] = fake_tensor.FakeCopyMode(fake_mode) if fake_mode else nullcontext()
    with copying:
        try:
            twin = copy.deepcopy(network)
        except Exception:
            twin = _copied_save_what_cannot_be(network)
    for submodule in twin.modules():
        submodule._compiled_call_impl = None  # module.compile() in place
    return twin


def _copied_save_what_cannot_be(network: nn.Module) -> nn.Module:
    """A copy that shares those attributes which have no copies: operators, locks, groups of processes."""
    shared: dict[int, Any] = {}
    for submodule in network.modules():
        for value in vars(submodule).values():
            try:
                copy.deepcopy(value, dict(shared))
            except Exception:
                if not isinstance(value, dict):  # the dicts that hold parameters and submodules
                    shared[id(value)] = value
    try:
        return copy.deepcopy(network, shared)
    except Exception as error:
        raise UsageError(
            f"cannot copy this {type(network).__name__} in order to count it ({type(error).__name__}: {error}). "
            "Give a network that copy.deepcopy can copy."
        ) from error


def _argument(item: Any, twin: nn.Module, fake_mode: fake_tensor.FakeTensorMode | None) -> Tensor:
    if isinstance(item, Tensor):
        return fake_mode.from_tensor(item.detach()) if fake_mode else item.detach().clone()
    weight = next((p for p in twin.parameters() if p.is_floating_point()), torch.empty(0))
    with fake_mode or nullcontext():
        return torch.empty((1, *item), dtype=weight.dtype, device=weight.device)
