"""What this process may use of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cpus() -> float:
    """Cores that this process may use: those it may run on, or less if a container's quota says so."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    for file in (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")):
        try:
            quota, period = (*file.read_text(encoding="ascii").split(), "100000")[:2]
            if int(quota) > 0:
                cores = min(cores, int(quota) / int(period))
        except (OSError, ValueError):  # no such limit: "max", or no file
            continue
    return cores


def first_processor() -> dict[str, str]:
    """What Linux says about the first core; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def memory_bytes() -> int | None:
    """Memory that this process may use: all there is, or less if a container's limit says so."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return total
    return min(total, limit)


def prepare_for_training() -> None:
    """Set up this process for heavy work; call it before torch is imported for the first time.

    Three settings that change no number: freed memory is kept for the next step; threads that wait for each other sleep
    instead of spinning, which on a machine that also does other work made a training step two to five times as fast;
    and there are no more threads than cores to run them, since a container sees all cores of its host.
    """
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), round(usable_cpus()))))
