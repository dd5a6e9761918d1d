"""Sharing the work of a kernel between threads.

The kernels themselves are single-threaded. Those that work on consecutive numbers get an array in blocks of a fixed
size, whatever the number of threads, so that sums are rounded alike with any of them; others are told which part of
their work to do, and sum nothing across parts.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

BLOCK = 1 << 18
"""Numbers in a block: one MB of float32."""
_ENOUGH = 4
"""Fewer blocks than this are done before a second thread has begun."""
_PARTS = 2
"""Parts for each thread."""
_FEW = 1 << 15
"""Work on fewer numbers than this is done before a second thread has begun."""

_pool: tuple[int, ThreadPoolExecutor] | None = None


def each_block(count: int, work: Callable[[int, int], Any]) -> Sequence[Any]:
    """Call `work(start, length)` for every block of `count` numbers; the results in order.

    Uses as many threads as torch does. The native functions let go of Python's lock.
    """
    starts = range(0, count, BLOCK)

    def one(start: int) -> Any:
        return work(start, min(BLOCK, count - start))

    threads = torch.get_num_threads()
    if threads == 1 or len(starts) < _ENOUGH:
        return [one(start) for start in starts]
    return list(_threads(threads).map(one, starts))


def sum_blocks(count: int, sums: int, work: Callable[[int, int, Any], None]) -> list[float]:
    """Call `work(start, length, buffer)` for every block; what it has put into its buffer, summed over the blocks.

    Args:
        count: numbers in the array.
        sums: double-precision numbers in a buffer.
        work: fills the buffer, a ctypes array.
    """

    def one(start: int, length: int) -> Any:
        buffer = (ctypes.c_double * sums)()
        work(start, length, buffer)
        return buffer

    return [sum(column) for column in zip(*each_block(count, one), strict=True)] or [0.0] * sums


def each_part(most: int, work: Callable[[int, int], Any], *, numbers: int) -> None:
    """Call `work(part, parts)` for every part of some work that can be cut into at most so many equal ones.

    There are a few for each thread, because not all threads have a core of their own all the time; and only one where
    there are few numbers to work on.
    """
    threads = torch.get_num_threads()
    parts = 1 if threads == 1 or numbers < _FEW else min(most, _PARTS * threads)
    if parts <= 1:
        work(0, 1)
    else:
        list(_threads(threads).map(lambda part: work(part, parts), range(parts)))


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool
    if _pool is None or _pool[0] != count:
        _pool = (count, ThreadPoolExecutor(count, thread_name_prefix="tenfold-kernels"))
    return _pool[1]


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
