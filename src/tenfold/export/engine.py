"""The runtimes that execute an ONNX file, behind one call; none of this imports torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.cost.latency import interleaved
from tenfold.data.cache import cache_folder
from tenfold.errors import ArtifactError, MissingExtraError, ShapeError, StorageError, UnknownNameError, require
from tenfold.export.machine import needs_precision, openvino_settings, session_settings
from tenfold.export.metadata import read_metadata
from tenfold.export.session import open_session
from tenfold.files import write_text
from tenfold.processor import processor_name, usable_cpus

ENGINES = ("onnxruntime", "openvino")
_TRIAL_ROUNDS = 5


class Engine(Protocol):
    """An ONNX file, ready to run."""

    name: str
    """The runtime: one of ENGINES."""
    input_shape: tuple[int | None, ...]
    """Shape of the input; None where any size is allowed, as for the batch."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs for a batch of images, (B, C, H, W).

        Raises:
            ShapeError: if the images do not have the shape that the file takes.
        """


def open_engine(path: str | Path, engine: str = "auto", threads: int | None = None) -> Engine:
    """Load an ONNX file into a runtime.

    Args:
        path: the file.
        engine: "onnxruntime", "openvino", or "auto": the faster of those installed, measured once for each file and
            machine and remembered in the cache folder.
        threads: CPU threads; None for one a usable core.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or no runtime can run it.
        UnknownNameError: if there is no such engine.
        MissingExtraError: if the runtime is not installed.
    """
    path, threads = Path(path), threads or max(1, round(usable_cpus()))
    metadata = read_metadata(path)  # says what is wrong with a damaged file better than a runtime does
    if engine == "auto":
        return _fastest(path, threads, metadata)
    if engine not in _OPENERS:
        raise UnknownNameError("engine", engine, ("auto", *ENGINES))
    return _OPENERS[engine](path, threads, metadata)


def installed_engines() -> list[str]:
    """The runtimes that are installed."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


class _OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, path: Path, threads: int, metadata: dict[str, Any]) -> None:
        try:
            self._session = open_session(path, session_settings(metadata), threads=threads)
        except MissingExtraError:
            raise
        except Exception as error:  # the runtime's exceptions share no base class of its own
            raise _cannot_run(path, self.name, error) from error
        self._input = self._session.get_inputs()[0]
        self.input_shape = tuple(size if isinstance(size, int) else None for size in self._input.shape)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        _check_shape(images, self.input_shape)
        return self._session.run(None, {self._input.name: images})[0]


class _OpenVino:
    name = "openvino"

    def __init__(self, path: Path, threads: int, metadata: dict[str, Any]) -> None:
        vino = require("openvino", "export")
        if self.name in metadata.get("refused_by", ()):
            raise ArtifactError(
                f"{self.name} cannot run {path} rightly: this was found when it was exported. "
                "Use the engine onnxruntime; files with 2-bit weights always need it."
            )
        if needs_precision(metadata):
            raise ArtifactError(
                f"{path} holds full 8-bit weights, and the sums of their products saturate on this processor: OpenVINO "
                "would give wrong results. Use the engine onnxruntime, or export the network again on this machine."
            )
        settings = {**openvino_settings(metadata), "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            model = vino.Core().read_model(str(path))
            self.input_shape = tuple(
                size.get_length() if size.is_static else None for size in model.inputs[0].partial_shape
            )
            self._request = vino.compile_model(model, "CPU", settings).create_infer_request()
        except Exception as error:  # the runtime raises bare RuntimeErrors
            raise _cannot_run(path, self.name, error) from error

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        _check_shape(images, self.input_shape)
        return np.array(next(iter(self._request.infer([images]).values())))


_OPENERS: dict[str, type[_OnnxRuntime] | type[_OpenVino]] = {"onnxruntime": _OnnxRuntime, "openvino": _OpenVino}


def _fastest(path: Path, threads: int, metadata: dict[str, Any]) -> Engine:
    names = installed_engines()
    if not names:
        raise MissingExtraError("no runtime for ONNX files is installed. Get them with: pip install 'tenfold[export]'")
    if len(names) == 1:
        return _OPENERS[names[0]](path, threads, metadata)
    memory = cache_folder() / "engines.json"
    key = _key(path, threads, names)
    known = _remembered(memory)
    if known.get(key) in names:
        return _OPENERS[known[key]](path, threads, metadata)
    engines: dict[str, Engine] = {}
    for name in names:
        with suppress(ArtifactError):  # OpenVINO reads no 2-bit types: then the other one is the faster
            engines[name] = _OPENERS[name](path, threads, metadata)
    if not engines:
        return _OPENERS[names[0]](path, threads, metadata)  # tells why
    images = np.zeros([size or 1 for size in next(iter(engines.values())).input_shape], np.float32)
    timings = interleaved(
        {name: partial(engine.run, images) for name, engine in engines.items()}, rounds=_TRIAL_ROUNDS, burst_ms=30
    )
    best = min(timings, key=lambda name: timings[name].median_ms)
    with suppress(StorageError):  # a cache that cannot be written costs a second measurement, nothing more
        write_text(memory, json.dumps({**known, key: best}, indent=1))
    return engines[best]


def _key(path: Path, threads: int, names: Sequence[str]) -> str:
    """Names the content of the file, the processor, the threads and the runtimes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    from importlib.metadata import version  # 40 ms that a single prediction has no use for

    versions = [f"{name} {version(name)}" for name in names]
    digest.update(" ".join([processor_name(), str(threads), *versions]).encode())
    return digest.hexdigest()


def _remembered(memory: Path) -> dict[str, Any]:
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_shape(images: NDArray[np.float32], expected: tuple[int | None, ...]) -> None:
    fits = len(images.shape) == len(expected) and all(
        want in (None, got) for got, want in zip(images.shape, expected, strict=True)
    )
    if not fits:
        want = " x ".join("any" if size is None else str(size) for size in expected)
        got = " x ".join(map(str, images.shape))
        raise ShapeError(f"the file takes images of {want} (batch, channels, height, width); got {got}.")


def _cannot_run(path: Path, name: str, error: Exception) -> ArtifactError:
    reason = str(error).strip().splitlines()
    return ArtifactError(f"{name} cannot run {path}: {reason[-1] if reason else type(error).__name__}")
