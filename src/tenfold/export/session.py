"""Opening the runtimes; nothing here imports torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.errors import require

_FATAL = 4
"""The log level at which the runtime keeps its warnings to itself: what a user must know is raised."""


def open_session(
    model: Path | bytes, settings: Mapping[str, str], *, threads: int | None = None, optimized: Path | None = None
) -> Any:
    """A session on the CPU.

    Args:
        model: an ONNX file, or its content.
        settings: entries of the session's configuration; see `machine.session_settings`.
        threads: of one operator; None leaves it to the runtime.
        optimized: where to write the graph that the runtime makes of the model.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.

    Whatever the runtime raises comes through as it is; its exceptions share no base class of their own.
    """
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    content = str(model) if isinstance(model, Path) else model
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@functools.cache
def openvino_core() -> Any:
    """The one core of OpenVINO in this process; it lives to the end.

    A core gives the main thread another stack for signals, and takes it away when it is destroyed; after two that
    overlapped, the stack is gone, and the next signal with a handler, such as Ctrl-C, is a segmentation fault.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
    """
    return require("openvino", "export").Core()
