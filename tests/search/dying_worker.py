"""Work for processes that die; in a file of its own, since a spawned process imports it by name."""

import os
import signal
from pathlib import Path


def work(name, deaths, folder):
    """Die as often as told, by a file that counts; then answer."""
    counter = Path(folder) / name
    lives = len(counter.read_text()) if counter.exists() else 0
    counter.write_text("x" * (lives + 1))
    if lives < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"code": [], "values": {"lives": lives}, "error": ""}
