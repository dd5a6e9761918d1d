"""Checkpoints that survive `kill -9`, a full disk and a flipped bit.

One checkpoint is one `.safetensors` file: tensors as they are, everything else as JSON in the header, and a SHA-256
over all of it. It is written aside, flushed and renamed, so a file with its final name is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tenfold.errors import CheckpointError
from tenfold.files import written_whole
from tenfold.train.state_tree import pack, unpack

_FORMAT = "tenfold.checkpoint/1"
_KEPT = 2


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state whole or not at all.

    Args:
        path: the file to write or replace.
        state: nested dicts, lists and tuples of tensors and JSON values.

    Raises:
        StorageError: if the disk is full, or the place cannot be written; what stood there is untouched.
        CheckpointError: if the state holds something that cannot be saved.
    """
    skeleton, tensors = pack(state)
    text = json.dumps(skeleton, allow_nan=False)
    header = {"format": _FORMAT, "state": text, "sha256": _digest(text, tensors)}
    with written_whole(path) as part:
        try:
            save_file(tensors, part, metadata=header)
        except SafetensorError as error:  # its way to say that the disk is full
            raise OSError(errno.EIO, str(error)) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back, every bit of it verified.

    Raises:
        CheckpointError: if the file is missing, damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # A copy each: an optimiser that updates the mapped file in place would change the checkpoint.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}.") from error
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint: its format is {header.get('format')!r}, not {_FORMAT!r}.")
    text = header.get("state", "")
    if _digest(text, tensors) != header.get("sha256"):
        raise CheckpointError(f"the checkpoint {path} is damaged: its content does not match its SHA-256.")
    state: dict[str, Any] = unpack(json.loads(text), tensors)
    return state


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}".encode())
        # As bytes, since numpy has no bfloat16; a view of them costs no copy.
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files that a killed run left in a folder."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


class Found(NamedTuple):
    """A checkpoint that could be read."""

    path: Path
    state: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run: the last two, and the best.

    Args:
        folder: made when the first checkpoint is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """The checkpoints by step, the newest first."""
        return sorted(self.folder.glob("step_*.safetensors"), key=lambda path: path.name, reverse=True)

    @property
    def newest(self) -> Path | None:
        """The checkpoint to name in a message, unread."""
        return next(iter(self.files()), None)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step stands."""
        return self.folder / f"step_{step:010d}.safetensors"

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Write the checkpoint of a step, then remove all but the last two.

        Raises:
            StorageError: if it could not be written; the checkpoints before it stay.
        """
        path = self.path(step)
        write_checkpoint(path, state)
        for old in self.files()[_KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def keep_best(self, path: Path) -> None:
        """Keep a checkpoint as `best.safetensors` too. Doing it again changes nothing."""
        best = self.folder / "best.safetensors"
        if best.exists() and best.samefile(path):
            return
        with written_whole(best) as part:
            part.unlink()
            try:
                os.link(path, part)  # the same bytes under a second name
            except OSError:  # a file system without hard links
                shutil.copyfile(path, part)

    def load_newest(self, warn: Callable[[str], None]) -> Found | None:
        """Read the newest checkpoint; if it is damaged, the one before it.

        Args:
            warn: takes one line for each damaged file, which is set aside as `*.damaged`.

        Returns:
            None if there is no checkpoint at all.

        Raises:
            CheckpointError: if there are checkpoints but none of them can be read.
        """
        files = self.files()
        problems = []
        for path in files:
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                problems.append((path, error))
                continue
            for damaged, problem in problems:
                warn(f"{problem} Going on from {path.name}.")
                damaged.rename(damaged.with_suffix(".damaged"))
            return Found(path, state)
        if not files:
            return None
        listed = "\n".join(f"  {problem}" for _, problem in problems)
        raise CheckpointError(
            f"none of the checkpoints in {self.folder} can be read:\n{listed}\n"
            "Start again in another run folder, or put back a copy of this one."
        )
