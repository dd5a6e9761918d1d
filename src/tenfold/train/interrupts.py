"""Ctrl-C and SIGTERM as a wish to save and leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tenfold.errors import TrainingError


class Interrupted(TrainingError):  # noqa: N818 - it is a wish fulfilled, not an error
    """A training that was asked to stop, and did so after saving; the command line leaves with code 130.

    Args:
        step: optimiser steps done.
        checkpoint: the file to go on from.
        name: the signal that asked.
    """

    exit_code = 130

    def __init__(self, *, step: int, checkpoint: Path, name: str) -> None:
        self.step = step
        self.checkpoint = checkpoint
        super().__init__(
            f"training was interrupted ({name}) after step {step}. Everything is saved in {checkpoint}; "
            "run the same again with resume=True (--resume) to go on exactly from there."
        )


class StopRequest:
    """Whether somebody asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return self.signal_name != ""


@contextmanager
def stop_requests(*, launched: bool = False) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request that the training loop reads; put the former handlers back at the end.

    A second signal of the same kind acts as it would have before: whoever presses Ctrl-C twice does not want to wait.
    Outside the main thread Python allows no handlers, so there the request stays unset.

    Args:
        launched: whether torchrun started this process. It repeats to its children what the terminal has sent them
            already, so then a second signal means nothing.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    former: dict[int, Any] = {}

    def ask(number: int, _frame: FrameType | None) -> None:
        request.signal_name = request.signal_name or signal.Signals(number).name
        if not launched:
            signal.signal(number, former[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        handler = signal.getsignal(number)
        former[number] = signal.SIG_DFL if handler is None else handler  # None: set by other code than Python
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
