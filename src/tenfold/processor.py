"""The processor and the memory that this process may use. Nothing here imports torch."""

from __future__ import annotations

import os
import platform
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


def has_vnni() -> bool:
    """Whether the processor adds four products of bytes in 32 bits at once (x86 with VNNI)."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(first_processor().get("flags", "").split())


def processor_name() -> str:
    """What the processor is called."""
    return first_processor().get("model name") or platform.processor() or platform.machine()


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
