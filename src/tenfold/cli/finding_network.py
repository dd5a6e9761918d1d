"""The network that finds and follows objects, as the command line names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.video.segment import NetworkSegmenter


def open_segmenter(path: Path, *, least_score: float, device: str) -> NetworkSegmenter:
    """A network of a run folder or an artifact, for one clip.

    Args:
        path: of the artifact, or the run folder that holds it.
        least_score: what is less sure is left out, 0 to 1.
        device: where it runs.

    Raises:
        UsageError: if it does not follow objects, or the score is not allowed.
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged.
    """
    from tenfold.cli.artifacts import open_artifact
    from tenfold.video.segment import NetworkSegmenter

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
