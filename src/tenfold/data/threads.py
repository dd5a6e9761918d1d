"""Work ahead with threads: results in order, few held at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Progress = Callable[[float], None]
"""Called now and then during long work, with the part that is done, 0..1."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(make: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield make(item) for each item, in order, computed by `workers` threads that run at most two results ahead each.

    Threads and not processes: Pillow and numpy release the interpreter lock where the time goes, and a thread needs no
    start-up, no shared memory and no cleaning up when the program is killed. With 0 workers nothing runs ahead.

    Raises:
        Whatever `make` raises, at the place of its item.
    """
    if workers == 0:
        yield from map(make, items)
        return
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tenfold-data")
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(make, item) for item in islice(source, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(make, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
