"""A table of one's own: it holds what was trained, and survives kills of the run and of its workers."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from tenfold.errors import CheckpointError, UnknownNameError, UsageError
from tenfold.models import build
from tenfold.search import CandidateSpace, TaskOrder, measure
from tenfold.search import measuring as module
from tenfold.search.signals import zero_cost_signals
from tenfold.search.tables import read_table
from tenfold.train import TrainConfig
from train.toy_training import ToyTask, make_images

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra search")
WIDTHS = CandidateSpace(model="mobilenet_v2_tiny", choices={"width": (0.1, 0.2, 0.3)})
DIGITS = [TaskOrder(kind="classify", options={"subset": 64, "image_size": 8})]
CONFIG = TrainConfig(epochs=2, batch_size=32, device="cpu")


def _here(work, orders, where):
    """The same work without starting processes, which takes most of a second each."""
    for at, order in orders.items():
        yield at, work(*order)


def _columns(path):
    return {name: column.to_pylist() for name, column in zip(*_named(parquet.read_table(path)), strict=True)}


def _named(table):
    return table.column_names, table.columns


def test_the_table_holds_codes_metrics_costs_and_signals_and_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", _here)
    path = measure(WIDTHS, DIGITS, count=2, config=CONFIG, out=tmp_path / "two")
    columns = _columns(path)
    assert list(columns)[:2] == ["width", "cost/macs"]
    assert columns["width"] == [code["width"] for code in WIDTHS.draw(2, 0)]
    for width, params in zip(columns["width"], columns["cost/params"], strict=True):
        network = build("mobilenet_v2_tiny", width=width, in_channels=1)
        assert params == sum(one.numel() for one in network.parameters())
    for name in ("classify/top1", "classify.loss", "classify.grad_norm", "classify.log_synflow", "classify.top1_1"):
        assert np.isfinite(columns[name]).all(), name
    # A third candidate is added; of the two that are there one is damaged, and comes out as it was.
    before = sorted((tmp_path / "two/candidates").iterdir())
    kept = [file.read_text() for file in before]
    before[0].write_text(kept[0][:30])
    path.unlink()
    told = []
    path = measure(
        WIDTHS, DIGITS, count=3, config=CONFIG, out=tmp_path / "two", resume=True, tell=lambda *all: told.append(all[0])
    )
    assert told == [2, 3]
    assert [file.read_text() for file in before] == kept
    assert len(set(_columns(path)["width"])) == 3
    # The table alone is enough, too.
    shutil.rmtree(tmp_path / "two/candidates")
    table = parquet.read_table(path)
    again = measure(WIDTHS, DIGITS, count=3, config=CONFIG, out=tmp_path / "two", resume=True, tell=print)
    assert parquet.read_table(again).equals(table)
    assert not (tmp_path / "two/candidates").exists()
    # Codes that are given are added, once, and stay when others are given.
    one, other = WIDTHS.draw(3, 0)[2], {"width": 0.2}
    for further in ([list(one.values())], [list(one.values()), list(other.values())], []):
        path = measure(WIDTHS, DIGITS, count=1, further=further, config=CONFIG, out=tmp_path / "given", resume=True)
    assert _columns(path)["width"] == list(dict.fromkeys([WIDTHS.draw(1, 0)[0]["width"], one["width"], 0.2]))
    assert len(json.loads((tmp_path / "given" / "further.json").read_text())) == 2
    with pytest.raises(UsageError, match=r"width is 0.7 in a code; allowed is 0.1, 0.2, 0.3"):
        measure(WIDTHS, DIGITS, count=1, further=[[0.7]], config=CONFIG, out=tmp_path / "given", resume=True)
    with pytest.raises(UsageError, match="a code has 2 numbers; here it takes 1: width"):
        measure(WIDTHS, DIGITS, count=1, further=[[0.1, 2]], config=CONFIG, out=tmp_path / "given", resume=True)
    with pytest.raises(UsageError, match="already holds a measurement"):
        measure(WIDTHS, DIGITS, count=2, config=CONFIG, out=tmp_path / "two")
    with pytest.raises(UsageError, match=r"a measurement with other train.epochs, seed: measure.json has them"):
        measure(
            WIDTHS,
            DIGITS,
            count=2,
            config=TrainConfig(epochs=3, batch_size=32, device="cpu"),
            out=tmp_path / "two",
            seed=1,
            resume=True,
        )
    (tmp_path / "two/measure.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"measure.json cannot be read"):
        measure(WIDTHS, DIGITS, count=2, config=CONFIG, out=tmp_path / "two", resume=True)


def test_a_candidate_that_fails_is_a_row_that_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", _here)
    broken = TrainConfig(epochs=1, batch_size=32, lr=1e30, device="cpu")
    with pytest.raises(module.DataError, match=r"no candidate could be measured. The first said: classify: "):
        measure(WIDTHS, DIGITS, count=1, config=broken, out=tmp_path / "run")
    row = json.loads(next((tmp_path / "run/candidates").iterdir()).read_text())
    assert row["values"] == {}
    assert "became" in row["error"]


def test_a_candidate_whose_worker_is_lost_is_a_row_that_says_so_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", lambda work, orders, where: [(at, None) for at in orders])
    with pytest.raises(module.DataError, match="its worker was lost 3 times"):
        measure(WIDTHS, DIGITS, count=1, config=CONFIG, out=tmp_path / "run")
    monkeypatch.setattr(module, "run_jobs", _here)
    columns = _columns(measure(WIDTHS, DIGITS, count=1, config=CONFIG, out=tmp_path / "run", resume=True))
    assert columns["error"] == [""]


def test_a_mistake_in_one_candidate_does_not_end_the_others(monkeypatch):
    def broken(*_, **__):
        raise KeyError("stem")

    monkeypatch.setattr(module, "_measure_on", broken)
    row = module.measure_one(WIDTHS, WIDTHS.draw(1, 0)[0], DIGITS, CONFIG)
    assert row["error"] == "classify: KeyError: 'stem'"


def test_the_table_says_what_its_codes_and_tasks_are(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", _here)
    table = read_table(measure(WIDTHS, DIGITS, count=2, config=CONFIG, out=tmp_path / "run"))
    assert table.space.names == ("width",)
    (task,) = table.origin.tasks.values()
    assert (task.kind, task.options) == ("classify", DIGITS[0].options)
    assert table.costs_of("classify").image == (8, 8)
    assert table.costs_of("classify").of(list(table.codes.T))["macs"].tolist() == table.costs["macs"].tolist()


def test_codes_are_different_and_the_first_do_not_depend_on_the_number():
    space = CandidateSpace.multires(channels=16)
    codes = space.draw(20, 3)
    assert space.draw(5, 3) == codes[:5]
    assert len({tuple(code.values()) for code in codes}) == 20
    for code in codes[:2]:
        network = build(space.architecture(code, per_pixel=False), num_classes=4, in_channels=1)
        assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    pixels = build(space.architecture(codes[0], per_pixel=True), num_classes=4, in_channels=1)
    assert pixels(torch.zeros(2, 1, 64, 64)).shape[:2] == (2, 4)
    assert len(WIDTHS.draw(3, 0)) == 3


def test_signals_follow_their_formulas():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.BatchNorm2d(2), torch.nn.Flatten())
    network.append(torch.nn.Linear(2 * 64, 4, bias=False))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs, targets = make_images(8, 0)
    signals = zero_cost_signals(network, ToyTask(), inputs, targets)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    first, last = network[0].weight.detach().abs().double(), network[3].weight.detach().abs().double()
    output = float((first.flatten().repeat_interleave(64) * last).sum())
    # Each of both layers has the whole output as its sum of weight times gradient.
    assert signals["log_synflow"] == pytest.approx(math.log(2 * output))
    loss = ToyTask().loss(network.train()(inputs), targets)
    norms = [float(one.norm()) for one in torch.autograd.grad(loss, list(network.parameters()))]
    assert signals["grad_norm"] == pytest.approx(math.hypot(*norms), rel=1e-5)


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(UsageError, match="4 candidates were asked for, but the space has 3"):
        measure(WIDTHS, DIGITS, count=4, config=CONFIG, out=tmp_path)
    with pytest.raises(UsageError, match="tasks are classify, classify; name at least one, and each once"):
        measure(WIDTHS, DIGITS * 2, count=1, config=CONFIG, out=tmp_path)
    with pytest.raises(UsageError, match="count is 0 and jobs is 1"):
        measure(WIDTHS, DIGITS, count=0, config=CONFIG, out=tmp_path)
    with pytest.raises(UnknownNameError, match="unknown task 'clasify'"):
        measure(WIDTHS, [TaskOrder(kind="clasify", options={})], count=1, config=CONFIG, out=tmp_path)
    with pytest.raises(UsageError, match="nothing varies in 'resnet18'"):
        CandidateSpace(model="resnet18", choices={})
    with pytest.raises(UsageError, match="channels is 12; allowed is a multiple of 8 up to 128"):
        CandidateSpace.multires(channels=12)
    with pytest.raises(UsageError, match="counts is 5; allowed is 1 to 4"):
        CandidateSpace.multires(counts=5)


def test_a_run_that_is_stopped_leaves_a_table_of_what_is_done(tmp_path, monkeypatch):
    def stopped(work, orders, where):
        yield from list(_here(work, dict(list(orders.items())[1:2]), where))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_jobs", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure(WIDTHS, DIGITS, count=3, config=CONFIG, out=tmp_path / "run")
    columns = _columns(tmp_path / "run" / "table.parquet")
    assert columns["width"] == [WIDTHS.draw(3, 0)[1]["width"]]
    assert np.isfinite(columns["classify/top1"]).all()


def test_a_task_may_be_trained_in_another_way(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", _here)
    longer = TaskOrder(kind=DIGITS[0].kind, options=DIGITS[0].options, train={"epochs": 4})
    columns = _columns(measure(WIDTHS, [longer], count=1, config=CONFIG, out=tmp_path / "run"))
    assert {"classify.top1_1", "classify.top1_3"} <= set(columns)
    with pytest.raises(UsageError, match="a measurement with other tasks"):
        measure(WIDTHS, DIGITS, count=1, config=CONFIG, out=tmp_path / "run", resume=True)
    wrong = TaskOrder(kind="classify", options={}, train={"epoch": 4})
    with pytest.raises(UnknownNameError, match=r"unknown option of a training 'epoch'.*epochs"):
        measure(WIDTHS, [wrong], count=1, config=CONFIG, out=tmp_path / "wrong")
