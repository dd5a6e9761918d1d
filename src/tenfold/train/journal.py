"""The record of a training: `metrics.jsonl`, and TensorBoard's events if wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tenfold.errors import StorageError, require
from tenfold.files import write_text


class Journal:
    """Appends one JSON object a line; each line is with the system as soon as it is written.

    A resumed training goes on exactly where its checkpoint was made: `keep` lines stay, later ones are dropped, so that
    nothing is told twice.

    Args:
        run_dir: folder of the run.
        keep: lines to keep of an earlier life of this run.
        tensorboard: whether to write TensorBoard events, to `run_dir/tensorboard`.
        first_step: events of this step and later ones in an earlier life are hidden by TensorBoard.
        enabled: False makes a journal that writes nothing (all processes but the first).

    Raises:
        MissingExtraError: if TensorBoard is wanted and not installed.
    """

    def __init__(
        self, run_dir: Path, *, keep: int = 0, tensorboard: bool = False, first_step: int = 0, enabled: bool = True
    ) -> None:
        self.path = run_dir / "metrics.jsonl"
        self.lines = keep
        self._board: Any = None
        self._enabled = enabled
        if not enabled:
            return
        if tensorboard:
            require("tensorboard", "track")
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step)
        old = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        write_text(self.path, "".join(old[:keep]))
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Add a line.

        Args:
            event: "step", "epoch" or "final".
            values: JSON values; a number that is not finite is written as null. Must hold "step".

        Raises:
            StorageError: if it could not be written.
        """
        self.lines += 1
        if not self._enabled:
            return
        plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
        try:
            self._file.write(json.dumps({"event": event, **plain}, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"could not write {self.path}: {error.strerror}. Free space, then resume.") from error
        if self._board is not None:
            for key, value in plain.items():
                if key not in {"step", "epoch"} and isinstance(value, (int, float)):
                    self._board.add_scalar(f"{event}/{key}", value, plain["step"])

    def close(self) -> None:
        """Close the files; nothing can be written any more."""
        if not self._enabled:
            return
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
