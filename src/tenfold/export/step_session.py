"""A file of several inputs and outputs, such as the step of a video network, in one of the runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import ArtifactError, MissingExtraError, UnknownNameError, require
from tenfold.export.engine import ENGINES
from tenfold.export.machine import openvino_settings, session_settings
from tenfold.export.session import open_session, openvino_core

Arrays = Mapping[str, NDArray[Any]]


class StepSession:
    """Runs a file whose inputs and outputs all have fixed shapes.

    Args:
        path: the file.
        facts: what it says of itself; see `tenfold.export.metadata`.
        engine: one of ENGINES.
        threads: CPU threads; None leaves it to the runtime.

    Raises:
        UnknownNameError: if there is no such engine.
        ArtifactError: if the runtime cannot run it.
        MissingExtraError: if the runtime is not installed.
    """

    shapes: dict[str, tuple[int, ...]]
    """Of the inputs, by name."""

    def __init__(self, path: Path, facts: Mapping[str, Any], engine: str, threads: int | None = None) -> None:
        if engine not in ENGINES:
            raise UnknownNameError("engine", engine, ENGINES)
        opened = _in_onnxruntime if engine == "onnxruntime" else _in_openvino
        try:
            self.shapes, self._run = opened(path, facts, threads)
        except MissingExtraError:
            raise
        except Exception as error:  # the runtimes' exceptions share no base class of their own
            raise ArtifactError(f"{engine} cannot run {path}: {error}") from error

    def run(self, feed: Arrays) -> Arrays:
        """The outputs by name.

        Args:
            feed: the inputs by name; what the file does not take is left out.
        """
        return self._run({name: feed[name] for name in self.shapes})


_Opened = tuple[dict[str, tuple[int, ...]], Callable[[Arrays], Arrays]]


def _in_onnxruntime(path: Path, facts: Mapping[str, Any], threads: int | None) -> _Opened:
    session = open_session(path, session_settings(facts), threads=threads)
    names = [one.name for one in session.get_outputs()]
    return (
        {one.name: tuple(one.shape) for one in session.get_inputs()},
        lambda feed: dict(zip(names, session.run(None, feed), strict=True)),
    )


def _in_openvino(path: Path, facts: Mapping[str, Any], threads: int | None) -> _Opened:
    core = openvino_core()
    settings = {**openvino_settings(facts), "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()
    # OpenVINO gives each input and output several names; which is the file's own, only the file says.
    graph = require("onnx", "export").load(path, load_external_data=False).graph
    outputs = [one.name for one in graph.output]
    shapes = {one.name: tuple(port.shape) for one in graph.input for port in compiled.inputs if one.name in port.names}

    def run(feed: Arrays) -> Arrays:
        found = request.infer(feed)
        return {name: np.array(found[name]) for name in outputs}  # views of memory that the next call writes over

    return shapes, run
