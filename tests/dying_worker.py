"""Work for processes that die; in a file of its own, since a spawned process imports it by name."""

import os
import signal
import time
from pathlib import Path


def work(name, deaths, folder, kind=signal.SIGKILL):
    """Die as often as told, by a file that counts; then answer with the number of lives before."""
    counter = Path(folder) / name
    lives = len(counter.read_text()) if counter.exists() else 0
    counter.write_text("x" * (lives + 1))
    if lives < deaths:
        os.kill(os.getpid(), kind)
    return lives


def wait_for_ever(folder):
    """Say who it is, and go on until it is ended; then say that, too."""
    try:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        (Path(folder) / "ended").touch()


def fail(message):
    """Fail."""
    raise ValueError(message)
