"""The network that finds and follows objects, as the command line names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.cli.filling_network import TORCH, EngineName
from tenfold.cli.values import ONNX_SUFFIX
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.video.segment import NetworkSegmenter


def open_segmenter(
    path: Path, *, least_score: float, device: str, engine: EngineName = "auto", threads: int | None = None
) -> NetworkSegmenter:
    """A network of a run folder, an artifact or an exported step, for one clip.

    Args:
        path: of the artifact, the run folder that holds it, or the .onnx file of a step.
        least_score: what is less sure is left out, 0 to 1.
        device: where it runs.
        engine: what runs it: PyTorch an artifact, a runtime a file.
        threads: of the runtime of an .onnx file; None leaves it to the runtime.

    Raises:
        UsageError: if the engine does not run it, it does not follow objects, or the score is not allowed.
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged.
    """
    from tenfold.cli.artifacts import open_artifact
    from tenfold.video.segment import NetworkSegmenter

    if path.suffix == ONNX_SUFFIX:
        if engine == TORCH or device != "cpu":
            raise UsageError(f"{path} runs in ONNX Runtime or OpenVINO on the CPU; for PyTorch give the artifact.")
        from tenfold.video.exported_step import ExportedStep

        step = ExportedStep(path, threads, engine)
        labels = [str(label) for label in step.facts.get("labels") or ["object"]]
        return NetworkSegmenter(step, labels, least_score=least_score, working_size=(step.height, step.width))
    if engine not in ("auto", TORCH):
        raise UsageError(
            f"--engine {engine} runs .onnx files, and {path} is none. Give the file of its step (see "
            "tenfold.export.export_step), or leave out --engine."
        )
    network, header = open_artifact(path)
    if not all(hasattr(network, name) for name in ("start", "step", "introduce")):
        raise UsageError(
            f"{path} holds a network that does not follow objects in video. Give the artifact of a CompFeat, or "
            "point at an object."
        )
    task: Any = header.get("task", {})
    labels = [str(label) for label in task.get("labels") or ["object"]]
    side = max(task["frame_size"]) if task.get("frame_size") else None
    return NetworkSegmenter(network.to(device), labels, least_score=least_score, longest_side=side, device=device)
