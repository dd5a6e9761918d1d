"""Count what any network costs, by watching every operator of one run.

The run happens on a copy without arithmetic (fake tensors: shapes only), in evaluation mode. So the network itself is not
touched, whatever its `forward` does, and a network of any size is counted in the time of its Python code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor

from tenfold.cost.ledger import Profile
from tenfold.cost.recorder import Recorder
from tenfold.cost.rows import BitPolicy, make_rows
from tenfold.errors import CountError, ShapeError, UsageError

Example: TypeAlias = "Tensor | tuple[int, ...] | tuple[Tensor, ...]"

_NEEDS_DATA = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
)


def profile(
    module: nn.Module, example: Example, *, bits: tuple[int, int] | BitPolicy | None = None
) -> Profile:
    """Count multiply-adds, parameters, BitOPs and bytes of a network for one image, layer by layer.

    The network is left exactly as it is. Operators outside any submodule count for the network itself (name "").

    Args:
        module: any network.
        example: an input batch (B, ...), of which the first image is taken; or the shape of one image, such as
            (3, 224, 224); or a tuple of tensors, which are the arguments of `forward`, taken as they are. If what the
            network does depends on the values of its input, only tensors will do.
        bits: bits of the weights and of the inputs of layers that multiply by weights. None takes what each module says
            in its attributes `w_bits` and `a_bits` (32 where it says nothing). A pair (w, a) is the convention of
            `first_and_last`. A function (name, module, idx, count) -> (w, a) decides for each of the `count` such
            layers, in the order of execution. In every case, products of two activations (attention) are done with the
            `a_bits` that their module says, else in 32 bits, since quantizing layers does not touch them.

    Returns:
        One row a layer, and totals.

    Raises:
        CountError: if an operator is met whose cost is unknown, or the work depends on data that `example` lacks.
        ShapeError: if `example` is empty or has a size below 1.
        UsageError: if the network cannot be copied, or bits are no whole numbers from 0 to 32.

    Example:
        >>> profile(nn.Conv2d(3, 8, 3), (3, 10, 10)).macs
        13824
    """
    policy = first_and_last(*bits) if isinstance(bits, tuple) else bits
    inputs = _checked_inputs(example)
    network = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    try:
        recorder = _run(network, inputs, fake=True)
    except _NEEDS_DATA as error:
        if not isinstance(inputs[0], Tensor):
            raise CountError(
                f"cannot count from a shape alone: the network does what depends on the values of its input ({error}). "
                "Give a real batch as the example."
            ) from error
        recorder = _run(network, inputs, fake=False)
    return make_rows(recorder, policy)


def first_and_last(w_bits: int, a_bits: int) -> BitPolicy:
    """The usual convention: all layers at `w_bits` and `a_bits`, save the first and the last.

    The first layer works on 8-bit pixels and has weights of at least 8 bits; the last has weights of at least 8 bits and
    an input of `a_bits`.

    Source: SAT, arXiv 1912.10207, section 4.1, and its official code.
    """

    def policy(_name: str, _module: nn.Module, idx: int, count: int) -> tuple[int, int]:
        if idx == 0:
            return max(8, w_bits), max(8, a_bits)
        return (max(8, w_bits) if idx == count - 1 else w_bits), a_bits

    return policy


def _checked_inputs(example: Example) -> tuple[Tensor, ...] | tuple[tuple[int, ...]]:
    if isinstance(example, Tensor):
        if example.ndim == 0 or example.shape[0] == 0:
            raise ShapeError(f"the example has shape {tuple(example.shape)}; give a batch (B, ...) of at least one image.")
        return (example[:1],)
    if example and all(isinstance(item, Tensor) for item in example):
        return tuple(example)  # type: ignore[return-value]
    if not example or not all(type(size) is int and size > 0 for size in example):
        raise ShapeError(
            f"the example {example!r} is neither a tensor nor the shape of one image, such as (3, 224, 224)."
        )
    return (tuple(example),)  # type: ignore[return-value]


def _run(network: nn.Module, inputs: tuple[Any, ...], *, fake: bool) -> Recorder:
    fake_mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True) if fake else None
    twin = _copied(network, fake_mode)
    twin.eval()
    arguments = [_argument(item, twin, fake_mode) for item in inputs]
    recorder = Recorder(twin, arguments)
    devices = {p.device for p in twin.parameters() if p.device.type == "cuda"} if not fake else set()
    with (
        torch.random.fork_rng(devices=list(devices)),
        torch.no_grad(),
        _plain_attention(),
        fake_mode or nullcontext(),
        recorder,
    ):
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


def _copied(network: nn.Module, fake_mode: fake_tensor.FakeTensorMode | None) -> nn.Module:
    """A copy to run: forward may cache, count or overwrite there what it likes."""
    copying: AbstractContextManager[Any] = fake_tensor.FakeCopyMode(fake_mode) if fake_mode else nullcontext()
    try:
        with copying, torch.no_grad():
            twin = copy.deepcopy(network)
    except Exception as error:
        raise UsageError(
            f"cannot copy this {type(network).__name__} to count it ({type(error).__name__}: {error}). Give the plain "
            "network: without wrappers for many devices, scripts, open files or tensors of an unfinished computation."
        ) from error
    for submodule in twin.modules():
        submodule._compiled_call_impl = None  # module.compile() in place
    return twin


def _argument(item: Any, twin: nn.Module, fake_mode: fake_tensor.FakeTensorMode | None) -> Tensor:
    if isinstance(item, Tensor):
        return fake_mode.from_tensor(item.detach()) if fake_mode else item.detach().clone()
    weight = next((p for p in twin.parameters() if p.is_floating_point()), torch.empty(0))
    with fake_mode or nullcontext():
        return torch.empty((1, *item), dtype=weight.dtype, device=weight.device)
