"""Settings of the process for heavy work."""

from __future__ import annotations

import os

from tenfold.processor import usable_cpus


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
