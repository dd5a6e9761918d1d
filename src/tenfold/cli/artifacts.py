"""Artifacts as the command line names them: a file, or the run folder that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn

ARTIFACT_NAME = "artifact.safetensors"


def artifact_path(path: str | Path) -> Path:
    """The artifact itself, where a run folder was named."""
    path = Path(path)
    return path / ARTIFACT_NAME if path.is_dir() else path


def open_artifact(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of an artifact, in eval mode, and the artifact's header.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or not ours.
    """
    from tenfold import train

    network = train.load(artifact_path(path))
    return network, cast("dict[str, Any]", network.header)
