"""Let the C library keep freed memory: training asks for the same buffers in every step.

By default glibc maps every large block from the kernel and gives it back when it is freed, so each step of a training
touches its activations page by page as if for the first time. `benchmarks` and `docs` record what keeping them saves;
on MobileNetV2 it was a third of the CPU time.
"""

from __future__ import annotations

import ctypes
import os

_MIB = 1 << 20

# glibc, malloc/malloc.h. The largest threshold that it accepts on 64-bit systems is half of HEAP_MAX_SIZE.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = 32 * _MIB, 1024 * _MIB, 256 * _MIB


def keep_freed_memory() -> bool:
    """Make this process reuse freed blocks instead of returning them to the kernel.

    Call it before the first tensor is allocated. Numbers do not change; the process may hold up to 1 GiB that it no
    longer needs, until it ends. Elsewhere than on glibc, or where the user has set malloc's own variables, nothing is
    done.

    Returns:
        Whether the settings are in force.
    """
    if not _is_glibc() or any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    settings = ((_M_MMAP_THRESHOLD, _MMAP_THRESHOLD), (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD), (_M_TOP_PAD, _TOP_PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # other systems know no such name
        return False
