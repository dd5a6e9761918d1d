import errno
import json
import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import tenfold.train.checkpoints as checkpoints_module
from tenfold.cost import Budget
from tenfold.errors import (
    BudgetError,
    CheckpointError,
    DataError,
    NonFiniteLossError,
    StorageError,
    UsageError,
)
from tenfold.export.artifact import read_artifact
from tenfold.methods import SAT, Method, Pass
from tenfold.train import Interrupted, TrainConfig, evaluate, fit, load
from tenfold.train.checkpoints import read_checkpoint
from tenfold.train.display import Display
from train.toy_training import ToyTask, assert_same_end, call_handler, toy_config, toy_network


def run_fit(run_dir, methods=(), budget=None, *, task=None, network=None, **options):
    config = toy_config(**options.pop("config", {}))
    return fit(
        network or toy_network(),
        task or ToyTask(),
        methods,
        budget,
        config=config,
        run_dir=run_dir,
        quiet=True,
        **options,
    )


@dataclass(kw_only=True)
class AtStep(Method):
    """Does something when a given step is done."""

    name: ClassVar[str] = "at_step"
    action: object = None
    step: int = 0
    seen: int = 0

    def step_end(self, run):
        self.seen += 1
        if run.step == self.step:
            self.action(run)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]

    def to_dict(self):
        return {"kind": self.name}


def nothing_at_all():
    return AtStep(step=-1)


# What a training leaves behind.


def test_a_small_network_learns_and_leaves_everything(tmp_path):
    before = evaluate(toy_network(), ToyTask(), device="cpu")
    result = run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], Budget(bytes=400), config={"epochs": 4, "ema_decay": 0.9})
    assert result.metrics["top1"] > 0.8 > before["top1"] + 0.1
    assert {path.name for path in tmp_path.iterdir()} == {
        "artifact.safetensors",
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "report.html",
        "report.json",
    }
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(json.dumps(result.report))
    assert report["budget"]["asked"] == {"bytes": 400}
    assert report["cost"]["before"]["bytes"] > 4 * report["cost"]["after"]["bytes"]
    assert report["metrics"]["final"]["top1"] == result.metrics["top1"]
    assert [row["epoch"] for row in report["curves"]] == [1, 2, 3, 4]
    assert all(0 <= row["data_seconds"] <= row["seconds"] for row in report["curves"])
    assert {"name", "kind", "macs", "w_bits", "a_bits", "bitops", "bytes"} <= report["layers"][0].keys()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["train"]["ema_decay"] == 0.9
    assert config["methods"][0]["kind"] == "sat"


def test_an_artifact_gives_back_the_network(tmp_path):
    result = run_fit(tmp_path, [SAT(w_bits=3, a_bits=3)])
    images = ToyTask().example(9)
    again = load(result.artifact, toy_network(seed=5))
    assert torch.equal(again(images), result.network(images))
    assert again.header["metrics"] == result.metrics
    with pytest.raises(UsageError, match="the model registry does not know"):
        load(result.artifact)


def test_a_registered_network_needs_no_code_from_outside(tmp_path):
    from tenfold import models

    class Pictures(ToyTask):
        input_shape = (3, 8, 8)

        def train_batches(self, **options):
            return ((inputs.repeat(1, 3, 1, 1), targets) for inputs, targets in super().train_batches(**options))

        def eval_batches(self, **options):
            return ((inputs.repeat(1, 3, 1, 1), targets) for inputs, targets in super().eval_batches(**options))

        def example(self, batch_size=1):
            return super().example(batch_size).repeat(1, 3, 1, 1)

    network = models.build("resnet20_cifar", num_classes=4)
    result = run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], task=Pictures(), network=network, config={"epochs": 1})
    again = load(result.artifact)
    images = Pictures().example(3)
    assert torch.equal(again(images), result.network(images))
    assert result.report["model"] == "resnet20_cifar"


def test_no_epoch_at_all_only_attaches_calibrates_and_finishes(tmp_path):
    trained = run_fit(tmp_path / "float", config={"epochs": 4})
    config = {"epochs": 0, "calibration_batches": 2}
    result = run_fit(tmp_path / "post", [SAT(w_bits=8, a_bits=8)], network=trained.network, config=config)
    assert result.artifact.exists()
    assert result.report["curves"] == []


def test_two_equal_runs_end_equal_and_leave_the_callers_random_state_alone(tmp_path):
    for name in ("one", "other"):
        torch.manual_seed(42)
        expected = torch.rand(1)
        torch.manual_seed(42)
        network = toy_network()
        torch.manual_seed(42)
        run_fit(tmp_path / name, [SAT(w_bits=4, a_bits=4)], network=network, config={"mixup": 0.2, "cutmix": 0.5})
        assert torch.equal(torch.rand(1), expected)
    assert_same_end(tmp_path / "one", tmp_path / "other")


# Every option trains.


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "rmsprop_tf", "lr": 0.01},
        {"optimizer": "adamw", "lr": 0.01},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"clip_grad": 0.1, "label_smoothing": 0.1},
        {"channels_last": False, "ema_decay": 0.5, "ema_warmup": False},
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"deterministic": True},
    ],
    ids=lambda options: ",".join(options),
)
def test_an_option_trains_and_resumes_exactly(tmp_path, options):
    run_fit(tmp_path / "whole", config=options)
    with pytest.raises(Interrupted):
        run_fit(tmp_path / "parts", task=ToyTask(interrupted_step=3), config=options)
    result = run_fit(tmp_path / "parts", resume=True, config=options)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert result.metrics["loss"] < 3


def test_recomputing_changes_nothing_and_may_change_when_a_run_resumes(tmp_path):
    run_fit(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_fit(tmp_path / "parts", task=ToyTask(interrupted_step=3), config={"recompute": True})
    run_fit(tmp_path / "parts", resume=True, config={"recompute": False})
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow  # starts the compiler
def test_a_compiled_network_trains_as_the_plain_one(tmp_path):
    plain = run_fit(tmp_path / "plain", network=toy_network(dropout=0.0))
    compiled = run_fit(tmp_path / "compiled", network=toy_network(dropout=0.0), config={"compile": True})
    for name, tensor in plain.network.state_dict().items():
        torch.testing.assert_close(compiled.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_synchronised_batch_norm_is_refused_on_the_cpu(tmp_path):
    with pytest.raises(UsageError, match="works on CUDA devices only"):
        run_fit(tmp_path, config={"sync_bn": True})


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        run_fit(tmp_path, config={"device": "gpu"})


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    run_fit(tmp_path, config={"tensorboard": True, "epochs": 1})
    assert list((tmp_path / "tensorboard").iterdir())


# Passes and penalties.


def test_what_methods_show_is_renewed_between_epochs(tmp_path, monkeypatch):
    class Counting(AtStep):
        name = "counting"

        def status(self):
            return {"seen": str(self.seen)}

    shown = {}
    monkeypatch.setattr(Display, "step", lambda _, *, step, status, **others: shown.update({step: status}))
    run_fit(tmp_path / "run", [Counting()], config={"epochs": 1, "log_steps": 2})
    assert shown == {1: None, 2: {"seen": "2"}, 3: None, 4: {"seen": "4"}}


@dataclass(kw_only=True)
class TwoPasses(Method):
    """Runs each batch with weights 2 and 0.5, and adds a penalty on one weight."""

    name: ClassVar[str] = "two_passes"
    entered: ClassVar[list] = []

    def passes(self, network):
        return [Pass(weight=w, enter=lambda w=w: self.entered.append(w)) for w in (2.0, 0.5)]

    def penalty(self, network):
        return 3.0 * network[-1].weight[0, 0]


def test_gradients_of_all_passes_and_penalties_are_summed_into_one_step(tmp_path):
    """Oracle: one step of plain SGD on 2.5 times the loss plus the penalty, written out."""
    TwoPasses.entered.clear()
    config = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "channels_last": False}
    task = ToyTask(train_images=16)
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    twin = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    twin.load_state_dict(network.state_dict())
    result = run_fit(tmp_path, [TwoPasses()], task=task, network=network, config=config)

    inputs, targets = next(iter(task.train_batches(epoch=0, batch_size=16, seed=3)))
    loss = 2.5 * task.loss(twin(inputs), targets) + 3.0 * twin[-1].weight[0, 0]
    loss.backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= 0.1 * parameter.grad
    torch.testing.assert_close(result.network.state_dict(), twin.state_dict())
    assert TwoPasses.entered[:2] == [2.0, 0.5]
    row = result.report["curves"][0]
    assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["top1"] == pytest.approx((row["top1/0"] + row["top1/1"]) / 2)


def test_passes_of_several_methods_combine():
    from tenfold.train.passes import combined_passes

    entered = []

    class Many(Method):
        name = "many"

        def __init__(self, tag, weights):
            self.tag, self.weights = tag, weights

        def passes(self, network):
            return [Pass(weight=w, enter=lambda w=w: entered.append((self.tag, w))) for w in self.weights]

    found = combined_passes([Many("a", (1.0, 2.0)), Many("b", (3.0,))], toy_network())
    assert [one.weight for one in found] == [3.0, 6.0]
    found[1].enter()
    assert entered == [("a", 2.0), ("b", 3.0)]
    assert [one.weight for one in combined_passes([], toy_network())] == [1.0]


# Interruption and resumption.


@pytest.mark.parametrize("step", [1, 4, 6, 8], ids=["first", "epoch's last", "middle", "very last"])
def test_an_interrupted_run_saves_and_ends_bit_identical_when_resumed(tmp_path, step):
    """8 steps in two epochs; SAT at 4 bits, dropout, weight average, mixup: everything that has a state."""
    config = {"ema_decay": 0.9, "mixup": 0.3}

    def methods(last):
        return [SAT(w_bits=4, a_bits=4), last]

    task = ToyTask(interrupted_step=step)
    task.signal = signal.SIGTERM if step % 4 else signal.SIGINT
    run_fit(tmp_path / "whole", methods(nothing_at_all()), config=config)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"Everything is saved in .*step_") as caught:
        run_fit(tmp_path / "parts", methods(nothing_at_all()), task=task, config=config)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert caught.value.step == step
    assert caught.value.exit_code == 130
    assert task.signal.name in str(caught.value)
    last = nothing_at_all()
    run_fit(tmp_path / "parts", methods(last), resume=True, config=config)
    assert last.seen == 8  # the method's own state came back too
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_stop_during_evaluation_leaves_at_once(tmp_path):
    class Stopping(ToyTask):
        def eval_batches(self, **options):
            call_handler(signal.SIGTERM)
            yield from super().eval_batches(**options)

    with pytest.raises(Interrupted):
        run_fit(tmp_path / "parts", task=Stopping())
    state = read_checkpoint(next((tmp_path / "parts/checkpoints").iterdir()))
    assert state["position"]["epoch"] == 0
    assert state["position"]["batch"] == 4
    run_fit(tmp_path / "parts", resume=True)
    run_fit(tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_may_be_resumed_and_ends_the_same(tmp_path):
    run_fit(tmp_path / "one")
    run_fit(tmp_path / "other")
    run_fit(tmp_path / "other", resume=True)
    assert_same_end(tmp_path / "one", tmp_path / "other")


def test_resuming_nothing_starts_from_the_beginning(tmp_path, capfd):
    config = toy_config(epochs=1)
    fit(toy_network(), ToyTask(), config=config, run_dir=tmp_path / "one", resume=True)
    captured = capfd.readouterr()
    assert "has no checkpoint yet: starting from the beginning" in captured.err
    assert "epoch 1/1, lr" in captured.err
    assert captured.out == ""


def test_a_damaged_newest_checkpoint_falls_back_and_still_ends_the_same(tmp_path, capfd):
    run_fit(tmp_path / "whole", config={"epochs": 3})
    with pytest.raises(Interrupted):
        run_fit(tmp_path / "parts", task=ToyTask(interrupted_step=10), config={"epochs": 3})
    newest = tmp_path / "parts/checkpoints/step_0000000010.safetensors"
    content = bytearray(newest.read_bytes())
    content[-100] ^= 4
    newest.write_bytes(content)
    config = toy_config(epochs=3)
    fit(toy_network(), ToyTask(), config=config, run_dir=tmp_path / "parts", resume=True)
    assert "does not match its SHA-256. Going on from step_0000000008.safetensors" in capfd.readouterr().err
    newest.with_suffix(".damaged").unlink()
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_checkpoints_come_at_their_interval_and_when_overdue(tmp_path, monkeypatch):
    saved = []
    write = checkpoints_module.write_checkpoint
    monkeypatch.setattr(checkpoints_module, "write_checkpoint", lambda p, s: (saved.append(p.name), write(p, s)))
    run_fit(tmp_path / "steps", config={"checkpoint_steps": 3})
    assert [int(name[5:15]) for name in saved] == [3, 4, 6, 8]
    saved.clear()
    run_fit(tmp_path / "minutes", config={"checkpoint_minutes": 1e-9, "epochs": 1})
    assert sorted({int(name[5:15]) for name in saved}) == [1, 2, 3, 4]


def test_other_settings_cannot_resume_and_are_named(tmp_path):
    with pytest.raises(Interrupted):
        run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], task=ToyTask(interrupted_step=2))
    with pytest.raises(CheckpointError) as caught:
        run_fit(
            tmp_path,
            [SAT(w_bits=3, a_bits=4)],
            Budget(bytes=10_000),
            resume=True,
            config={"lr": 0.2, "log_steps": 5},
        )
    message = str(caught.value)
    assert "train.lr: 0.1 in the checkpoint, 0.2 now" in message
    assert "methods[0].w_bits: 4 in the checkpoint, 3 now" in message
    assert "budget: None in the checkpoint, 'bytes=10k' now" in message
    assert "schemes.3.w_bits" in message
    assert "log_steps" not in message


def test_an_option_that_is_newer_than_the_checkpoint_may_have_its_default_only(tmp_path, monkeypatch):
    options, settings = SAT.to_dict, TrainConfig.to_dict
    older = {"only", "cycles"}
    with monkeypatch.context() as patch:
        patch.setattr(SAT, "to_dict", lambda self: {k: v for k, v in options(self).items() if k not in older})
        patch.setattr(TrainConfig, "to_dict", lambda self: {k: v for k, v in settings(self).items() if k not in older})
        with pytest.raises(Interrupted):
            run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], task=ToyTask(interrupted_step=2))
    with pytest.raises(CheckpointError) as caught:
        run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], resume=True, config={"cycles": 2})
    assert "train.cycles: absent in the checkpoint, 2 now" in str(caught.value)
    assert "only" not in str(caught.value)
    assert run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], resume=True).metrics


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run_fit(tmp_path, config={"epochs": 1})
    with pytest.raises(UsageError, match=r"already holds a run. Go on with it by resume=True"):
        run_fit(tmp_path, config={"epochs": 1})


# What goes wrong.


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLossError) as caught:
        run_fit(tmp_path, task=ToyTask(poisoned_step=7))
    message = str(caught.value)
    assert "the loss became nan in step 7 (epoch 2, learning rate" in message
    assert "step_0000000004.safetensors" in message
    assert "a lower learning rate" in message
    state = read_checkpoint(tmp_path / "checkpoints/step_0000000004.safetensors")
    assert all(tensor.isfinite().all() for tensor in state["network"].values())
    run_fit(tmp_path, resume=True)  # with the data repaired it goes on


@dataclass(kw_only=True)
class BrokenGradient(Method):
    """Adds nothing to the loss, but its gradient is infinite."""

    name: ClassVar[str] = "broken_gradient"

    def penalty(self, network):
        weight = network[-1].weight
        return (weight - weight.detach()).sum().sqrt()


def test_gradients_that_always_overflow_stop_an_fp16_training(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"gradients overflow in every step up to 31.*bf16 or fp32 instead"):
        run_fit(tmp_path, [BrokenGradient()], config={"precision": "fp16", "epochs": 8})


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path):
    def break_weight(run):
        with torch.no_grad():
            run.network[0].weight[0] = float("inf")

    with pytest.raises(NonFiniteLossError, match=r"a weight became NaN or infinite by step 4.*No checkpoint had been"):
        run_fit(tmp_path, [AtStep(step=4, action=break_weight)])
    assert not list(tmp_path.rglob("step_*"))


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(tmp_path):
    flush = os.fsync

    def fill(_):
        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.fsync = full

    try:
        with pytest.raises(StorageError, match="No space left on device"):
            run_fit(tmp_path / "parts", [AtStep(step=6, action=fill)])
    finally:
        os.fsync = flush
    assert [path.name for path in sorted((tmp_path / "parts/checkpoints").iterdir())] == [
        "best.safetensors",
        "step_0000000004.safetensors",
    ]
    run_fit(tmp_path / "parts", [nothing_at_all()], resume=True)
    run_fit(tmp_path / "whole", [nothing_at_all()])
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_budget_without_a_method_is_judged_before_training(tmp_path):
    with pytest.raises(BudgetError, match=r"bytes: asked for 300, got 1,104. Add a method"):
        run_fit(tmp_path, budget=Budget(bytes=300))
    assert not (tmp_path / "checkpoints").exists()


def test_a_budget_that_the_finished_network_breaks_is_an_error(tmp_path):
    with pytest.raises(BudgetError, match=r"does not keep the budget bytes=250: bytes: asked for 250, got 252"):
        run_fit(tmp_path, [SAT(w_bits=4, a_bits=4)], Budget(bytes=250), config={"epochs": 1})


def test_a_latency_budget_is_measured(tmp_path):
    result = run_fit(tmp_path / "kept", [nothing_at_all()], Budget(latency_ms=1000), config={"epochs": 1})
    assert 0 < result.report["latency_ms"] < 1000
    with pytest.raises(BudgetError, match="latency_ms: asked for 1e-06"):
        run_fit(tmp_path / "broken", [nothing_at_all()], Budget(latency_ms=1e-6), config={"epochs": 1})


def test_too_few_batches_are_an_error(tmp_path):
    with pytest.raises(DataError, match="epoch 1 had 3 batches, but the task 'toy' announced 4"):
        run_fit(tmp_path, task=ToyTask(short=True))


def test_no_batch_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="not even one batch of 16 images"):
        run_fit(tmp_path, task=ToyTask(train_images=8))


def test_no_evaluation_data_are_an_error():
    with pytest.raises(DataError, match="no evaluation data"):
        evaluate(toy_network(), ToyTask(eval_images=0), device="cpu")


def test_evaluation_changes_nothing(tmp_path):
    network = toy_network()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small, large = (evaluate(network, ToyTask(), batch_size=size, device="cpu") for size in (7, 100))
    assert small == pytest.approx(large)
    assert [module.training for module in network.modules()] == modes
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_an_artifact_that_does_not_fit_is_refused(tmp_path):
    from tenfold.errors import ArtifactError
    from tenfold.export.artifact import write_artifact

    result = run_fit(tmp_path, [SAT(w_bits=3, a_bits=3)], config={"epochs": 1})
    with pytest.raises(ArtifactError, match="do not fit"):
        load(result.artifact, torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)))
    header, tensors = read_artifact(result.artifact)
    odd = tmp_path / "odd.safetensors"
    write_artifact(odd, tensors, {**header, "architecture": {"name": "no_such_network", "options": {}}})
    with pytest.raises(ArtifactError, match="cannot be built here"):
        load(odd)


def test_the_default_configuration_is_used_without_one():
    assert TrainConfig().epochs == 30


def test_epochs_may_go_by_without_an_evaluation_and_the_weights_are_the_same(tmp_path):
    every = run_fit(tmp_path / "every", config={"epochs": 3})
    seldom = run_fit(tmp_path / "seldom", config={"epochs": 3, "eval_epochs": 2})
    rows = seldom.report["curves"]
    assert ["top1" in row for row in rows] == ["eval_loss" in row for row in rows] == [False, True, True]
    assert rows[1]["top1"] == every.report["curves"][1]["top1"]
    assert seldom.metrics == every.metrics
    assert seldom.report["metrics"]["best"]["epoch"] in (2, 3)
    assert (tmp_path / "seldom" / "checkpoints" / "best.safetensors").exists()
    for one, other in zip(every.network.parameters(), seldom.network.parameters(), strict=True):
        assert torch.equal(one, other)
