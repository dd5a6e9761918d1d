import sys

import pytest
import torch

from tenfold.train.machine import command_line, describe_machine, git_state, versions


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/some/where/bin/tenfold", "fit", "--data", "x"], ["tenfold", "fit", "--data", "x"]),
        (["train.py", "--seed", "1"], ["python", "train.py", "--seed", "1"]),
        ([""], ["python"]),
    ],
)
def test_the_command_is_what_one_types(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == command


def test_machine_and_versions_are_told():
    machine = describe_machine(torch.device("cpu"))
    assert machine["processor"]
    assert machine["threads"] == torch.get_num_threads()
    assert versions()["torch"] == torch.__version__.split("+")[0] or versions()["torch"] == torch.__version__


def test_outside_a_repository_there_is_no_git_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
    monkeypatch.setenv("PATH", "")
    assert git_state() is None
