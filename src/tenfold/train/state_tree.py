"""Nested states (of optimisers, methods, generators) taken apart into tensors and JSON, and put together again.

This is what lets a checkpoint hold everything without pickle: tensors go to safetensors, the skeleton to its header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tenfold.errors import CheckpointError

# In the skeleton, {"$kind": ...} stands for a value that JSON has no word for; a real key may not begin with "$".
_MARK = "$"


def pack(tree: Any, prefix: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Take a tree apart.

    Args:
        tree: nested dicts (keys: str or int), lists and tuples of tensors, numbers, strings, booleans and None.
        prefix: begins the name of every tensor.

    Returns:
        The skeleton, ready for JSON, and its tensors by name: on the CPU, contiguous, owned by nobody else.

    Raises:
        CheckpointError: for a value of another type; the message gives its place and type.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, prefix, tensors), tensors


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = path or "value"
        while name in tensors:  # {"a/b": x, "a": {"b": y}}
            name += "'"
        # A copy, for two reasons: the file format forbids shared storage, and training may go on while it is written.
        tensors[name] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
        skeleton: dict[str, Any] = {"$tensor": name}
        layout = torch.empty_like(value, device="meta")  # the strides of `value` if it fills its memory without gaps
        if not layout.is_contiguous():
            skeleton["stride"] = list(layout.stride())
        return skeleton
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith(_MARK) for key in value):
            return {key: _pack(item, f"{path}/{key}" if path else key, tensors) for key, item in value.items()}
        if all(isinstance(key, (int, str)) for key in value):
            return {"$items": [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    raise CheckpointError(
        f"cannot save {path or 'the state'}: it is a {type(value).__name__}. A state may hold tensors, numbers, "
        "strings, booleans, None, and dicts (keys: strings or integers), lists and tuples of these."
    )


def unpack(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what `pack` took apart, with every tensor in its former memory layout.

    Raises:
        KeyError: if a tensor is missing.
    """
    if isinstance(skeleton, list):
        return [unpack(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if "$tensor" in skeleton:
        tensor = tensors[skeleton["$tensor"]]
        if "stride" not in skeleton:
            return tensor
        # The layout decides which kernel runs, and with it the last bit of a sum.
        return torch.empty_strided(tuple(tensor.shape), tuple(skeleton["stride"]), dtype=tensor.dtype).copy_(tensor)
    if "$float" in skeleton:
        return float(skeleton["$float"])
    if "$tuple" in skeleton:
        return tuple(unpack(item, tensors) for item in skeleton["$tuple"])
    if "$items" in skeleton:
        return {key: unpack(item, tensors) for key, item in skeleton["$items"]}
    return {key: unpack(item, tensors) for key, item in skeleton.items()}
