"""Training in two processes, on the CPU, by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inpainting_data import write_clip, write_photographs
from tenfold.errors import UsageError
from tenfold.train.distributed import World, average_gradients, broadcast_tensors, resolve_device, sum_over_world
from tenfold.train.fitting import _steps_per_epoch
from tenfold.train.record import Order
from train.group_program import train_at_several_widths, train_plain
from train.toy_training import ToyTask, assert_same_end, toy_config

HERE = Path(__file__).resolve().parent


@pytest.mark.slow  # starts two processes that import torch
def test_two_processes_train_stop_and_resume_together(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    write_photographs(two / "data/stills", 8)
    write_clip(two / "data/clips/judged")
    program = [str(HERE / "group_program.py"), str(two)]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program],
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]

    # With the same global batch, two processes train as one (batch norm apart).
    alone = train_plain(one)
    tensors = load_file(two / "plain/artifact.safetensors")
    for name, tensor in alone.network.state_dict().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-6)
    together = json.loads((two / "plain/report.json").read_text())
    assert together["metrics"]["final"] == pytest.approx(alone.metrics, rel=1e-4)
    for before, after in zip(alone.report["curves"], together["curves"], strict=True):
        assert before["train_loss"] == pytest.approx(after["train_loss"], rel=1e-4)
    assert together["machine"]["processes"] == 2
    assert len((two / "plain/metrics.jsonl").read_text().splitlines()) == 4 + 2 + 1  # written once, not twice

    # So they do with several passes a batch, each with parameters of its own.
    alone = train_at_several_widths(tmp_path / "widths")
    tensors = load_file(two / "widths/artifact.safetensors")
    for name, tensor in alone.network.state_dict().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-2, atol=1e-3)  # codes on a tie may flip

    # A signal in one stops both, and the resumed run ends bit-identical.
    assert [(two / f"interrupted_{rank}").read_text() for rank in (0, 1)] == ["6", "6"]
    assert (two / "metrics_0").read_text() == (two / "metrics_1").read_text()
    assert_same_end(two / "whole", two / "parts")

    # Likewise a search, whose processes judge by the same norms.
    assert_same_end(two / "search_whole", two / "search_parts")

    # And windows of video with an adversary, whose weights are no part of the network.
    assert (two / "filled_0").read_text() == (two / "filled_1").read_text()
    assert_same_end(two / "inpaint_whole", two / "inpaint_parts")

    # So does a loss that breaks in one.
    assert {path.name for path in two.glob("broken_*")} == {"broken_0", "broken_1"}


def test_a_process_alone_exchanges_nothing():
    alone = World(0, 1, torch.device("cpu"))
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    average_gradients([parameter], alone)
    broadcast_tensors([parameter], alone)
    assert sum_over_world([1.5, True], alone) == [1.5, True]
    assert torch.equal(parameter.grad, torch.ones(2))


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    order = Order(
        task=ToyTask(), methods=(), budget=None, config=toy_config(), command=(), architecture=None, model="toy"
    )
    with pytest.raises(UsageError, match="batch_size = 16 cannot be shared evenly by 3 processes"):
        _steps_per_epoch(order, World(0, 3, torch.device("cpu")))


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match="device 'cuda:0' is not there"):
        resolve_device("cuda:0")
    assert resolve_device("auto").type in {"cpu", "mps"}
