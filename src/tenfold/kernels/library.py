"""The compiled library: finding it, and asking whether it is in use."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tenfold.kernels.build import LIBRARY

SWITCH = "TENFOLD_KERNELS"
"""Environment variable; "off" leaves the native kernels out."""

_LEVELS = {0: "baseline", 1: "AVX2", 2: "AVX-512"}

_float, _int, _long, _pointer = ctypes.c_float, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "affine_round": (
        [_pointer, _pointer, _long, _float, _float, _float, _float, _int, _float, _float],
        None,
    ),
    "interpolate": ([_pointer, _pointer, _long, _pointer], None),
    "interpolate_slope": ([_pointer, _pointer, _long, _pointer, _pointer], None),
    "clip_backward": ([_pointer, _pointer, _pointer, _pointer, _long, _float, _float, _int, _pointer], None),
    "tanh": ([_pointer, _pointer, _long], None),
    "moments": ([_pointer, _long, _pointer], None),
    "tanh_backward": ([_pointer, _pointer, _pointer, _long, _float, _pointer], None),
    "depthwise_backward": ([*[_pointer] * 6, _long, _long], _int),
    "align": ([*[_pointer] * 4, _long, _long], None),
    "align_backward": ([*[_pointer] * 4, _long, _long], None),
    "encode": ([_pointer, _pointer, _long, *[_float] * 4, _int, _float, _float], _int),
    "code_sums": ([_pointer, _long, _int, _pointer], None),
    "decode_backward": (
        [_pointer, _int, _pointer, _pointer, _pointer, _long, *[_float] * 5, _int, _pointer],
        None,
    ),
    "copy_colours": ([*[_pointer] * 4, _long, *[_pointer] * 2, *[_long] * 4, *[_pointer] * 2], _long),
    "harmonic": ([_pointer, _pointer, _long, _long, _long, _float, _int], _int),
    "find": ([_pointer, _long, _float], _long),
}


class Library:
    """The kernels of the best level that this processor can run, as attributes.

    Args:
        path: of the library.

    Raises:
        OSError: if it cannot be loaded.
        AttributeError: if it is of another version.
    """

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        level = int(loaded.tenfold_level())
        self.level = _LEVELS[level]
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(loaded, f"tenfold_{name}_{level}")
            function.argtypes, function.restype = arguments, result
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the library of native kernels has no function {name!r}.")


@cache
def _loaded() -> Library | str:
    """The library, or why there is none."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "false", "no"):
        return f"turned off by {SWITCH}={os.environ[SWITCH]}"
    path = Path(__file__).parent / LIBRARY
    if not path.exists():
        return "not compiled: install a C compiler, then install tenfold again"
    try:
        return Library(path)
    except (OSError, AttributeError) as error:
        return f"cannot be loaded ({error}): install tenfold again"


_is_on = True


def native() -> Library | None:
    """The library, where it is there and turned on."""
    loaded = _loaded()
    return loaded if _is_on and isinstance(loaded, Library) else None


def required() -> Library:
    """The library, for callers that have asked whether there is one."""
    library = native()
    assert library is not None
    return library


def state() -> tuple[bool, str]:
    """Whether native kernels are in use, and which, or why not."""
    loaded = _loaded()
    return (True, loaded.level) if isinstance(loaded, Library) else (False, loaded)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Only PyTorch's own operators within this context, in the whole process."""
    global _is_on
    before, _is_on = _is_on, False
    try:
        yield
    finally:
        _is_on = before
