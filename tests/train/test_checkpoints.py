import errno
import os
import resource
import signal

import pytest
import torch

from tenfold.errors import CheckpointError, StorageError
from tenfold.train.checkpoints import CheckpointFolder, read_checkpoint, remove_leftovers, write_checkpoint


def state_of(value, size=1000):
    weights = torch.full((size,), float(value))
    return {"network": {"weight": weights}, "optimizer": {"state": {0: {"momentum": weights * 2}}}, "step": value}


def notes_to(notes):
    return notes.append


def test_a_checkpoint_reads_back_as_written(tmp_path):
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, state_of(7))
    again = read_checkpoint(path)
    assert again["step"] == 7
    assert torch.equal(again["optimizer"]["state"][0]["momentum"], torch.full((1000,), 14.0))


def test_what_is_read_does_not_point_into_the_file(tmp_path):
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, state_of(7))
    read_checkpoint(path)["network"]["weight"].add_(1)
    assert torch.equal(read_checkpoint(path)["network"]["weight"], torch.full((1000,), 7.0))


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, state_of(7, size=20))
    good = path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            state = read_checkpoint(path)
        except CheckpointError:
            continue
        # A flip in the padding of the header, or one that makes an equal header, harms nothing.
        assert state["step"] == 7
        assert torch.equal(state["network"]["weight"], torch.full((20,), 7.0))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_cut_file_is_refused(tmp_path, part):
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, state_of(7))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        read_checkpoint(path)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_checkpoint(tmp_path / "none.safetensors")


def test_the_last_two_and_the_best_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2, 3, 4):
        path = folder.save(state_of(step), step)
        if step == 2:
            folder.keep_best(path)
            folder.keep_best(path)
    assert [path.name for path in folder.files()] == ["step_0000000004.safetensors", "step_0000000003.safetensors"]
    assert read_checkpoint(tmp_path / "best.safetensors")["step"] == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_the_best_is_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    folder = CheckpointFolder(tmp_path)
    path = folder.save(state_of(1), 1)
    monkeypatch.setattr(os, "link", refuse)
    folder.keep_best(path)
    assert read_checkpoint(tmp_path / "best.safetensors")["step"] == 1


def test_a_damaged_newest_falls_back_with_a_warning(tmp_path):
    folder, notes = CheckpointFolder(tmp_path), []
    folder.save(state_of(1), 1)
    newest = folder.save(state_of(2), 2)
    newest.write_bytes(newest.read_bytes()[:-5])
    found = folder.load_newest(notes_to(notes))
    assert found.state["step"] == 1
    assert len(notes) == 1
    assert "step_0000000002" in notes[0]
    assert "Going on from step_0000000001" in notes[0]
    assert newest.with_suffix(".damaged").exists()
    assert folder.newest == found.path


def test_no_readable_checkpoint_is_an_error_and_none_at_all_is_not(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load_newest(pytest.fail) is None
    folder.save(state_of(1), 1).write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        folder.load_newest(pytest.fail)


def test_leftovers_of_a_killed_run_go(tmp_path):
    folder = CheckpointFolder(tmp_path)
    path = folder.save(state_of(1), 1)
    (tmp_path / ".step_0000000002.safetensors.abc.part").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_when_flushing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    path = folder.save(state_of(1), 1)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        folder.save(state_of(2), 2)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert folder.load_newest(pytest.fail).state["step"] == 1


def test_a_disk_that_is_full_while_writing_leaves_the_checkpoint_before(tmp_path):
    """The system itself refuses to write: a limit on the size of files stands for a full disk."""
    folder = CheckpointFolder(tmp_path)
    path = folder.save(state_of(1), 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(StorageError, match="could not write"):
            folder.save(state_of(2, size=10_000), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == [path]
    assert folder.load_newest(pytest.fail).state["step"] == 1
