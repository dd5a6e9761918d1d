"""How many threads the work on a video takes, where several processes share a machine."""

from __future__ import annotations

import os
import sys

from tenfold.errors import require


def limit_threads(count: int) -> None:
    """Let this process compute with so many threads at most.

    Args:
        count: at least 1.

    Raises:
        MissingExtraError: if OpenCV is not installed.
    """
    require("cv2", "video").setNumThreads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # torch reads it when it is imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
