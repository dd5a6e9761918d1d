"""Many jobs at once, in processes of this machine or on a Ray cluster; one whose worker was lost is tried again."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from tenfold.errors import TenfoldError, UsageError, require

TRIES = 3
"""How often a job is begun whose worker is lost each time."""

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """Processes of this machine.

    Args:
        count: how many at a time.

    Raises:
        UsageError: if that is none.
    """

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"jobs is {self.count}; allowed are whole numbers from 1.")


@dataclass(frozen=True)
class RayCluster:
    """Workers of Ray, each with one core. Their machines must have Tenfold, and find files at the same paths.

    Args:
        address: of the cluster, such as ray://HOST:PORT; None for the one that RAY_ADDRESS names, else for this
            machine.
        gpus: graphics cards a job.
    """

    address: str | None = None
    gpus: int = 0


def run_jobs(
    work: Callable[..., Result], orders: Mapping[Key, tuple[Any, ...]], where: Processes | RayCluster
) -> Iterator[tuple[Key, Result | None]]:
    """Do the same work for many orders, and give each result as it comes.

    Whoever stops listening ends the jobs that still run.

    Args:
        work: a function of a module; what it raises ends everything, so failures that are to be survived are results.
        orders: its arguments.
        where: it runs.

    Yields:
        Each key with its result; None if the worker was lost TRIES times.

    Raises:
        UsageError: if the Ray cluster cannot be reached.
        TenfoldError: if it is lost.
        MissingExtraError: if Ray is not installed.
    """
    return _in_processes(work, orders, where.count) if isinstance(where, Processes) else _on_ray(work, orders, where)


def _in_processes(
    work: Callable[..., Result], orders: Mapping[Key, tuple[Any, ...]], count: int
) -> Iterator[tuple[Key, Result | None]]:
    context = get_context("spawn")
    ours, theirs = Pipe()

    def started() -> ProcessPoolExecutor:
        # A pool for each process: when one dies, its pool breaks, and the work of the others goes on.
        return ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_worker, initargs=(theirs,))

    waiting, losses = deque(orders), Counter[Key]()
    pools = [started() for _ in range(min(count, len(orders)))]
    idle = list(range(len(pools)))
    running: dict[Future[Result], tuple[Key, int]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                key, at = waiting.popleft(), idle.pop()
                try:
                    future = pools[at].submit(work, *orders[key])
                except BrokenProcessPool:  # it died with nothing to do
                    pools[at] = started()
                    future = pools[at].submit(work, *orders[key])
                running[future] = key, at
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key, at = running.pop(future)
                idle.append(at)
                try:
                    result: Result | None = future.result()
                except (BrokenProcessPool, SystemExit):
                    pools[at].shutdown()
                    pools[at] = started()
                    losses[key] += 1
                    if losses[key] < TRIES:
                        waiting.append(key)
                        continue
                    result = None
                yield key, result
    finally:
        if running:
            ours.close()  # which ends all workers; idle ones end by themselves, without a signal while they do
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _prepare_worker(parent: Connection) -> None:
    """Let a worker end when it is told to, tidily, and when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches parent and workers; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def listen() -> None:
        with suppress(EOFError, OSError):
            parent.recv()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()


def _on_ray(
    work: Callable[..., Result], orders: Mapping[Key, tuple[Any, ...]], cluster: RayCluster
) -> Iterator[tuple[Key, Result | None]]:
    ray: Any = require("ray", "ray")
    if not ray.is_initialized():
        address = cluster.address or os.environ.get("RAY_ADDRESS")
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray raises many kinds, bare ones among them
            raise UsageError(
                f"the Ray cluster {address} cannot be reached ({error}). Start one with `ray start --head`, and see "
                "that all machines have the same versions of Python, Ray and Tenfold."
            ) from error
    remote = ray.remote(num_cpus=1, num_gpus=cluster.gpus, max_retries=TRIES - 1)(work)
    worker_lost = ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
    running: dict[Any, Key] = {}
    try:
        running = {remote.remote(*order): key for key, order in orders.items()}
        while running:
            for one in ray.wait(list(running), num_returns=1)[0]:
                try:
                    result: Result | None = ray.get(one)
                except worker_lost:
                    result = None
                yield running.pop(one), result
    except ray.exceptions.RayTaskError:  # the work itself failed
        raise
    except Exception as error:  # a connection that breaks raises many kinds
        left = len(running)
        running.clear()  # a call for them would start a cluster on this machine
        raise TenfoldError(
            f"the Ray cluster was lost ({type(error).__name__}); jobs waiting or at work: {left}. See that it runs "
            "(`ray status`), and start again: what is done is kept."
        ) from error
    finally:
        for one in running:
            ray.cancel(one)
