"""The `.safetensors` artifact: tensors, and a JSON header that tells how to rebuild the network.

No pickle is written or read, so that opening a stranger's artifact runs none of their code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tenfold.errors import ArtifactError, MissingDataError
from tenfold.files import written_whole

FORMAT_VERSION = 1
"""Raised when a reader of the old version would misunderstand a new file."""

_KEY = "tenfold"
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How torch.save's zip files and bare pickles begin."""


def write_artifact(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write an artifact whole or not at all.

    Args:
        path: the file to write; an old one is replaced.
        tensors: by name; they are stored on the CPU, contiguous, each on its own.
        header: JSON values only: architecture, quantization, task, metrics.

    Raises:
        ArtifactError: if the header is not JSON (NaN and infinity are not).
        StorageError: if the file could not be written.
    """
    try:
        text = json.dumps({"format": FORMAT_VERSION, **header}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the header of {path} holds a value that JSON cannot store: {error}.") from error
    stored = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as part:
        part.write_bytes(save(stored, metadata={_KEY: text}))


def read_artifact(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an artifact.

    Returns:
        The header, and the tensors by name, on the CPU.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if the file is damaged, is no artifact of Tenfold, or is of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"there is no artifact at {path}. `tenfold fit` writes one into its run folder.")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLES):
        raise ArtifactError(
            f"{path} is a pickle or a torch.save file under another name. It is not opened, because that would run "
            "code from it; load it with torch yourself and save a .safetensors file."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata())
            # A copy each: a tensor that points into the mapped file would change, or crash, when the file does.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path} is damaged or no .safetensors file ({error}). Was it cut short while copying? Fetch it again."
        ) from error
    return header, tensors


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if not metadata or _KEY not in metadata:
        raise ArtifactError(
            f"{path} holds tensors but not the header of a Tenfold artifact, so its network is unknown. "
            "Use a file that `tenfold fit` wrote."
        )
    try:
        header = json.loads(metadata[_KEY])
    except json.JSONDecodeError as error:
        raise ArtifactError(f"the header of {path} is not JSON ({error}). The file is damaged.") from error
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise ArtifactError(f"the header of {path} has no format version. The file is damaged.")
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format {version}; this Tenfold reads up to {FORMAT_VERSION}. Upgrade: pip install -U tenfold"
        )
    return {key: value for key, value in header.items() if key != "format"}
