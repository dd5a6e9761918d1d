"""Less memory for more time: what the backward pass computes again instead of keeping it.

Between two convolutions stand a batch norm, an activation and a quantizer. Each keeps a tensor for its gradient,
although all of them follow from the input of the batch norm in a few cheap passes. Within `recomputing()` only that
input is kept, and the others are made anew by the same functions, so that all numbers stay the same to the bit.

`layers/recompute.py` does the like for the blocks of AtomNAS, where it also saves time. (In-place activated batch norm,
arXiv 1712.02616, spares the same tensors by inverting the activation, which ReLU does not allow.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

_SMALL = 2048
"""Numbers up to which a tensor is simply kept."""


class _Saved:
    """A tensor that is kept, and its version: autograd no longer sees for itself that nobody wrote into it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version

    def take(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                "a tensor that the backward pass needs was modified by an inplace operation after the forward pass: "
                f"it is at version {self.tensor._version}; expected version {self.version} instead."
            )
        return self.tensor


class _Recipe:
    """A tensor that is made anew: once for all who want it, and given up when the last of them has had it."""

    def __init__(self, function: Callable[..., Tensor], sources: Sequence[_Source]) -> None:
        self.function, self.sources = function, sources
        self.wanted = self.waiting = 0
        self.made: Tensor | None = None

    def take(self) -> Tensor:
        made = self.made
        if made is None:
            inputs = [one.take() for one in self.sources]
            with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
                made = self.function(*inputs)
            self.waiting = self.wanted
        self.waiting -= 1
        self.made = made if self.waiting > 0 else None
        return made


class _Box:
    """What autograd holds in place of a tensor. Its contents may still change: see `_note_activation`."""

    def __init__(self, source: _Source) -> None:
        self.source = source


_Source: TypeAlias = _Saved | _Recipe


class _Book:
    """The recipes of the tensors that are alive, by the memory that they lie in."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[weakref.ref[Tensor], int, _Recipe]] = {}
        self.newest: Callable[[], _Box | None] = lambda: None

    def write(self, tensor: Tensor, recipe: _Recipe) -> None:
        place = tensor.untyped_storage().data_ptr()

        def forget(dead: weakref.ref[Tensor]) -> None:  # before the memory gets a new owner
            if (entry := self.entries.get(place)) is not None and entry[0] is dead:
                del self.entries[place]

        self.entries[place] = weakref.ref(tensor, forget), tensor._version, recipe

    def find(self, tensor: Tensor, *, writes_since: int = 0) -> _Recipe | None:
        """The recipe of a tensor that was written into so many times since; None if it has none."""
        entry = self.entries.get(tensor.untyped_storage().data_ptr())
        if entry is None or (original := entry[0]()) is None or entry[1] + writes_since != tensor._version:
            return None
        same = (tensor.shape, tensor.stride(), tensor.dtype) == (original.shape, original.stride(), original.dtype)
        return entry[2] if same and tensor.storage_offset() == original.storage_offset() else None


_book: _Book | None = None


def recomputable(output: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Let the backward pass compute a tensor again instead of keeping it, within `recomputing()`; elsewhere do nothing.

    To be called before anybody saves the tensor.

    Args:
        output: `function(*inputs)`.
        function: must give the same each time, to the bit; is called without gradients and without autocast.
        inputs: kept instead, unless they are recomputable themselves.
    """
    if _book is not None and output.numel() > _SMALL and not output.is_inference():
        _book.write(output, _Recipe(function, [_source(one) for one in inputs]))


@contextmanager
def recomputing(enabled: bool = True) -> Iterator[None]:
    """Forward passes within keep the inputs of batch norms, and not what activations and quantizers make of them.

    For the whole process. Serves `torch.nn.BatchNorm2d` in training, `ReLU` and `ReLU6` directly behind it, and
    whatever calls `recomputable`. Not for compiled networks, which decide for themselves.

    Args:
        enabled: whether at all.
    """
    global _book
    if not enabled or _book is not None:
        yield
        return
    _book = _Book()
    hook = register_module_forward_hook(_note)
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, lambda box: box.source.take()):
            yield
    finally:
        hook.remove()
        _book = None


def _source(tensor: Tensor) -> _Source:
    """Where the backward pass will have a tensor from; to be called for each time that it will take it."""
    recipe = _book.find(tensor) if _book is not None else None
    if recipe is None:
        return _Saved(tensor)
    recipe.wanted += 1
    return recipe


def _pack(tensor: Tensor) -> _Box:
    box = _Box(_source(tensor))
    if _book is not None:
        _book.newest = weakref.ref(box)
    return box


def _note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """Note how a batch norm, or an activation behind one, made its output."""
    if not torch.is_grad_enabled():
        return
    if type(module) is nn.BatchNorm2d and module.training:
        parameters = () if module.weight is None else (module.weight, module.bias)
        recomputable(output, _normalization(module.eps), inputs[0], *parameters)
    elif type(module) in _ACTIVATIONS and _book is not None:
        _note_activation(_book, _ACTIVATIONS[type(module)], inputs[0], output)


_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.ReLU: F.relu, nn.ReLU6: F.relu6}


def _normalization(epsilon: float) -> Callable[..., Tensor]:
    def normalize(input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return F.batch_norm(input, None, None, weight, bias, training=True, eps=epsilon)

    return normalize


def _note_activation(book: _Book, function: Callable[[Tensor], Tensor], input: Tensor, output: Tensor) -> None:
    """Only where its input is recomputable: another one would be kept in place of the output, and nothing be won.

    The activation itself has saved its output or its input by now, just before this.
    """
    before = book.find(input, writes_since=1 if input is output else 0)
    if before is None:
        return
    before.wanted += 1
    recipe = _Recipe(function, [before])
    book.write(output, recipe)
    box = book.newest()
    if box is not None and isinstance(box.source, _Saved) and book.find(box.source.tensor) is recipe:
        box.source = recipe
        recipe.wanted += 1
