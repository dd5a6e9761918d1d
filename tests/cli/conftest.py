"""Run the command as a user does: in a process of its own, or, much faster once torch is loaded, in this one."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def words(self):
        """What was said, without frames and line breaks."""
        return " ".join("".join(letter for letter in self.err if letter not in "╭─╮│╰╯").split())


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch, tmp_path_factory):
    for name in ("TENFOLD_DATA", "RANK", "WORLD_SIZE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def tenfold(monkeypatch, capsys):
    """Call as `tenfold("profile", "resnet18", env={...})`; runs in this process."""
    import torch

    from tenfold.cli.main import run

    torch.set_num_threads(1)  # several threads that wait for each other are slow where other programs run too

    def call(*words, env=None):
        with monkeypatch.context() as changes:
            for name, value in (env or {}).items():
                changes.setenv(name, value)
            capsys.readouterr()
            code = run([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def process():
    """Like `tenfold`, in a process of its own."""

    def call(*words, env=None, module="tenfold.cli.main", timeout=300):
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def stopped_erasing(monkeypatch):
    """Erasing in pieces of two frames that somebody stops at frame 3, as long as the block lasts."""
    from tenfold.video import erase_files

    monkeypatch.setattr(erase_files, "PIECE_FRAMES", 2)
    real = erase_files.erase_frames

    def interrupted(*words, **options):
        for done in real(*words, **options):
            if done.number == 3:
                raise KeyboardInterrupt
            yield done

    @contextmanager
    def block():
        with monkeypatch.context() as changes:
            changes.setattr(erase_files, "erase_frames", interrupted)
            yield

    return block
