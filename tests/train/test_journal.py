import json
from contextlib import suppress
from pathlib import Path

import pytest

import tenfold.errors
from tenfold.errors import MissingExtraError, StorageError
from tenfold.train.journal import Journal


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_journal_drops_what_came_after_the_checkpoint(tmp_path):
    with Journal(tmp_path) as journal:
        for step in range(5):
            journal.write("step", {"step": step, "loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')  # a line that the kill cut in two
    with Journal(tmp_path, keep=3) as journal:
        journal.write("epoch", {"step": 3})
        assert journal.lines == 4
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]


def test_each_line_is_there_at_once_and_is_strict_json(tmp_path):
    with Journal(tmp_path) as journal:
        journal.write("epoch", {"step": 1, "loss": float("nan"), "top1": 0.5})
        assert lines(tmp_path) == [{"event": "epoch", "step": 1, "loss": None, "top1": 0.5}]


def test_a_disabled_journal_counts_but_writes_nothing(tmp_path):
    with Journal(tmp_path, enabled=False) as journal:
        journal.write("step", {"step": 1})
        assert journal.lines == 1
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(tmp_path):
    journal = Journal(tmp_path)
    journal._file.close()
    journal._file = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails too
    with pytest.raises(StorageError, match="No space left on device"):
        journal.write("step", {"step": 1})
    with suppress(OSError):
        journal.close()


def test_missing_tensorboard_is_named_with_its_extra(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(tenfold.errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[track\]'"):
        Journal(tmp_path, tensorboard=True)
