"""The runtimes that execute an ONNX file, behind one call; none of this imports torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.cost.latency import interleaved
from tenfold.data.cache import cache_folder
from tenfold.errors import ArtifactError, MissingExtraError, ShapeError, StorageError, UnknownNameError
from tenfold.export.machine import needs_precision, openvino_settings, session_settings
from tenfold.export.metadata import read_metadata
from tenfold.export.session import open_session, openvino_core
from tenfold.export.width_choice import WIDTH_INPUT, Bits, find_width, read_widths, with_built_in
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
    example_shape: tuple[int, ...]
    """A shape that the input may have: one image, of the size that the file was exported with where sizes are free."""
    widths: tuple[tuple[int, int], ...]
    """The bit-widths (of weights, of activations) that can be chosen; none if the file has one only."""

    def run(self, images: NDArray[np.float32], bits: Bits | None = None) -> NDArray[np.float32]:
        """Outputs for a batch of images, (B, C, H, W).

        Args:
            images: prepared as in training.
            bits: a width for this call; None for the one that the file was opened at. The first call at another one
                loads the file once more, in the form that takes its width with each call; no later call loads anything.

        Raises:
            ShapeError: if the images do not have the shape that the file takes.
            UsageError: if the file does not have that width.
        """


def open_engine(
    path: str | Path, engine: str = "auto", threads: int | None = None, bits: Bits | None = None, *, lean: bool = False
) -> Engine:
    """Load an ONNX file into a runtime.

    Args:
        path: the file.
        engine: "onnxruntime", "openvino", or "auto": the faster of those installed, measured once for each file and
            machine and remembered in the cache folder.
        threads: CPU threads; None for one a usable core.
        bits: for files of the profile "switchable" the width to run at, as one number or as (weight bits, activation
            bits); None for the widest. It is built in: what depends on it is computed once, when the file is loaded.

        lean: for a few runs only; see `session_settings`.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or no runtime can run it.
        UnknownNameError: if there is no such engine.
        UsageError: if the file does not have that width.
        MissingExtraError: if the runtime is not installed.

    Example:
        >>> engine = open_engine("switchable.onnx", bits=4)  # doctest: +SKIP
        >>> engine.run(images), engine.run(images, bits=8)  # doctest: +SKIP
    """
    path, threads = Path(path), threads or max(1, round(usable_cpus()))
    metadata = read_metadata(path)  # says what is wrong with a damaged file better than a runtime does
    widths = read_widths(path, metadata)
    open_one = partial(_Opened, path, threads, metadata, widths, find_width(path, widths, bits), lean)
    if engine == "auto":
        return _fastest(path, threads, open_one)
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ("auto", *ENGINES))
    return open_one(engine)


def installed_engines() -> list[str]:
    """The runtimes that are installed."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


class _Opened:
    """An `Engine`: a session with its width built in, and one that takes any width, once that is needed."""

    def __init__(
        self,
        path: Path,
        threads: int,
        metadata: Mapping[str, Any],
        widths: tuple[tuple[int, int], ...],
        position: int | None,
        lean: bool,
        name: str,
    ) -> None:
        self.name, self.widths = name, widths
        self._path, self._position = path, position
        self._load = partial(_SESSIONS[name], path, threads, metadata, lean)
        built_in = None if position is None else with_built_in(path.read_bytes(), position)
        self._own = self._load(path if built_in is None else built_in)
        self._any = self._own if built_in is None else None
        self.input_shape = self._own.input_shape
        usual = [1, *metadata.get("input_shape", ())]
        usual += [1] * (len(self.input_shape) - len(usual))
        self.example_shape = tuple(size or usual[axis] for axis, size in enumerate(self.input_shape))

    def run(self, images: NDArray[np.float32], bits: Bits | None = None) -> NDArray[np.float32]:
        _check_shape(images, self.input_shape)
        position = self._position if bits is None else find_width(self._path, self.widths, bits)
        if position == self._position:
            return self._own.run(images, position)
        if self._any is None:
            self._any = self._load(self._path)
        return self._any.run(images, position)


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int, metadata: Mapping[str, Any], lean: bool, model: Path | bytes) -> None:
        try:
            self._session = open_session(model, session_settings(metadata, lean=lean), threads=threads)
        except MissingExtraError:
            raise
        except Exception as error:  # the runtime's exceptions share no base class of its own
            raise _cannot_run(path, "onnxruntime", error) from error
        self._input, *others = self._session.get_inputs()
        self._takes_width = any(other.name == WIDTH_INPUT for other in others)
        self.input_shape = tuple(size if isinstance(size, int) else None for size in self._input.shape)

    def run(self, images: NDArray[np.float32], position: int | None) -> NDArray[np.float32]:
        width = {WIDTH_INPUT: np.array(position)} if self._takes_width and position is not None else {}
        return self._session.run(None, {self._input.name: images, **width})[0]


class _OpenVino:
    def __init__(self, path: Path, threads: int, metadata: Mapping[str, Any], lean: bool, model: Path | bytes) -> None:
        core = openvino_core()
        if "openvino" in metadata.get("refused_by", ()):
            raise ArtifactError(
                f"openvino cannot run {path} rightly: this was found when it was exported. "
                "Use the engine onnxruntime; files with 2-bit weights always need it."
            )
        if needs_precision(metadata):
            raise ArtifactError(
                f"{path} holds full 8-bit weights, and the sums of their products saturate on this processor: OpenVINO "
                "would give wrong results. Use the engine onnxruntime, or export the network again on this machine."
            )
        settings = {**openvino_settings(metadata), "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            read = core.read_model(model)
            self.input_shape = tuple(
                size.get_length() if size.is_static else None for size in read.inputs[0].partial_shape
            )
            self._takes_width = any(WIDTH_INPUT in value.names for value in read.inputs[1:])
            self._request = core.compile_model(read, "CPU", settings).create_infer_request()
        except Exception as error:  # the runtime raises bare RuntimeErrors
            raise _cannot_run(path, "openvino", error) from error

    def run(self, images: NDArray[np.float32], position: int | None) -> NDArray[np.float32]:
        width = [np.array(position)] if self._takes_width and position is not None else []
        return np.array(next(iter(self._request.infer([images, *width]).values())))


_SESSIONS: dict[str, type[_OnnxRuntime] | type[_OpenVino]] = {"onnxruntime": _OnnxRuntime, "openvino": _OpenVino}


def _fastest(path: Path, threads: int, open_one: Callable[[str], Engine]) -> Engine:
    names = installed_engines()
    if not names:
        raise MissingExtraError("no runtime for ONNX files is installed. Get them with: pip install 'tenfold[export]'")
    if len(names) == 1:
        return open_one(names[0])
    memory = cache_folder() / "engines.json"
    key = _key(path, threads, names)
    known = _remembered(memory)
    if known.get(key) in names:
        return open_one(known[key])
    engines: dict[str, Engine] = {}
    for name in names:
        with suppress(ArtifactError):  # OpenVINO reads no 2-bit types: then the other one is the faster
            engines[name] = open_one(name)
    if not engines:
        return open_one(names[0])  # tells why
    images = np.zeros(next(iter(engines.values())).example_shape, np.float32)
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
