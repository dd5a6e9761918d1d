"""A network that finds and follows objects, run from the ONNX file that `tenfold.export.export_step` wrote."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.errors import ArtifactError, ShapeError
from tenfold.export.engine import installed_engines
from tenfold.export.metadata import read_metadata
from tenfold.export.step_session import Arrays, StepSession
from tenfold.export.video_step import FRAME, PROFILE, state_inputs
from tenfold.video.engine_choice import AUTO, EngineReport, milliseconds

if TYPE_CHECKING:
    from torch import Tensor

    from tenfold.models.compfeat_state import Detections, VideoState


class ExportedStep:
    """Finds and follows as the network did; `start` and `step` are those of `CompFeat`.

    Args:
        path: of the file.
        threads: of the runtime; default: its own choice.
        engine: "onnxruntime", "openvino", or "auto": the faster of those installed, timed on the first frame.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or holds something else, or no runtime can run it.
        UnknownNameError: if there is no such engine.
        MissingExtraError: if the runtime is not installed.
    """

    def __init__(self, path: str | Path, threads: int | None = None, engine: str = "auto") -> None:
        from tenfold.models.tracking import MatchingRule

        facts = read_metadata(path)
        if facts.get("profile") != PROFILE:
            raise ArtifactError(f"{path} follows no objects. Give a file that tenfold.export.export_step wrote.")
        self.facts = facts
        self.rule = MatchingRule(**facts["rule"])
        self._support_stride = int(facts["support_stride"])
        self.height, self.width = (int(side) for side in facts["input_shape"][1:])
        self.report: EngineReport | None = None
        """Which runtime runs it; None before the first frame."""
        self._refused: dict[str, str] = {}
        self._sessions: dict[str, StepSession] = {}
        for name in (installed_engines() or ["onnxruntime"]) if engine == AUTO else [engine]:
            try:
                self._sessions[name] = StepSession(Path(path), facts, name, threads)
            except ArtifactError as error:
                self._refused[name] = str(error)
        if not self._sessions:
            raise ArtifactError(" ".join(self._refused.values()))
        self._shapes = next(iter(self._sessions.values())).shapes

    def start(self, height: int, width: int) -> VideoState:
        """The state before the first frame of a video.

        Raises:
            ShapeError: if the file takes frames of another size.
        """
        import torch

        from tenfold.models.compfeat_state import VideoState
        from tenfold.models.tracking import empty_memory

        if (height, width) != (self.height, self.width):
            raise ShapeError(
                f"the file takes frames of {self.width} x {self.height}, not {width} x {height}. Resize them, or "
                "export the network for this size."
            )

        def zeros(part: str) -> tuple[Any, ...]:
            shapes = {name: shape for name, shape in self._shapes.items() if name.startswith(f"state.{part}.")}
            return tuple(torch.zeros(shapes[f"state.{part}.{at}"]) for at in range(len(shapes)))

        templates = self._shapes["state.memory.templates"]
        filled = self._shapes.get("state.filled", (1,))
        memory = empty_memory(templates[0], torch.zeros(templates[1:]))
        return VideoState(zeros("stages"), zeros("pyramid"), torch.zeros(filled, dtype=torch.bool), memory)

    def step(self, frame: Tensor, state: VideoState) -> tuple[Detections, VideoState]:
        """See `CompFeat.step`."""
        import torch

        from tenfold.models.compfeat_state import Look, conclude, only_known

        pixels = np.ascontiguousarray(frame.detach().cpu().numpy(), np.float32)
        feed = {FRAME: pixels, **state_inputs(state)}
        by_name = {name: torch.from_numpy(value) for name, value in self._chosen(feed).run(feed).items()}

        def rows(part: str) -> tuple[Any, ...]:
            count = sum(name.startswith(f"{part}.") for name in by_name)
            return tuple(by_name[f"{part}.{at}"] for at in range(count))

        parts: dict[str, Any] = {part: rows(part) for part in ("stages", "pyramid")}
        parts |= {name: by_name[name] for name in Look._fields if name not in parts}
        seen = Look(**parts)
        return conclude(only_known(seen, state.memory), state, self.rule, self._support_stride)

    def _chosen(self, feed: Arrays) -> StepSession:
        """The session that runs it: the fastest, found on the first frame."""
        if self.report is None:
            calls = {name: partial(session.run, feed) for name, session in self._sessions.items()}
            timings = milliseconds(calls)
            best = min(timings, key=timings.__getitem__)
            self.report = EngineReport(best, timings, best, refused=self._refused)
            self._sessions = {best: self._sessions[best]}
        return self._sessions[self.report.engine]
